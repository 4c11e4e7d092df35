"""Runs Beam's own job service with two workers for each job. The argument is the port.

`python -m apache_beam.runners.portability.local_job_service_main` does the same with one worker; it
has no option for the number of workers. So this script sets a private attribute of Beam's runner.
It runs inside the image, so it imports nothing of the tests.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import threading
from typing import Any

from apache_beam.runners.portability import local_job_service
from apache_beam.runners.portability.fn_api_runner import fn_runner


class _Runner(fn_runner.FnApiRunner):
    def __init__(self, **arguments: Any):
        super().__init__(**arguments)
        self._num_workers = 2


class _Job(local_job_service.BeamJob):
    def _invoke_runner(self) -> Any:
        self.set_state(local_job_service.beam_job_api_pb2.JobState.RUNNING)
        runner = _Runner(provision_info=self._provision_info)
        return runner.run_via_runner_api(self._pipeline_proto, self.pipeline_options())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)  # prints "Requesting worker at …" for each worker
    service = local_job_service.LocalJobServicer(tempfile.mkdtemp(), beam_job_type=_Job)
    print("listening at", service.start_grpc_server(int(sys.argv[1])), flush=True)
    threading.Event().wait()

"""The pool of Python workers beside a TaskManager of Flink.

    python -m components.worker_pool --port 50000

Beam has such a pool, apache_beam.runners.worker.worker_pool_main (2.77), but with two faults (no
issues found). If a worker dies before it has called its TaskManager, the TaskManager waits for it
for ever (ExternalEnvironmentFactory of Beam 2.70); here, it is started again. And a worker's
standard output is a pipe that nobody reads, so a worker that prints much stops.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

_GRACE = 10  # seconds
# Without a time limit, no timer sends half an element (see upstream.BEAM_WORKER).
_WORKER = """\
import sys
from apache_beam.runners.worker.sdk_worker import SdkHarness
SdkHarness(sys.argv[1], worker_id=sys.argv[2], data_buffer_time_limit_ms=-1).run()
"""


class Pool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Beam's service that starts and stops workers; each is a process."""

    def __init__(self) -> None:
        self._stops: dict[str, threading.Event] = {}  # by the id of the worker

    def StartWorker(self, request: Any, _: grpc.ServicerContext) -> Any:
        """Starts a worker; it calls the TaskManager at the request's control endpoint."""
        stop = self._stops[request.worker_id] = threading.Event()
        keeper = threading.Thread(
            target=_keep, args=(request.control_endpoint.url, request.worker_id, stop), daemon=True
        )
        keeper.start()
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request: Any, _: grpc.ServicerContext) -> Any:
        """Stops a worker, if it still runs."""
        if stop := self._stops.pop(request.worker_id, None):
            stop.set()
        return beam_fn_api_pb2.StopWorkerResponse()


def _keep(endpoint: str, id_: str, stop: threading.Event) -> None:
    """Runs a worker until it is stopped or its TaskManager has gone."""
    while not stop.is_set() and _listens(endpoint):
        process = subprocess.Popen([sys.executable, "-c", _WORKER, endpoint, id_])
        while process.poll() is None and not stop.wait(0.2):
            pass
        if stop.is_set():
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
            process.kill()
            process.wait()
        else:
            print(f"worker {id_} ended with status {process.returncode}", flush=True)
            stop.wait(1)


def _listens(endpoint: str) -> bool:
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_GRACE).close()
    except OSError:
        return False
    return True


def serve(port: int) -> grpc.Server:
    """Starts the service at a port of all addresses."""
    server = grpc.server(ThreadPoolExecutor())
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(Pool(), server)
    server.add_insecure_port(f"[::]:{port}")
    server.start()
    return server


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True, help="port of the service")
    serve(parser.parse_args().port).wait_for_termination()

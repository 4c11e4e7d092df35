"""A Flink cluster's REST API: which jobs run, how far they are, and how to end them.

Beam's job service can do neither: while a job runs it has no metrics, and its Cancel marks Beam's
job as cancelled, but Flink's job goes on (Beam 2.70, FlinkJobServerDriver).
"""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.request
from typing import Any, NamedTuple

from components.errors import UserError

PORT = 8081

_ENDED = frozenset({"FINISHED", "CANCELED", "FAILED"})
_PATIENCE = 15  # seconds
# The cluster is in the same network, so no proxy is asked.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class Job(NamedTuple):
    """A job that has not ended."""

    id: str
    done: int  # tasks
    total: int  # tasks
    page: str  # URL of its page


class Flink:
    """The cluster whose JobManager is on the host of Beam's job server."""

    def __init__(self, endpoint: str):
        """Args: endpoint: HOST:PORT of Beam's job server."""
        self.address = f"{endpoint.rpartition(':')[0]}:{PORT}"

    def jobs(self, names: str) -> list[Job]:
        """The jobs whose names start with this and that have not ended.

        Raises:
            UserError: the JobManager does not answer.
        """
        overview = self._ask("/jobs/overview")
        return [
            Job(
                job["jid"],
                job["tasks"]["finished"],
                job["tasks"]["total"],
                f"http://{self.address}/#/job/running/{job['jid']}",
            )
            for job in overview["jobs"]
            if job["name"].startswith(names) and job["state"] not in _ENDED
        ]

    def cancel(self, names: str) -> None:
        """Ends the jobs whose names start with this, and waits until nothing of them runs.

        Raises:
            UserError: the JobManager does not answer, or a job does not end.
        """
        end = time.monotonic() + _PATIENCE
        while jobs := self.jobs(names):
            for job in jobs:
                with contextlib.suppress(urllib.error.HTTPError):  # it has just ended
                    self._ask(f"/jobs/{job.id}?mode=cancel", "PATCH")
            if time.monotonic() > end:
                raise UserError(f"Flink does not end the job {names}: look at {jobs[0].page}")
            time.sleep(1)

    def _ask(self, path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(f"http://{self.address}{path}", method=method)
        try:
            with _open(request, timeout=_PATIENCE) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError:
            raise
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise UserError(
                f"beam.endpoint: Flink's JobManager does not answer at {self.address} ({reason}); "
                "it has to be on the host of Beam's job server"
            ) from None

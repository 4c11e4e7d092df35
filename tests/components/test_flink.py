"""The client of Flink's REST API, on a server that answers as Flink 1.19 does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest

from components import flink
from components.errors import UserError
from components.flink import Flink
from tests.ports import free_port

ENDPOINT = "127.0.0.1:8099"


class Rest(BaseHTTPRequestHandler):
    """Two jobs of this name, one of which has ended, and one of another name."""

    states: ClassVar[dict[str, str]] = {}
    ends: ClassVar[bool]

    def do_GET(self) -> None:
        names = {"old": "goodseed-a", "new": "goodseed-a", "other": "goodseed-b"}
        self._answer(
            {
                "jobs": [
                    {
                        "jid": id_,
                        "name": names[id_],
                        "state": state,
                        "tasks": {"finished": 3, "running": 1, "total": 8},
                    }
                    for id_, state in self.states.items()
                ]
            }
        )

    def do_PATCH(self) -> None:
        id_ = self.path.removeprefix("/jobs/").removesuffix("?mode=cancel")
        if self.states[id_] == "FINISHED":
            self.send_error(409)
            return
        self.states[id_] = "CANCELED" if self.ends else "CANCELLING"
        self._answer({})

    def _answer(self, document: dict[str, Any]) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The states of the jobs, by id."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # the cluster is never behind it
    monkeypatch.setattr(Rest, "states", {"old": "FINISHED", "new": "RUNNING", "other": "RUNNING"})
    monkeypatch.setattr(Rest, "ends", True, raising=False)
    server = HTTPServer(("127.0.0.1", 0), Rest)
    monkeypatch.setattr(flink, "PORT", server.server_port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Rest.states
    server.shutdown()
    server.server_close()


def test_the_jobs_that_run(states: dict[str, str]) -> None:
    (job,) = Flink(ENDPOINT).jobs("goodseed-a")
    assert (job.id, job.done, job.total) == ("new", 3, 8)
    assert job.page == f"http://127.0.0.1:{flink.PORT}/#/job/running/new"


def test_cancel_ends_the_jobs_of_one_name(states: dict[str, str]) -> None:
    Flink(ENDPOINT).cancel("goodseed-a")
    assert states == {"old": "FINISHED", "new": "CANCELED", "other": "RUNNING"}
    Flink(ENDPOINT).cancel("goodseed-a")  # there is none


def test_cancel_ends_all_jobs_of_a_run(states: dict[str, str]) -> None:
    Flink(ENDPOINT).cancel("goodseed-")
    assert states == {"old": "FINISHED", "new": "CANCELED", "other": "CANCELED"}


def test_a_job_that_does_not_end(states: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rest, "ends", False)
    monkeypatch.setattr(flink, "_PATIENCE", 0.5)
    with pytest.raises(UserError, match="Flink does not end the job goodseed-a: look at http"):
        Flink(ENDPOINT).cancel("goodseed-a")


def test_no_job_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flink, "PORT", free_port())
    with pytest.raises(UserError, match=f"does not answer at 127.0.0.1:{flink.PORT} .*refused"):
        Flink(ENDPOINT).jobs("goodseed-a")

"""The pool starts Beam's workers, starts dead ones again, and stops them when it is told to."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc, endpoints_pb2

from components import worker_pool
from tests.ports import free_port


class TaskManager(beam_fn_api_pb2_grpc.BeamFnControlServicer):
    """The part of a TaskManager that workers call."""

    def __init__(self) -> None:
        self.called: queue.Queue[str] = queue.Queue()  # ids of the workers
        self._over = threading.Event()
        self.server = grpc.server(ThreadPoolExecutor())
        beam_fn_api_pb2_grpc.add_BeamFnControlServicer_to_server(self, self.server)
        self.endpoint = f"localhost:{self.server.add_insecure_port('localhost:0')}"
        self.server.start()

    def Control(self, responses: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.called.put(str(dict(context.invocation_metadata())["worker_id"]))
        while context.is_active() and not self._over.wait(0.1):
            pass
        yield from ()

    def die(self) -> None:
        self._over.set()
        self.server.stop(None).wait()


class Running(NamedTuple):
    pool: beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub
    task_manager: TaskManager

    def start(self) -> None:
        endpoint = endpoints_pb2.ApiServiceDescriptor(url=self.task_manager.endpoint)
        request = beam_fn_api_pb2.StartWorkerRequest(worker_id="1-1", control_endpoint=endpoint)
        assert not self.pool.StartWorker(request, timeout=10).error

    def processes(self) -> list[int]:
        """The workers, by their process ids."""
        return [
            int(folder.name)
            for folder in Path("/proc").iterdir()
            if folder.name.isdecimal() and self.task_manager.endpoint in _command(folder)
        ]


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:  # it has just ended
        return ""


@pytest.fixture
def running() -> Iterator[Running]:
    port = free_port()
    server, task_manager = worker_pool.serve(port), TaskManager()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)  # type: ignore[no-untyped-call]
        yield Running(stub, task_manager)
    task_manager.die()
    server.stop(None).wait()


def wait_for(happened: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_worker_that_dies_before_it_calls_is_started_again(running: Running) -> None:
    running.start()
    wait_for(running.processes)
    (first,) = running.processes()
    os.kill(first, signal.SIGKILL)
    assert running.task_manager.called.get(timeout=60) == "1-1"
    assert running.processes() != [first]


def test_a_worker_stops(running: Running) -> None:
    running.start()
    running.task_manager.called.get(timeout=60)
    running.pool.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="1-1"), timeout=10)
    wait_for(lambda: not running.processes())
    running.pool.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="1-1"), timeout=10)


def test_a_worker_ends_with_its_task_manager(running: Running) -> None:
    running.start()
    running.task_manager.called.get(timeout=60)
    running.task_manager.die()
    wait_for(lambda: not running.processes())
    time.sleep(2)  # it is not started again
    assert not running.processes()

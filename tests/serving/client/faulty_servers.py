"""Servers that fail in different ways."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import grpc
from goodseed_client.predict_pb2 import PredictRequest

from tests.ports import free_port
from tests.serving.client.server import ages, serving

ROOT = Path(__file__).parents[3]


@contextmanager
def process(port: int = 0, age: float = 40) -> Iterator[subprocess.Popen[str]]:
    """A server in another process."""
    command = [sys.executable, "-m", "tests.serving.client.server", str(port), str(age)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout and running.stdout.readline() == "ready\n"
        try:
            yield running
        finally:
            running.send_signal(signal.SIGCONT)
            running.kill()


@contextmanager
def no_server() -> Iterator[str]:
    yield f"127.0.0.1:{free_port()}"


@contextmanager
def slow() -> Iterator[str]:
    over = threading.Event()

    def answer(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        over.wait(30)
        return ages(40)

    with serving(answer) as server:
        yield server
        over.set()


@contextmanager
def killed() -> Iterator[str]:
    port = free_port()
    with process(port) as running:
        running.kill()
        running.wait()
        yield f"127.0.0.1:{port}"


@contextmanager
def frozen() -> Iterator[str]:
    port = free_port()
    with process(port) as running:
        running.send_signal(signal.SIGSTOP)
        yield f"127.0.0.1:{port}"


@contextmanager
def raw(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does not speak HTTP/2."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                try:
                    talk(connection)
                except OSError:
                    pass
                finally:
                    connection.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def reset(connection: socket.socket) -> None:
    connection.recv(16)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def talk_http_1(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def talk_nonsense(connection: socket.socket) -> None:
    connection.sendall(os.urandom(4096))


def say_nothing(connection: socket.socket) -> None:
    connection.settimeout(10)
    while connection.recv(4096):
        pass


FAULTY_SERVERS: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "no server": no_server,
    "slow": slow,
    "killed": killed,
    "frozen": frozen,
    "reset": lambda: raw(reset),
    "HTTP/1": lambda: raw(talk_http_1),
    "nonsense": lambda: raw(talk_nonsense),
    "silent": lambda: raw(say_nothing),
}

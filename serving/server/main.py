"""`goodseed serve`: the command line, the log and the signals."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from types import FrameType

from serving import heap
from serving.server.flags import FlagError, parse, usage

STOPPED, FAILED, USER_MISTAKE = 0, 1, 2

_STOPS = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger(__name__)


class _Stop(BaseException):  # not an Exception: nothing may take it for an error of its own
    """SIGTERM or SIGINT, while the server starts."""


def main(arguments: Sequence[str]) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status.

    0: stopped, with all requests answered; 1: it could not start; 2: a mistake in the flags.
    """
    if "--help" in arguments:
        print(usage())
        return STOPPED
    try:
        flags = parse(arguments)
    except FlagError as error:
        print(error, usage(), sep="\n", file=sys.stderr)
        return USER_MISTAKE
    # Weights do not change while they are served. oneDNN, once told so, brings them into its own
    # order at their first use, not at each: 48 photos/s one by one instead of 43, and 119 instead
    # of 105 in two batches of 16 at a time (ResNet50 at 96 px on two cores).
    os.environ.setdefault("TF_ONEDNN_ASSUME_FROZEN_WEIGHTS", "1")
    # Sessions with threads of their own: a servable may have one of all threads and one of one.
    os.environ.setdefault("TF_OVERRIDE_GLOBAL_THREADPOOL", "1")
    # Not before: a mistake in the flags is told at once, and TensorFlow takes seconds to import.
    with heap.permanent():
        import tensorflow as tf

        from serving.server.errors import ServingError
        from serving.server.server import Server

    if flags.version:
        print(f"TensorFlow ModelServer: goodseed serve\nTensorFlow Library: {tf.__version__}")
        return STOPPED
    _log_as_there()
    stop = _Signals()
    try:
        with Server(flags) as server:
            server.start()
            stop.wait()
            _log.info("Stopping: no new requests; those that run are answered")
    except _Stop:
        _log.info("Stopped before it served")
    except ServingError as error:
        print(f"Failed to start server. Error: {error}", file=sys.stderr)
        return FAILED
    return STOPPED


class _Signals:
    """SIGTERM and SIGINT: before `wait`, they break off; the second one always does."""

    def __init__(self) -> None:
        self._serving = False
        self._stopped = False
        # The kernel may hand a signal to any thread. Python's handler runs in the main thread, and
        # a lock for which that waits does not let go of it then; a socket does.
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno())
        for number in _STOPS:
            signal.signal(number, self._handle)

    def wait(self) -> None:
        """Returns at the first signal."""
        self._serving = True
        while not self._stopped:
            self._woken.recv(1)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        for number in _STOPS:
            signal.signal(number, signal.SIG_DFL)
        if not self._serving:
            raise _Stop
        self._stopped = True


def _log_as_there() -> None:
    """Lines as TensorFlow's logger writes them, to standard error."""
    logging.basicConfig(
        format="%(asctime)s.%(msecs)03d: %(levelname).1s %(name)s:%(lineno)d] %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        level=logging.INFO,
        force=True,
    )
    # TensorFlow warns of its own loader; gRPC prints a traceback for each request that it can't
    # parse, and for each that is answered with an error.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.getLogger("grpc").setLevel(logging.CRITICAL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`goodseed serve`: the command line, the log and the signals."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

from serving.server.flags import parse

STOPPED, FAILED = 0, 1

_STOPS = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger(__name__)


class _Stop(BaseException):  # not an Exception: no handler of errors may catch it
    """SIGTERM or SIGINT."""


def main(arguments: Sequence[str]) -> int:
    """Serves until SIGTERM or SIGINT, then ends the process. The exit status says why.

    0: stopped; 1: it could not start; 2: a mistake in the flags.
    """
    flags = parse(arguments)
    # Weights do not change while they are served, so oneDNN may reorder them once and keep them.
    os.environ.setdefault("TF_ONEDNN_ASSUME_FROZEN_WEIGHTS", "1")
    # Imported only now, so that a mistake in the flags is reported at once.
    import tensorflow as tf

    from serving.server.errors import ServingError
    from serving.server.server import Server

    gc.freeze()  # the imported objects stay, so garbage collection can skip them
    if flags.version:
        print(f"TensorFlow ModelServer: goodseed serve\nTensorFlow Library: {tf.__version__}")
        return STOPPED
    tf.config.threading.set_intra_op_parallelism_threads(flags.tensorflow_intra_op_parallelism)
    tf.config.threading.set_inter_op_parallelism_threads(flags.tensorflow_inter_op_parallelism)
    _set_up_log()
    status = STOPPED
    try:
        server = Server(flags)
        try:
            for number in _STOPS:
                signal.signal(number, _stop)
            server.start()
            # Python's handler runs in the main thread. The kernel may give the signal to another
            # thread, and this does not end a sleep of the main thread. So each sleep is short.
            while True:
                time.sleep(0.5)
        except _Stop:
            _log.info("Stopping: no new requests; those that run are answered")
            server.stop()
    except ServingError as error:
        print(f"Failed to start server. Error: {error}", file=sys.stderr)
        status = FAILED
    logging.shutdown()
    # A normal end would wait without bound for the thread of each request and each load.
    os._exit(status)


def _stop(_number: int, _frame: FrameType | None) -> None:
    """Stops the server; a second signal kills the process at once."""
    for number in _STOPS:
        signal.signal(number, signal.SIG_DFL)
    raise _Stop


def _set_up_log() -> None:
    """Lines in the form of TensorFlow's log, on standard error."""
    logging.basicConfig(
        format="%(asctime)s.%(msecs)03d: %(levelname).1s %(name)s:%(lineno)d] %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        level=logging.INFO,
        force=True,
    )
    # TensorFlow warns about its own loader. gRPC prints a traceback for each request that it can't
    # parse or that is answered with an error.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.getLogger("grpc").setLevel(logging.CRITICAL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

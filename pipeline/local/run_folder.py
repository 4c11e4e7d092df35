"""The folder of a run: one run at a time, one log for the output of all libraries."""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from components.errors import UserError
from pipeline.system import stderr_to


@contextlib.contextmanager
def use(run_dir: Path) -> Iterator[TextIO]:
    """Makes and locks the folder; sends logs and standard error to its run.log.

    Yields the original standard error: the threads of a failed step may still write to the new one.

    The operating system holds the lock and releases it even if the run is killed. TensorFlow's C++
    code writes to file descriptor 2 when it is imported, so call this before the import.

    Raises:
        UserError: the folder can't be written to, or another run uses it.
    """
    with contextlib.ExitStack() as stack:
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((run_dir / ".lock").open("ab"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            log = stack.enter_context((run_dir / "run.log").open("wb"))
        except BlockingIOError:
            raise UserError(
                f"{run_dir}: another run is using it; wait for its end or give another --run-dir"
            ) from None
        except OSError as error:
            raise UserError(
                f"{run_dir}: {error.strerror}; give a --run-dir that you may write to"
            ) from None
        terminal = stack.enter_context(stderr_to(log.fileno()))
        stack.enter_context(contextlib.redirect_stderr(_Stderr()))
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
        )
        logging.captureWarnings(True)
        yield terminal


class _Stderr(io.TextIOBase):
    """Standard error that never fails: a Beam worker that can't print its error hangs forever."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            os.write(2, text.encode(errors="replace"))
        return len(text)

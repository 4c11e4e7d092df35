"""The folder of a run: one run at a time, one log for all that libraries say, whole JSON files."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from components.errors import UserError


@contextlib.contextmanager
def use(run_dir: Path) -> Iterator[TextIO]:
    """Holds the folder, made where it is missing; logs and stderr go to its run.log.

    Yields what stderr was: threads that a failed step left behind still write to the new one.

    The lock is the system's, which lets go of it even when the run is killed. TensorFlow's C++
    writes to file descriptor 2 as soon as it is imported, so that this comes before the import.

    Raises:
        UserError: the folder can't be written to, or another run uses it.
    """
    with contextlib.ExitStack() as stack:
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((run_dir / ".lock").open("a"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            log = stack.enter_context((run_dir / "run.log").open("w"))
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


@contextlib.contextmanager
def stderr_to(file: int) -> Iterator[TextIO]:
    """Sends file descriptor 2 to another file; yields what it was."""
    with open(os.dup(2), "w") as terminal:
        os.dup2(file, 2)
        try:
            yield terminal
        finally:
            os.dup2(terminal.fileno(), 2)


class _Stderr(io.TextIOBase):
    """Standard error that never fails: a Beam worker that can't print its error hangs for good."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            os.write(2, text.encode(errors="replace"))
        return len(text)


def write_whole(path: Path, document: Mapping[str, Any]) -> None:
    """Writes JSON, all of it or nothing."""
    aside = path.with_name(f".{path.name}.next")
    aside.write_text(json.dumps(document, indent=2) + "\n")
    os.replace(aside, path)

"""The heap of a Beam step: what it frees goes back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from typing import Any

# mallopt(3): parameters of malloc.h, and the names by which a child process takes them.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_BYTES = 1 << 20
_CHILDREN = {f"MALLOC_{name}_THRESHOLD_": str(_BYTES) for name in ("TRIM", "MMAP")}
_UP_TO = 1 << 25  # where glibc's own threshold ends up in a process that frees large buffers


@contextlib.contextmanager
def returned() -> Iterator[None]:
    """Buffers of 1 MiB and more are the system's again when freed, in children, too.

    glibc raises that threshold with each larger buffer that is freed, up to 32 MiB, and keeps what
    is below it: batches of photos, then, leave holes that the next ones do not fit, and a longer
    run stands higher (96,000 photos through Transform: 1,245 MiB; with this: 1,113). With a lower
    threshold it is slower. Not for the training, whose tensors come again each step. Without glibc
    nothing happens.
    """
    before = {name: os.environ.get(name) for name in _CHILDREN}
    os.environ.update(_CHILDREN)
    _limit(_BYTES)
    try:
        yield
    finally:
        _limit(_UP_TO)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class GivesBack:
    """Put before an executor: what its `Do` frees is returned."""

    def Do(self, *arguments: Any) -> None:
        """Runs the executor."""
        with returned():
            super().Do(*arguments)  # type: ignore[misc]


def _limit(size: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_TRIM_THRESHOLD, size)
        mallopt(_MMAP_THRESHOLD, size)

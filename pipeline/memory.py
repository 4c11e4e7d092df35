"""What a step needs of memory."""

from __future__ import annotations

import contextlib

import psutil


def resident_mb() -> float:
    """Resident memory of this process and all below it, MB."""
    process = psutil.Process()
    resident = 0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            resident += one.memory_info().rss
    return round(resident / 2**20, 1)

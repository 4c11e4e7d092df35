"""What is freed goes back to the system, and only where that is asked for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from components import heap

# Buffers are freed in front of one that stays, as batches are in front of the next.
PROGRAM = """
import sys
import psutil
from components import heap

def hold():
    del bytearray(1 << 24)[:]  # glibc's own threshold rises above what follows
    held = [bytearray(1 << 21) for _ in range(150)]
    full = psutil.Process().memory_info().rss
    del held[:-1]
    return full - psutil.Process().memory_info().rss

if sys.argv[1] != "kept":
    with heap.returned():
        found = hold()
if sys.argv[1] != "returned":
    found = hold()
print(found)
"""


def freed(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's heap")
def test_the_system_gets_back_what_is_freed() -> None:
    assert freed("returned") > 290 << 20 > freed("kept")
    assert freed("kept again") < 290 << 20


def test_children_are_told_and_later_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "7")
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    with pytest.raises(RuntimeError), heap.returned():
        assert os.environ["MALLOC_MMAP_THRESHOLD_"] == "1048576"
        raise RuntimeError
    assert os.environ["MALLOC_TRIM_THRESHOLD_"] == "7"
    assert "MALLOC_MMAP_THRESHOLD_" not in os.environ

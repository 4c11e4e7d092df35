"""File systems that are soon full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mounts a file system at a folder. Skips the test if this user may not mount.

    Args:
        folder: where to mount it.
        size: its size with a unit, such as 64k.
    """
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs to mount a small file system, as root may")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)

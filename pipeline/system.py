"""Memory use, standard error, and files that are written whole."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import psutil

_FORKING = 1.0  # seconds


def resident_mb() -> float:
    """Resident memory of this process and all its descendants, MB."""
    process = psutil.Process()
    resident = process.memory_info().rss
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            # A child that has just been forked shares its parent's memory until it calls exec.
            if time.time() - child.create_time() > _FORKING:
                resident += child.memory_info().rss
    return round(resident / 2**20, 1)


@contextlib.contextmanager
def stderr_to(file: int) -> Iterator[TextIO]:
    """Sends file descriptor 2 to another file descriptor; yields the original one as a file."""
    encoding = sys.stderr.encoding
    with open(os.dup(2), "w", encoding=encoding, errors="backslashreplace") as terminal:
        os.dup2(file, 2)
        try:
            yield terminal
        finally:
            os.dup2(terminal.fileno(), 2)


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Drops what TensorFlow's C++ code prints while it is imported, at every log level."""
    with open(os.devnull, "wb") as nowhere, stderr_to(nowhere.fileno()):
        yield


def write_whole(path: Path, document: Mapping[str, Any]) -> None:
    """Writes JSON; a reader sees the old file or the whole new one."""
    write_text_whole(path, json.dumps(document, indent=2) + "\n")


def write_text_whole(path: Path, text: str) -> None:
    """Writes text in UTF-8; a reader sees the old file or the whole new one."""
    aside = path.with_name(f".{path.name}.next")
    aside.write_text(text, "utf-8")
    os.replace(aside, path)

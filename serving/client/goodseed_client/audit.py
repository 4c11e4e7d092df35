"""The audit file: one JSON line per advice, without the photo and without the age."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path

from goodseed_client.advice import Advice
from goodseed_client.policy import Policy

logger = logging.getLogger("goodseed.client")


class Audit:
    """Appends lines to a file. Thread-safe.

    Each process needs a file of its own: two processes would rotate each other's files. The file is
    opened again for each line, so other programs may move it away at any time. A file that would
    grow beyond `max_bytes` becomes `<name>.1`, the old `<name>.1` becomes `<name>.2`, and so on;
    the oldest is deleted.

    Args:
        path: path of the file.
        till: name of the till; every line contains it.
        max_bytes: maximum size of each file.
        keep: number of old files to keep.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        till: str,
        max_bytes: int = 10_000_000,
        keep: int = 9,
    ):
        self._path = Path(path)
        self._till = str(till)
        self._max_bytes = max_bytes
        self._keep = keep
        self._lock = threading.Lock()
        self._lost = 0  # lines that were lost since the last line in the file

    def write(self, advice: Advice, policy: Policy) -> None:
        """Appends a line. If that fails, the log says so; nothing is raised."""
        line = json.dumps(
            {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "till": self._till,
                "advice": advice.kind,
                "reason": advice.reason,
                "model_version": advice.model_version,
                "policy": policy.hash,
                "latency_ms": round(advice.latency_ms, 1),
            }
        )
        with self._lock:
            try:
                self._append(line.encode() + b"\n")
            except (OSError, ValueError) as error:  # ValueError: the path has a NUL byte
                self._lost += 1
                if self._lost == 1:
                    logger.error("audit lines are being lost: %s", error)
            else:
                if self._lost:
                    logger.error("%d audit lines were lost in %s", self._lost, self._path)
                self._lost = 0

    def _append(self, line: bytes) -> None:
        with self._path.open("ab", buffering=0) as file:
            size = file.tell()
            if size == 0 or size + len(line) <= self._max_bytes:
                written = file.write(line)
                if written < len(line):
                    file.truncate(size)  # the disk is full; keep whole lines only
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
                return
        self._rotate()
        self._append(line)

    def _rotate(self) -> None:
        for number in range(self._keep, 0, -1):
            younger = self._numbered(number - 1)
            if younger.exists():
                os.replace(younger, self._numbered(number))
        self._path.unlink(missing_ok=True)  # still there if `keep` is 0

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path

"""The audit file: one JSON line per advice, without the photo and without the age."""

from __future__ import annotations

import atexit
import errno
import json
import logging
import os
import queue
import threading
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

from goodseed_client.advice import Advice
from goodseed_client.policy import Policy

logger = logging.getLogger("goodseed.client")

_WAITING = 1000  # lines that wait for a slow disk
_FLUSH = 1.0  # seconds that the end of a client or a process waits for them


class Audit:
    """Appends lines to a file, and never waits for the disk. Thread-safe.

    A thread of its own writes. Several audits, threads and processes may share a file (on Windows:
    no processes). The file is opened again for each line, so other programs may move it away at any
    time. A file that would grow beyond `max_bytes` becomes `<name>.1`, the old `<name>.1` becomes
    `<name>.2`, and so on; the oldest is deleted.

    Args:
        path: path of the file.
        till: name of the till; every line contains it.
        max_bytes: maximum size of each file; the first audit of a file decides.
        keep: number of old files to keep; the same.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        till: str,
        max_bytes: int = 10_000_000,
        keep: int = 9,
    ):
        self._path = Path(path).absolute()
        self._till = str(till)
        self._max_bytes = max_bytes
        self._keep = keep

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
        self._writer().put(line.encode() + b"\n")

    def flush(self) -> None:
        """Waits until the lines are in the file, for at most a second."""
        self._writer().flush()

    def _writer(self) -> _Writer:
        # Looked up for each line: a forked process has none of its parent's threads.
        return _writers.of(self._path, self._max_bytes, self._keep)


class _Writer:
    """The thread that writes a file."""

    def __init__(self, path: Path, max_bytes: int, keep: int):
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._lines: queue.Queue[bytes | threading.Event] = queue.Queue(_WAITING)
        self._counting = threading.Lock()
        self._lost = 0  # lines that were lost since the last line in the file
        threading.Thread(target=self._work, name="goodseed-audit", daemon=True).start()

    def put(self, line: bytes) -> None:
        """Takes a line, or counts it as lost if too many wait."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._lose(f"{_WAITING:,} lines wait for {self._path}")

    def flush(self) -> None:
        """Waits for the lines that were put before."""
        done = threading.Event()
        try:
            self._lines.put(done, timeout=_FLUSH)
        except queue.Full:
            return
        done.wait(_FLUSH)

    def _work(self) -> None:
        while True:
            line = self._lines.get()
            if isinstance(line, threading.Event):
                line.set()
                continue
            try:
                self._append(line)
            except (OSError, ValueError) as error:  # ValueError: the path has a NUL byte
                self._lose(str(error))
            else:
                self._found()

    def _lose(self, why: str) -> None:
        with self._counting:
            self._lost += 1
            first = self._lost == 1
        if first:
            logger.error("audit lines are being lost: %s", why)

    def _found(self) -> None:
        with self._counting:
            lost, self._lost = self._lost, 0
        if lost:
            logger.error("%d audit lines were lost in %s", lost, self._path)

    def _append(self, line: bytes) -> None:
        while True:
            with self._path.open("ab", buffering=0) as file:
                if fcntl:
                    fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
                    if not _is_at(file, self._path):  # another process has just moved it away
                        continue
                size = file.seek(0, os.SEEK_END)
                if size == 0 or size + len(line) <= self._max_bytes:
                    written = file.write(line)
                    if written < len(line):
                        file.truncate(size)  # the disk is full; keep whole lines only
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
                    return
                if fcntl:
                    self._rotate()
            if not fcntl:  # Windows renames no open file
                self._rotate()

    def _rotate(self) -> None:
        for number in range(self._keep, 0, -1):
            younger = self._numbered(number - 1)
            if younger.exists():
                os.replace(younger, self._numbered(number))
        self._path.unlink(missing_ok=True)  # still there if `keep` is 0

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


class _Writers:
    """The writers of this process, one for each file."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets them: a forked process has none of the threads, and the lock may be held."""
        self._starting = threading.Lock()
        self._by_path: dict[Path, _Writer] = {}

    def of(self, path: Path, max_bytes: int, keep: int) -> _Writer:
        """The writer of a file; it starts at its first line."""
        with self._starting:
            if path not in self._by_path:
                self._by_path[path] = _Writer(path, max_bytes, keep)
            return self._by_path[path]

    def flush(self) -> None:
        """Waits for the lines of all files."""
        for writer in list(self._by_path.values()):
            writer.flush()


_writers = _Writers()
atexit.register(_writers.flush)
if hasattr(os, "register_at_fork"):  # Windows can't fork
    os.register_at_fork(after_in_child=_writers.reset)

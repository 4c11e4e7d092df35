"""The progress of the step that runs: a logger, whose lines each runner shows in its own way.

Each message is a complete line ("1,280/6,000 photos"). A console may replace the line before it;
the log of a pod has all of them.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

logger = logging.getLogger("goodseed.progress")

_EVERY = 0.5  # seconds between two lines; more reports than that are dropped
_lock = threading.Lock()
_last = 0.0
_watching = threading.Lock()


def report(done: int, total: int, unit: str) -> None:
    """Logs that `done` of `total` are done; thread-safe. The last report is never dropped.

    Args:
        done: how many are done.
        total: how many there are; 0 if nobody knows yet.
        unit: what is counted, in the plural; further words may follow.
    """
    global _last
    with _lock:
        now = time.monotonic()
        if now - _last < _EVERY and done != total:
            return
        _last = now
    logger.info(f"{done:,}/{total:,} {unit}" if total else f"{done:,} {unit}")


@contextlib.contextmanager
def watching(count: Callable[[], tuple[int, int, str] | None]) -> Iterator[None]:
    """Reports, as long as the block runs, how many are done of how many, when this has changed.

    Inside another such block it reports nothing: two counts would replace each other on the screen.

    Args:
        count: gives what `report` takes, or None if there is nothing to say; called every second,
            in a thread.
    """
    if not _watching.acquire(blocking=False):
        yield
        return
    over = threading.Event()

    def watch() -> None:
        last = None
        while not over.wait(1):
            counted = count()
            if counted and counted != last:
                report(*counted)
            last = counted

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        _watching.release()

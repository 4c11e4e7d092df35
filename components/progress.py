"""How far the step that runs is, for whoever watches: a logger that runners show as they like.

Each record's message is a ready line ("1,280/6,000 photos"); a console may overwrite the line
before it, a pod's log simply shows them.
"""

from __future__ import annotations

import logging
import threading
import time

logger = logging.getLogger("goodseed.progress")

_EVERY = 0.5  # seconds between two lines; a caller may report as often as it likes
_lock = threading.Lock()
_last = 0.0


def report(done: int, total: int, unit: str) -> None:
    """Says that `done` of `total` are done; thread-safe; the last one is always said.

    Args:
        done: how many so far.
        total: how many in all; 0 where nobody knows yet.
        unit: what is counted, in the plural, and any further words.
    """
    global _last
    with _lock:
        now = time.monotonic()
        if now - _last < _EVERY and done != total:
            return
        _last = now
    logger.info(f"{done:,}/{total:,} {unit}" if total else f"{done:,} {unit}")

"""What a step tells about its progress."""

from __future__ import annotations

import time

import pytest

from components import progress


def test_a_watched_block_shows_its_count(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", progress.logger.name)
    with progress.watching(lambda: (3, 8, "photos")), progress.watching(lambda: (1, 2, "tasks")):
        end = time.monotonic() + 30
        while "3/8 photos" not in caplog.messages and time.monotonic() < end:
            time.sleep(0.05)
    assert set(caplog.messages) == {"3/8 photos"}
    with progress.watching(lambda: (1, 2, "tasks")):
        end = time.monotonic() + 30
        while "1/2 tasks" not in caplog.messages and time.monotonic() < end:
            time.sleep(0.05)
    assert caplog.messages[-1] == "1/2 tasks"

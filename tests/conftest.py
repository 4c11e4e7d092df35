"""What the tests share: drawn photos, the real faces where they are, transformed examples."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.sample.draw import draw_sample
from tests.browser import Browser, opened

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

# A shell's background jobs start with Ctrl-C ignored, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def faces() -> Path:
    """The folder of 6,000 real photos; obligatory where GOODSEED_REQUIRE_SHARED is set."""
    folder = SHARED / "faces"
    if not folder.is_dir():
        reason = (
            f"needs the real photos in {folder.relative_to(SHARED.parent)}, beside the checkout"
        )
        if os.environ.get("GOODSEED_REQUIRE_SHARED"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


class Finished(NamedTuple):
    """What a command of ours left behind."""

    status: int
    out: str
    err: str


def goodseed_command(*arguments: str | Path) -> list[str]:
    """The `goodseed` command of this checkout, as a process of its own."""
    return [sys.executable, "-m", "pipeline.cli", *map(str, arguments)]


def goodseed(*arguments: str | Path) -> Finished:
    """Runs `goodseed` as a user does."""
    done = subprocess.run(
        goodseed_command(*arguments),
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},  # tables that do not wrap
        capture_output=True,
        text=True,
        timeout=600,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def drawn_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sample of drawn faces, broken files among them."""
    folder = tmp_path_factory.mktemp("drawn") / "photos"
    draw_sample(folder, count=240)
    return folder


@pytest.fixture
def free_pieces() -> Iterator[Callable[[], None]]:
    """Frees 200 MB in small pieces, which malloc keeps, as others above them are in use."""
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("needs glibc's heap")
    malloc, free = ctypes.CDLL(None).malloc, ctypes.CDLL(None).free
    malloc.restype, free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    pieces = [malloc(1000) for _ in range(200_000)]
    in_use = pieces[::100]
    del pieces[::100]

    def release() -> None:
        while pieces:
            free(pieces.pop())

    yield release
    for piece in (*in_use, *pieces):
        free(piece)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium; obligatory where GOODSEED_REQUIRE_BROWSER is set."""
    with opened() as browser:
        yield browser

"""Fixtures for all tests: drawn photos, the real faces, the `goodseed` command, a browser."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import hypothesis
import pytest

from pipeline.sample.draw import draw_sample
from tests.browser import Browser, headless_browser
from tests.pictures import told

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
PRIVATE = b"Lange Str. 7"  # no part of a run may tell it

# On a busy machine, an example may take long.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")

# A shell starts background jobs with Ctrl-C ignored, and child processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def faces() -> Path:
    """The folder of real photos; without it, tests fail if GOODSEED_REQUIRE_SHARED is set."""
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
    """The exit status and the output of a command."""

    status: int
    out: str
    err: str


def goodseed_command(*arguments: str | Path) -> list[str]:
    """The command line that starts `goodseed` of this checkout."""
    return [sys.executable, "-m", "pipeline.cli", *map(str, arguments)]


def goodseed(*arguments: str | Path) -> Finished:
    """Runs `goodseed` as a user does: in a process of its own."""
    done = subprocess.run(
        goodseed_command(*arguments),
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},  # wide tables are not wrapped
        capture_output=True,
        text=True,
        timeout=600,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def drawn_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sample of drawn faces, with some broken files; the metadata of many tell PRIVATE."""
    folder = tmp_path_factory.mktemp("drawn") / "photos"
    draw_sample(folder, count=240)
    for file in (folder / "final_files").iterdir():
        file.write_bytes(told(file.read_bytes(), PRIVATE))
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium; without it, tests fail if GOODSEED_REQUIRE_BROWSER is set."""
    with headless_browser() as browser:
        yield browser

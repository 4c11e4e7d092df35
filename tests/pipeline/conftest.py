"""One whole run on this machine, and the `goodseed` command in this process."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import absl.logging
import pytest

from pipeline import cli
from tests.conftest import Finished, goodseed

# A network that has learned almost nothing, and bounds that let it pass.
TINY = (
    "transform.image_size=32", "trainer.epochs=1", "trainer.batch_size=64", "evaluator.max_mae=150",
    "guard.max_refused_test=0.9", "evaluator.min_test_photos=1",
)  # fmt: skip

First = tuple[Path, Finished, dict[str, Any]]
Command = Callable[..., Finished]


def arguments(photos: Path, run_dir: Path, *overrides: str) -> list[str]:
    """The command line of a small run."""
    sets = [word for override in (*TINY, *overrides) for word in ("--set", override)]
    return ["run", "--photos", str(photos), "--run-dir", str(run_dir), "--profile", "demo", *sets]


@pytest.fixture(scope="session")
def first(drawn_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> First:
    """The folder of a first run, what it printed, and its summary.

    In `make test`, only tests/pipeline/local/test_runner.py uses it: so there is one whole run.
    """
    run_dir = tmp_path_factory.mktemp("first") / "run"
    finished = goodseed(*arguments(drawn_photos, run_dir))
    return run_dir, finished, json.loads((run_dir / "summary.json").read_text())


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Runs `goodseed` in this process, and undoes what it does to the process."""
    monkeypatch.setattr(sys, "argv", ["goodseed"])
    monkeypatch.setattr(os, "_exit", sys.exit)
    monkeypatch.setenv("COLUMNS", "200")  # wide tables are not wrapped
    root, verbosity = logging.getLogger(), absl.logging.get_verbosity()
    handlers, level = root.handlers[:], root.level

    def run(*words: str | Path) -> Finished:
        capfd.readouterr()
        try:
            status = cli.main(list(map(str, words)))
        except SystemExit as end:
            status = int(end.code or 0)
        return Finished(status, *capfd.readouterr())

    yield run
    logging.captureWarnings(False)
    absl.logging.set_verbosity(verbosity)
    root.setLevel(level)
    root.handlers[:] = handlers

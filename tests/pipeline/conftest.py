"""A run on this machine, that several modules look at."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Finished, goodseed

# A network that has seen next to nothing, and a bound that lets it pass.
TINY = (
    "transform.image_size=32", "trainer.epochs=1", "trainer.batch_size=64", "evaluator.max_mae=150",
)  # fmt: skip


def arguments(photos: Path, run_dir: Path, *overrides: str) -> list[str]:
    sets = [word for override in (*TINY, *overrides) for word in ("--set", override)]
    return ["run", "--photos", str(photos), "--run-dir", str(run_dir), "--profile", "demo", *sets]


@pytest.fixture(scope="session")
def first(
    drawn_photos: Path, tmp_path_factory: pytest.TempPathFactory, told: Path
) -> tuple[Path, Finished, dict[str, Any]]:
    """The folder of a first run, what it printed and its summary."""
    run_dir = tmp_path_factory.mktemp("first") / "run"
    with locked(told):
        finished = goodseed(*arguments(drawn_photos, run_dir))
        shutil.copy(run_dir / "summary.json", told)
    return run_dir, finished, json.loads((run_dir / "summary.json").read_text())


@pytest.fixture(scope="session")
def first_summary(request: pytest.FixtureRequest, told: Path) -> dict[str, Any]:
    """A first run's summary: another worker's, where one has made that run or is making it."""
    with locked(told):
        if told.exists():
            return json.loads(told.read_text())
    return request.getfixturevalue("first")[2]


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Where every worker finds a first run's summary."""
    folder = tmp_path_factory.getbasetemp()
    return (folder if worker_id == "master" else folder.parent) / "first.json"


@contextmanager
def locked(file: Path) -> Iterator[None]:
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

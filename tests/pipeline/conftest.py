"""A run on this machine, that several modules look at."""

from __future__ import annotations

import json
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
    drawn_photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Finished, dict[str, Any]]:
    """The folder of a first run, what it printed and its summary."""
    run_dir = tmp_path_factory.mktemp("first") / "run"
    finished = goodseed(*arguments(drawn_photos, run_dir))
    return run_dir, finished, json.loads((run_dir / "summary.json").read_text())

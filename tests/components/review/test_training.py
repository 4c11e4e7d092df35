"""The section on the training tells the history that the Trainer wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.review import training
from components.review.page import Section
from tests.components.review import made

TABLE = "Each epoch; the weights of the marked one were kept"


def told(tmp_path: Path, **changes: Any) -> Section:
    return training.section(made.trained(tmp_path, made.HISTORY | changes))


def test_curves_phases_and_time(tmp_path: Path) -> None:
    section = told(tmp_path)
    rows = made.tables(section)[TABLE]
    assert [row["trained"].text for row in rows] == ["last layer", "whole network", "whole network"]
    assert [row["MAE on eval, years"].text for row in rows] == ["9.00", "8.00", "9.00"]
    assert [row["epoch"].mark for row in rows] == ["", "good", ""]
    words = made.words(section)
    assert "lasted 3 epochs: 60 seconds in all, 20.0 seconds an epoch" in words
    assert "For 1 epoch only the new last layer was trained" in words
    assert "Weights of the network: 23,589,761; computed in: bfloat16" in words
    mae = made.charts(section)["MAE: years off, on average"]
    assert "on eval 9.00 after the first epoch, 8.00 after epoch 2" in mae.description
    for chart in made.charts(section).values():
        chart.spec.to_dict()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"stopped": "patience"}, "stopped early: for 4 epochs in a row"),
        ({"stopped": "epochs"}, "all epochs that the configuration allows were over"),
        ({"stopped": ""}, "Why it stopped is not recorded"),
    ],
)
def test_why_it_stopped(changes: dict[str, Any], why: str, tmp_path: Path) -> None:
    assert why in made.words(told(tmp_path, **changes))


def test_one_epoch_of_a_trainer_that_recorded_less(tmp_path: Path) -> None:
    history = {"best_epoch": 1, "epochs": made.HISTORY["epochs"][:1]}
    section = training.section(made.trained(tmp_path, history))
    assert len(made.tables(section)[TABLE]) == 1
    assert "lasted 1 epoch: 10 seconds in all" in made.words(section)
    assert made.words(section).count("not recorded") == 3

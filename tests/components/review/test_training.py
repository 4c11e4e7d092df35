"""The section "Training" shows the history that the Trainer wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.review import training
from components.review.page import Section
from tests.components.review import synthetic

TABLE = "Epochs (the model has the weights of the marked one)"


def section_of(tmp_path: Path, **changes: Any) -> Section:
    return training.section(synthetic.trained(tmp_path, synthetic.HISTORY | changes))


def test_curves_phases_and_time(tmp_path: Path) -> None:
    section = section_of(tmp_path)
    rows = synthetic.tables(section)[TABLE]
    assert [row["trained"].text for row in rows] == ["last layer", "whole network", "whole network"]
    assert [row["MAE on eval, years"].text for row in rows] == ["9.00", "8.00", "9.00"]
    assert [row["epoch"].mark for row in rows] == ["", "good", ""]
    words = synthetic.text_of(section)
    assert "took 3 epochs and 60 seconds, which is 20.0 seconds per epoch" in words
    assert "For 1 epoch, only the new last layer was trained" in words
    assert "weights in the network: 23,589,761. Number format: bfloat16" in words
    mae = synthetic.charts(section)["MAE"]
    assert "on eval 9.00 after the first epoch, 8.00 after epoch 2" in mae.description
    for chart in synthetic.charts(section).values():
        chart.spec.to_dict()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"stopped": "patience"}, "did not improve for 4 epochs"),
        ({"stopped": "epochs"}, "after the number of epochs in the configuration"),
        ({"stopped": ""}, "reason for the end of the training is not recorded"),
    ],
)
def test_why_it_stopped(changes: dict[str, Any], why: str, tmp_path: Path) -> None:
    assert why in synthetic.text_of(section_of(tmp_path, **changes))


def test_a_history_of_one_epoch_with_few_facts(tmp_path: Path) -> None:
    history = {"best_epoch": 1, "epochs": synthetic.HISTORY["epochs"][:1]}
    section = training.section(synthetic.trained(tmp_path, history))
    assert len(synthetic.tables(section)[TABLE]) == 1
    assert "took 1 epoch and 10 seconds" in synthetic.text_of(section)
    assert synthetic.text_of(section).count("not recorded") == 3

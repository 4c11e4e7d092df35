"""TFMA's figures and their intervals."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow_model_analysis as tfma
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from components.evaluator import MAE
from components.review import slices
from components.review.evaluation import MEAN_ERROR, OVERALL, Figure, interval, read
from components.review.page import Cell, Table
from schemas import features
from tests.components.review import made


@given(st.lists(st.floats(-120, 120), min_size=2, max_size=30))
def test_the_interval_is_a_jackknife(errors: list[float]) -> None:
    """Leaving out one photo at a time, as Efron & Tibshirani define it."""
    values = np.array(errors)
    left_out = (values.sum() - values) / (len(values) - 1)
    spread = ((left_out - left_out.mean()) ** 2).sum()
    half = student.ppf(0.975, len(values) - 1) * np.sqrt((len(values) - 1) / len(values) * spread)
    found = interval(float(values.mean()), float((values**2).mean()), len(values))
    assert found.high - found.value == pytest.approx(half, abs=1e-3, rel=1e-6)
    assert found.value - found.low == pytest.approx(half, abs=1e-3, rel=1e-6)


@pytest.mark.parametrize("count", [0, 1, math.nan])
def test_of_one_photo_there_is_no_interval(count: float) -> None:
    found = interval(5.0, 25.0, count)
    assert found.value == 5.0 and math.isnan(found.low)
    assert f"{found:.1f}" == "5.0 (no interval)"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("run")
    photos = made.photos(400, gender=["female", made.HOSTILE] * 200)
    made.run(folder, photos)
    return folder / "evaluation", photos[photos["split"] == features.TEST]


def test_the_figures_are_tfmas(evaluated: tuple[Path, pd.DataFrame]) -> None:
    folder, photos = evaluated
    errors = photos["candidate"] - photos[features.AGE]
    overall = read(folder)[OVERALL]
    metrics = tfma.load_eval_result(str(folder)).get_metrics_for_slice()
    assert overall[MAE].value == metrics[MAE]["doubleValue"]
    assert overall[MAE].value == pytest.approx(errors.abs().mean())
    assert overall[MEAN_ERROR].value == pytest.approx(errors.mean(), abs=1e-4)
    assert 0 <= overall[MAE].low < overall[MAE].value < overall[MAE].high


def test_every_slice_is_in_the_table(evaluated: tuple[Path, pd.DataFrame]) -> None:
    folder = evaluated[0]
    result = tfma.load_eval_result(str(folder))
    section = slices.blocks([slices.Evaluation("this model", read(folder))], few=10)
    table = section[-1]
    assert isinstance(table, Table) and table.interactive
    assert len(table.rows) == len(result.slicing_metrics)
    at = table.columns.index("MAE, years")
    shown = {row[0].text: row[at] for row in table.rows if isinstance(row[0], Cell)}
    for key, metrics in result.slicing_metrics:
        cell = shown[slices.label(key)]
        assert isinstance(cell, Cell)
        assert cell.value == pytest.approx(metrics[""][""][MAE]["doubleValue"])
        few = metrics[""][""]["example_count"]["doubleValue"] < 10
        assert (cell.mark == "few") is few
    bands = [row[0].text for row in table.rows if isinstance(row[0], Cell)][1:10]
    assert bands == [f"age {band}" for band in features.AGE_BANDS]


def test_any_metric_and_any_key_two_models_side_by_side() -> None:
    mae, other = Figure(5.0, 4.0, 6.0), Figure(0.25, math.nan, math.nan)
    key = (("shelf", "<b>"), ("till", "3"))
    metrics = {MAE: mae, "unheard_of": other, "example_count": Figure(50, math.nan, math.nan)}
    first = slices.Evaluation("first", {OVERALL: metrics, key: metrics})
    second = slices.Evaluation("second", {OVERALL: {**metrics, MAE: Figure(7.0, 6.0, 8.0)}})
    table = slices.blocks([first, second], few=30)[-1]
    assert isinstance(table, Table)
    assert "first: unheard_of" in table.columns and "second: MAE, years" in table.columns
    rows = [
        [cell.text if isinstance(cell, Cell) else str(cell) for cell in row] for row in table.rows
    ]
    assert rows[0][-1] == "-2.00"
    assert rows[1][:2] == ["shelf <b>, till 3", "shelf × till"]
    assert rows[1][table.columns.index("second: MAE, years")] == "–"

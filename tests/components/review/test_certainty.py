"""The section "Certainty"."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.intervals import share
from components.review import certainty
from components.review.inputs import Inputs
from components.review.page import render
from schemas import features
from tests.components.review import synthetic


@pytest.fixture(scope="module")
def photos() -> pd.DataFrame:
    """Photos with one band whose interval is too narrow, and some refused photos."""
    table = synthetic.photos(900)
    old = table[features.AGE_BAND] == "65+"
    table.loc[old, synthetic.LOW] = table.loc[old, synthetic.HIGH] = 1.0
    table.loc[table.index[::10], [synthetic.OBJECTION, synthetic.P_MINOR]] = ["no_face", 0.5]
    return table


@pytest.fixture(scope="module")
def inputs(photos: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A run on these photos."""
    return synthetic.run(tmp_path_factory.mktemp("run"), photos)


def answered(photos: pd.DataFrame) -> pd.DataFrame:
    return photos[(photos["split"] == features.TEST) & (photos[synthetic.OBJECTION] == "")]


def test_the_certainty_in_each_slice(inputs: Inputs, photos: pd.DataFrame) -> None:
    test = answered(photos)
    inside = test[features.AGE].between(test[synthetic.LOW], test[synthetic.HIGH])
    (rows,) = synthetic.tables(certainty.section(inputs)).values()
    found = {row["slice"].text: row for row in rows}
    for name, band in (("all photos", None), ("age 0–12", "0–12"), ("age 65+", "65+")):
        chosen = test if band is None else test[test[features.AGE_BAND] == band]
        row = found[name]
        assert row["photos"].value == len(chosen)
        cell = row["ages inside the interval (95 % interval)"]
        assert cell.text == f"{share(int(inside[chosen.index].sum()), len(chosen)):.1%}"
        minors = (chosen[features.AGE] < 18).to_numpy()
        curve = certainty.area_under_curve(chosen[synthetic.P_MINOR].to_numpy(), minors)
        expected = "–" if np.isnan(curve) else f"{curve:.1%}"
        assert row["area under the ROC curve"].text == expected
    assert found["age 65+"]["ages inside the interval (95 % interval)"].mark == "bad"


def test_the_calibration_error() -> None:
    said = np.array([0.05] * 100 + [0.95] * 100 + [1.0] * 20)
    minors = np.array([True] * 20 + [False] * 80 + [True] * 90 + [False] * 10 + [True] * 20)
    # 100 photos: 0.05 against 0.2. 120 photos in the last bin: 0.9583 against 0.9167.
    expected = (100 * 0.15 + 120 * abs((95 + 20) / 120 - 110 / 120)) / 220
    assert certainty.calibration_error(said, minors) == pytest.approx(expected)
    assert certainty.calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0


def test_the_area_under_the_curve() -> None:
    scores, minors = np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False])
    # Of four pairs of a minor and an adult, three are in order and one is a tie.
    assert certainty.area_under_curve(scores, minors) == 3.5 / 4
    assert np.isnan(certainty.area_under_curve(scores, np.full(4, True)))


def test_the_figures_are_on_the_page(inputs: Inputs, photos: pd.DataFrame) -> None:
    test = answered(photos)
    minors = (test[features.AGE] < 18).to_numpy()
    said = test[synthetic.P_MINOR].to_numpy()
    text = synthetic.text_of(certainty.section(inputs))
    assert f"in {certainty.area_under_curve(said, minors):.1%} of all pairs" in text
    assert f"off by {certainty.calibration_error(said, minors):.1%}" in text
    (chart,) = synthetic.charts(certainty.section(inputs)).values()
    assert sum(row["photos"] for row in chart.spec.layer[0].data.values) == len(test)


def test_an_evaluation_without_certainty(tmp_path: Path) -> None:
    table = synthetic.photos(60)
    table[synthetic.P_MINOR] = np.nan
    page = render("t", [certainty.section(synthetic.run(tmp_path, table))])
    assert "does not say how sure" in page

"""The section "Fairness"."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import binomtest

from components.review import fairness
from components.review.inputs import Inputs
from components.review.page import render
from schemas import features
from tests.components.review import synthetic


@pytest.fixture(scope="module")
def photos() -> pd.DataFrame:
    """Photos in which people with a hat look younger, and some are refused."""
    table = synthetic.photos(1500, hat=["yes", "no"] * 750, store=["one"] * 1500)
    hat = table["hat"] == "yes"
    table.loc[hat, "candidate"] *= 0.6
    table.loc[table.index[::20], synthetic.OBJECTION] = features.NO_FACE
    return table


@pytest.fixture(scope="module")
def inputs(photos: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A run on these photos."""
    return synthetic.run(tmp_path_factory.mktemp("run"), photos)


def share(chosen: pd.Series) -> str:
    count, photos = int(chosen.sum()), len(chosen)
    bounds = binomtest(count, photos).proportion_ci(0.95, "wilson")
    return f"{count / photos:.1%} ({bounds.low:.1%} to {bounds.high:.1%})"


def test_who_is_asked_in_each_group(inputs: Inputs, photos: pd.DataFrame) -> None:
    tables = synthetic.tables(fairness.section(inputs))
    assert list(tables) == ["Groups by hat"]  # store has one value
    test = photos[photos["split"] == features.TEST]
    asked = ~synthetic.passes(test["candidate"], test[synthetic.P_MINOR])
    asked |= test[synthetic.OBJECTION] != ""
    for row, value in zip(tables["Groups by hat"], ("no", "yes"), strict=True):
        minors = (test["hat"] == value) & (test[features.AGE] < 18)
        adults = (test["hat"] == value) & (test[features.AGE] >= 25)
        assert row["hat"].text == value
        assert row["minors who pass without ID"].text == share(~asked[minors])
        assert row["adults who are asked for ID"].text == share(asked[adults])
        assert row["adults"].value == adults.sum()


def test_the_worst_group_against_the_best(inputs: Inputs) -> None:
    text = synthetic.text_of(fairness.section(inputs))
    assert "hat: adults of yes are asked" in text and "times as often as those of no" in text
    assert "chance alone does not explain it" in text
    assert "hat: minors of all groups pass equally often." in text
    few = synthetic.with_settings(inputs, min_photos=10_000)
    assert "there are too few photos of adults" in synthetic.text_of(fairness.section(few))


def test_a_model_that_asks_everybody(photos: pd.DataFrame, tmp_path: Path) -> None:
    inputs = synthetic.run(tmp_path, photos.assign(**{synthetic.P_MINOR: 1.0}))
    for row in synthetic.tables(fairness.section(inputs))["Groups by hat"]:
        assert row["minors who pass without ID"].value == 0
        assert row["adults who are asked for ID"].value == 1


def test_a_table_without_groups(tmp_path: Path) -> None:
    page = render("t", [fairness.section(synthetic.run(tmp_path, synthetic.photos(60)))])
    assert "no extra column with groups" in page

"""The section "Refused photos"."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from scipy.stats import binomtest

from components.review import refused
from components.review.inputs import Inputs
from components.review.page import Photos, render
from schemas import features
from tests.components.review import synthetic

HATS = 12  # test photos with a hat, which are refused more often


@pytest.fixture(scope="module")
def photos() -> pd.DataFrame:
    """Photos of people with and without a hat, some of them with an objection."""
    table = synthetic.photos(400, hat=["yes", "no", "no", "no"] * 100)
    test = table[table["split"] == features.TEST]
    with_hat = test.index[test["hat"] == "yes"][:HATS]
    table.loc[with_hat, synthetic.OBJECTION] = features.NO_FACE
    table.loc[test.index[test["hat"] == "no"][:2], synthetic.OBJECTION] = features.TURNED_FACE
    table.loc[table.index[table["split"] == features.TRAIN][:5], synthetic.OBJECTION] = (
        features.SMALL_FACE
    )
    return table


@pytest.fixture(scope="module")
def inputs(photos: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A run on these photos."""
    folder = tmp_path_factory.mktemp("run")
    found = synthetic.run(folder, photos, photos=3)
    synthetic.write_test_shard(folder / "examples", photos)
    return found


def test_objections_by_kind(inputs: Inputs, photos: pd.DataFrame) -> None:
    test = int((photos["split"] == features.TEST).sum())
    rows = {r["objection"].text: r for r in synthetic.tables(refused.section(inputs))["Objections"]}
    assert list(rows) == list(features.OBJECTIONS)
    assert rows[features.NO_FACE]["test photos"].value == HATS
    bounds = binomtest(HATS, test).proportion_ci(0.95, "wilson")
    share = rows[features.NO_FACE]["share of the test photos (95 % interval)"].text
    assert share == f"{HATS / test:.1%} ({bounds.low:.1%} to {bounds.high:.1%})"
    assert rows[features.SMALL_FACE]["photos left out of train and eval"].value == 5
    assert rows[features.SMALL_FACE]["test photos"].value == 0
    text = synthetic.text_of(refused.section(inputs))
    assert f"refuses {(HATS + 2) / test:.1%}" in text and "gate allows 5.0%" in text


def test_a_group_that_is_refused_more_often_is_marked(inputs: Inputs, photos: pd.DataFrame) -> None:
    tables = synthetic.tables(refused.section(inputs))
    rows = {row["slice"].text: row for row in tables["Refused test photos of every slice"]}
    test = photos[photos["split"] == features.TEST]
    for value, name, count in (("yes", features.NO_FACE, HATS), ("no", features.TURNED_FACE, 2)):
        row = rows[f"hat {value}"]
        assert row["photos"].value == (test["hat"] == value).sum()
        assert row[name].value == count
    assert rows["hat yes"]["refused (95 % interval)"].mark == "bad"
    assert rows["hat no"]["refused (95 % interval)"].mark == ""
    assert rows["all photos"]["refused (95 % interval)"].mark == ""


def test_examples_of_each_kind(inputs: Inputs) -> None:
    found = [block for block in refused.section(inputs).blocks if isinstance(block, Photos)]
    assert [block.caption for block in found] == [
        "Examples of no_face",
        "Examples of turned_face",
    ]
    assert [len(block.photos) for block in found] == [3, 2]  # review.photos is 3
    with Image.open(io.BytesIO(found[0].photos[0].jpeg)) as thumbnail:
        assert thumbnail.size == (96, 48)
    without = refused.section(synthetic.with_settings(inputs, thumbnails=False))
    assert "data:image" not in render("t", [without])


def test_a_model_that_refuses_nothing(tmp_path: Path) -> None:
    section = refused.section(synthetic.run(tmp_path, synthetic.photos(100)))
    assert not [block for block in section.blocks if isinstance(block, Photos)]
    assert "refuses 0.0%" in synthetic.text_of(section)


def test_a_model_that_refuses_everything(tmp_path: Path) -> None:
    table = synthetic.photos(100)
    table[synthetic.OBJECTION] = features.UNLIKE_TRAINING
    page = render("t", [refused.section(synthetic.run(tmp_path, table, thumbnails=False))])
    assert "refuses 100.0%" in page

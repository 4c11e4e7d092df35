"""The section "Data" shows TFDV's figures and the photos that are missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.photo_example_gen.component import REJECTS_FILE
from components.photo_example_gen.rejects import Reason, Reject, write
from components.review import data
from components.review.inputs import Inputs
from components.review.page import Section
from schemas import features
from tests.components.review import synthetic

COUNT = 400
REJECTS = [
    Reject("labels.csv", 2, synthetic.HOSTILE, Reason.MISSING, "No such file or directory"),
    *(Reject("labels.csv", 3 + n, f"{n}.jpg", Reason.UNREADABLE, "") for n in range(5)),
    Reject("labels.csv", 9, "copy.jpg", Reason.DUPLICATE_PICTURE, "same as labels.csv row 8"),
    Reject("labels.csv", 10, "left-out.jpg", Reason.EXCLUDED, ""),
]
AGES = "Photos by age band, and the reference population"
VALUES = "Formats, colour modes and extra columns of the CSV: number of photos with each value"
MEASURES = "Sizes, squareness, brightness and sharpness"


@pytest.fixture(scope="module")
def table():
    """No photos of ages 35 to 44; in the second span, the photos are darker and PNG."""
    stores = [synthetic.HOSTILE] * 5 + [None] * 5 + ["market"] * (COUNT - 10)
    photos = synthetic.photos(COUNT, store=stores, span=["1"] * 200 + ["2"] * 200)
    photos = photos[photos[features.AGE_BAND] != "35–44"]
    newer = photos["span"] == "2"
    photos.loc[newer, features.BRIGHTNESS] *= 0.4
    photos.loc[newer, features.FORMAT] = "PNG"
    photos[features.WIDTH] = 200
    return photos


@pytest.fixture(scope="module")
def inputs(table, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return synthetic.run(tmp_path_factory.mktemp("run"), table, REJECTS)


@pytest.fixture(scope="module")
def section(inputs: Inputs) -> Section:
    return data.section(inputs)


def test_age_bands_are_counted_per_split(section: Section, table) -> None:
    rows = synthetic.tables(section)[AGES]
    assert [row["age band"].text for row in rows] == list(features.AGE_BANDS)
    for row in rows:
        for split in features.SPLITS:
            here = (table["split"] == split) & (table[features.AGE_BAND] == row["age band"].text)
            assert row[split].value == here.sum()
    missing = rows[features.AGE_BANDS.index("35–44")]
    assert missing["verdict"].mark == "bad"
    assert missing["share of the population"].text == "13.1%"
    assert "Under-represented age bands: " in synthetic.text_of(section)
    assert "Destatis" in synthetic.text_of(section)


def test_the_population_is_configurable(inputs: Inputs, tmp_path: Path) -> None:
    file = tmp_path / "town.csv"
    file.write_text("# A town of children. Source: its town hall\nage,people\n0-12,9\n13-17,0\n"
                    "18-20,0\n21-24,0\n25-34,0\n35-44,0\n45-54,0\n55-64,0\n65+,0\n")  # fmt: skip
    section = data.section(synthetic.with_settings(inputs, population=str(file)))
    few = [row["age band"].text for row in synthetic.tables(section)[AGES] if row["verdict"].mark]
    assert few == ["0–12"]
    assert "Source: its town hall" in synthetic.text_of(section)


@given(st.floats(0.1, 30), st.floats(0.05, 10))
def test_photos_needed(deviation: float, width: float) -> None:
    """With this number of photos the interval is narrow enough, with one photo less it is not."""
    needed = data.photos_needed(deviation, width)
    assert 2 * 1.96 * deviation / np.sqrt(needed) <= width * 1.001
    assert needed == 1 or 2 * 1.96 * deviation / np.sqrt(needed - 1) > width * 0.999


def test_missing_photos_of_each_band(section: Section, table) -> None:
    rows = {
        r["age band"].text: r for r in synthetic.tables(section)["Missing photos of each age band"]
    }
    test = table[table["split"] == features.TEST]
    old = test[test[features.AGE_BAND] == "65+"]
    errors = (old["candidate"] - old[features.AGE]).abs()
    needed = data.photos_needed(errors.std(), 2.0)
    assert rows["65+"]["s, years"].value == pytest.approx(errors.std(), rel=1e-3)
    assert rows["65+"]["test photos needed"].value == pytest.approx(needed, abs=1)
    assert rows["65+"]["missing in test"].value == pytest.approx(needed - len(old), abs=1)
    share = len(test) / len(table)
    assert rows["65+"]["missing in all splits"].value == pytest.approx(
        (needed - len(old)) / share, abs=4
    )
    assert rows["35–44"]["test photos"].value == 0
    assert rows["35–44"]["missing in test"].value > 0


def test_values(section: Section, table) -> None:
    rows = synthetic.tables(section)[VALUES]
    found = {(row["column"].text, row["value"].text): row["train"].value for row in rows}
    train = table[table["split"] == features.TRAIN]
    assert found["format", "PNG"] == (train[features.FORMAT] == "PNG").sum()
    assert found["mode", "RGB"] == len(train)
    assert found["store", synthetic.HOSTILE] == (train["store"] == synthetic.HOSTILE).sum()
    assert found["store", "(no value or a rare value)"] == train["store"].isna().sum()
    assert not {"file_name", "photo_id", "age_band"} & {column for column, _ in found}


def test_measures(section: Section, table) -> None:
    rows = {(r["measure"].text, r["split"].text): r for r in synthetic.tables(section)[MEASURES]}
    row = rows["Brightness (0 black, 1 white)", "train"]
    train = table[table["split"] == features.TRAIN][features.BRIGHTNESS]
    assert row["smallest"].value == pytest.approx(train.min())
    assert row["median"].value == pytest.approx(train.median(), abs=0.02)
    assert row["10 % are below"].value == pytest.approx(train.quantile(0.1), abs=0.02)
    assert row["10 % are above"].value == pytest.approx(train.quantile(0.9), abs=0.02)
    charts = synthetic.charts(section)
    assert (
        f"50 % are below {row['median'].text}"
        in charts["Brightness (0 black, 1 white)"].description
    )
    assert "Width, pixels" not in charts  # all widths are 200, so there is no chart
    for chart in charts.values():
        chart.spec.to_dict()  # checks it against Vega-Lite's schema


def test_rejects_by_reason_with_examples(section: Section) -> None:
    rows = synthetic.tables(section)["Rejected rows of the CSV"]
    assert [(row["reason"].text, row["rows"].value) for row in rows] == [
        ("unreadable picture", 5),
        ("missing file", 1),
        ("duplicate picture (one copy is kept)", 1),
        ("excluded", 1),
    ]
    assert rows[0]["examples"].text.count(".jpg") == 3
    assert f"labels.csv row 2: {synthetic.HOSTILE} (No such" in rows[1]["examples"].text


def test_drift_since_the_previous_span(section: Section) -> None:
    rows = {
        row["feature"].text: row for row in synthetic.tables(section)["Drift since the span before"]
    }
    assert rows["brightness"]["verdict"].mark == "bad"
    assert rows["format"]["value"].value > 0.8
    assert rows["mode"]["value"].value == 0
    assert rows["sharpness"]["verdict"].text == "alike"
    assert "of span 2" in synthetic.text_of(section)


def test_one_span_no_rejects_and_an_anomaly(inputs: Inputs, tmp_path: Path) -> None:
    synthetic.statistics(tmp_path / "statistics", synthetic.photos(60, span="1"))
    synthetic.anomalies(tmp_path / "anomalies", brightness="Unexpectedly high value: 2.5")
    write([], tmp_path / REJECTS_FILE)
    section = data.section(
        synthetic.with_folders(
            inputs,
            statistics=tmp_path / "statistics",
            anomalies=tmp_path / "anomalies",
            examples=tmp_path,
        )
    )
    (anomaly,) = synthetic.tables(section)["Anomalies"]
    assert anomaly["split"].text == "eval" and anomaly["feature"].text == "brightness"
    assert anomaly["problem"].text == "Unexpectedly high value: 2.5"
    assert "all photos are of one span" in synthetic.text_of(section)
    assert "No row of the CSV was rejected" in synthetic.text_of(section)


def test_an_empty_split(inputs: Inputs, tmp_path: Path) -> None:
    photos = synthetic.photos(60)
    photos.loc[photos["split"] == features.EVAL, "split"] = features.TRAIN
    synthetic.statistics(tmp_path, photos)
    section = data.section(synthetic.with_folders(inputs, statistics=tmp_path))
    assert "0 in eval" in synthetic.text_of(section)
    assert all(row["eval"].value == 0 for row in synthetic.tables(section)[AGES])

"""The table and the charts of the slices."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow_model_analysis as tfma
from scipy.stats import ttest_rel

from components.evaluator import COUNT
from components.gate import MAE
from components.intervals import Figure
from components.review import slices
from components.review.charts import svg
from components.review.evaluation import ABSOLUTE_ERROR, OVERALL, Metrics, Slice
from components.review.page import Block, Cell, Chart, Section, Table, Text, render
from schemas import features
from tests.components.review import synthetic

FEW = 10


@pytest.fixture(scope="module")
def photos() -> pd.DataFrame:
    """Test photos in two groups, in three spans, and in many stores."""
    return synthetic.photos(
        400,
        gender=["female", synthetic.HOSTILE] * 200,
        span=[str(1 + at % 11) for at in range(400)],
        store=[f"store {at % 20}" for at in range(400)],
    ).query("split == 'test'")


@pytest.fixture(scope="module")
def folder(photos: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evaluation of these photos."""
    folder = tmp_path_factory.mktemp("evaluation")
    synthetic.evaluate(folder, photos, ["gender", "span", "store"])
    return folder


def evaluation(name: str, figures: dict[Slice, Metrics]) -> slices.Evaluation:
    """An evaluation that has no photos in common with another."""
    columns = {features.PHOTO_ID: pa.array([], pa.string()), ABSOLUTE_ERROR: pa.array([], "f8")}
    return slices.Evaluation(name, figures, pa.table(columns))


def figures(mae: Figure, photos: int = 50, **more: Figure) -> Metrics:
    return {MAE: mae, COUNT: Figure(photos, math.nan, math.nan), **more}


def table(blocks: list[Block]) -> list[dict[str, Cell]]:
    (rows,) = synthetic.tables(Section("slices", "", blocks)).values()
    return rows


def charts(blocks: list[Block]) -> dict[str, Chart]:
    return synthetic.charts(Section("slices", "", blocks))


def test_every_slice_is_in_the_table(folder: Path) -> None:
    result = tfma.load_eval_result(str(folder))
    blocks = slices.blocks([slices.evaluation("this model", folder)], FEW)
    assert isinstance(blocks[-1], Table) and blocks[-1].interactive
    rows = table(blocks)
    assert len(rows) == len(result.slicing_metrics)
    shown = {row["slice"].text: row for row in rows}
    for key, metrics in result.slicing_metrics:
        row = shown[slices.label(key)]
        for column, name in (("MAE, years", MAE), ("MSE, years²", "mean_squared_error")):
            assert row[column].text.split()[0] == f"{metrics[''][''][name]['doubleValue']:.2f}"
        count = metrics[""][""][COUNT]["doubleValue"]
        assert row["photos"].value == count
        assert (row["MAE, years"].mark == "few") is (count < FEW)
        # NaN comes last, so these are not ranked.
        assert math.isnan(float(row["MAE, years"].value or 0)) is (count < FEW)
        assert math.isnan(float(row["MSE, years²"].value or 0)) is (count < FEW)


def test_the_order_of_the_slices(folder: Path) -> None:
    keys = [row["slice"].text for row in table(slices.blocks([slices.evaluation("m", folder)], 1))]
    assert keys[0] == "all photos"
    assert keys[1:10] == [f"age {band}" for band in features.AGE_BANDS]
    spans = [key for key in keys if key.startswith("span")]
    assert spans == [f"span {number}" for number in range(1, 12)]


def test_the_descriptions_of_the_charts(folder: Path) -> None:
    found = slices.evaluation("this model", folder)
    drawn = charts(slices.blocks([found], FEW))
    assert {title.split(",")[0] for title in drawn} == {
        f"{metric} by {column}"
        for metric in ("MAE", "Bias (estimate minus real age)")
        for column in ("age", "gender", "span")
    } | {"MAE by age and gender"}
    description = drawn["MAE by age, years, with 95 % intervals"].description
    for band in features.AGE_BANDS:
        metrics = found.slices[((features.AGE_BAND, band),)]
        expected = f"age {band}: {metrics[MAE]:.2f}, {metrics[COUNT].value:.0f} photos"
        assert (expected in description) is (metrics[COUNT].value >= FEW)


def test_too_many_values_for_a_chart(folder: Path) -> None:
    (text,) = [
        block
        for block in slices.blocks([slices.evaluation("this model", folder)], FEW)
        if isinstance(block, Text)
    ]
    assert text.paragraphs[1:] == [
        "store has 20 values. That is too many for a chart: see the table."
    ]


def test_columns_without_slices_are_listed(tmp_path: Path) -> None:
    inputs = synthetic.run(tmp_path, synthetic.photos(60, gender=["female", "male"] * 30))
    assert "no slices" not in synthetic.text_of(slices.section(inputs))
    values = {"gender": 2, "note": 1204, "till": 3}
    properties = {"extra_columns": json.dumps(list(values)), "extra_values": json.dumps(values)}
    inputs = synthetic.with_properties(inputs, "examples", properties)
    text = synthetic.text_of(slices.section(inputs))
    assert "There are no slices by note (1,204 values), till (3 values)." in text


def test_bands_are_ordered_by_their_numbers() -> None:
    bands = ["-3 to 2.5", "9.1 to 10.4", "10.5 to 12.3", "101 to 1e+16", "none"]
    found: dict[Slice, Metrics] = {
        (("size", band),): figures(Figure(5.0, 4.0, 6.0)) for band in sorted(bands)
    }
    rows = table(slices.blocks([evaluation("m", found)], FEW))
    assert [row["slice"].text for row in rows] == [f"size {band}" for band in bands]


def test_too_few_photos_for_a_chart(folder: Path) -> None:
    blocks = slices.blocks([slices.evaluation("this model", folder)], 1000)
    assert not charts(blocks)
    texts = [text for block in blocks if isinstance(block, Text) for text in block.paragraphs]
    for by in ("age", "gender", "span"):
        assert texts.count(f"There is no chart by {by}, because no slice has 1000 photos.") == 1


def test_text_from_the_csv_is_escaped(folder: Path) -> None:
    blocks = slices.blocks([slices.evaluation(synthetic.HOSTILE, folder)] * 2, FEW)
    page = render("t", [Section("slices", "TFMA slices by age", blocks)])
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page


def test_any_metric_and_any_slice_of_two_models() -> None:
    other = Figure(0.25, math.nan, math.nan)
    key = (("shelf", "<b>"), ("till", "3"))
    metrics = figures(Figure(5.0, 4.0, 6.0), unheard_of=other)
    first = evaluation("first", {OVERALL: metrics, key: metrics})
    second = evaluation("second", {OVERALL: figures(Figure(7.0, 6.0, 8.0))})
    rows = table(slices.blocks([first, second], min_photos=30))
    assert rows[0]["first: unheard_of"].text == "0.25"
    # The models answered no photo in common, so there is nothing to compare.
    assert list(rows[0].values())[-1].text == "–"
    assert rows[1]["slice"].text == "shelf <b>, till 3" and rows[1]["kind"].text == "shelf × till"
    assert rows[1]["second: MAE, years"].text == list(rows[1].values())[-1].text == "–"


def test_a_chart_names_each_model_once() -> None:
    held: dict[Slice, Metrics] = {((features.AGE_BAND, "0–12"),): figures(Figure(5.0, 4.0, 6.0))}
    both = [evaluation("first", held), evaluation("second", held)]
    chart = charts(slices.blocks(both, FEW))["MAE by age, years, with 95 % intervals"]
    assert svg(chart.spec, "", "", 0).count(">first</text>") == 1


def test_the_same_photos_give_a_paired_comparison(photos: pd.DataFrame, folder: Path) -> None:
    """The interval is that of SciPy's paired t-test."""
    old = slices.evaluation("old", folder)
    young = photos[features.AGE] < 45
    better = photos.assign(candidate=photos["candidate"].where(young, photos[features.AGE] + 1))
    new = evaluated("new", better.sample(frac=1, random_state=0), old)
    rows = {row["slice"].text: row["MAE, years: new minus old"] for row in table(
        slices.blocks([new, old], min_photos=2)
    )}  # fmt: skip
    after, before = ((one["candidate"] - one[features.AGE]).abs() for one in (better, photos))
    for name, some in {
        "all photos": photos["gender"] != "",
        "age 65+": photos[features.AGE_BAND] == "65+",
        "age 65+, gender female": (photos[features.AGE_BAND] == "65+")
        & (photos["gender"] == "female"),
    }.items():
        test = ttest_rel(after[some].astype(float), before[some].astype(float))
        bounds = test.confidence_interval(0.95)
        change = (after[some] - before[some]).mean()
        assert rows[name].value == pytest.approx(change, abs=1e-4)
        assert rows[name].text == f"{change:+.2f} ({bounds.low:+.2f} to {bounds.high:+.2f})"
        assert rows[name].mark == "good"
    assert rows["age 0–12"].text == "+0.00 (+0.00 to +0.00)"


def test_only_photos_that_both_answer_are_compared(photos: pd.DataFrame, folder: Path) -> None:
    old = slices.evaluation("old", folder)
    off = photos.assign(candidate=photos["candidate"].where(photos.index != photos.index[0], 999))
    refusing = off.assign(**{synthetic.OBJECTION: ["no_face", *[""] * (len(off) - 1)]})
    new = evaluated("new", refusing[refusing[synthetic.OBJECTION] == ""], old)
    rows = table(slices.blocks([new, old], min_photos=2))
    changes = {row["slice"].text: row["MAE, years: new minus old"].text for row in rows}
    assert changes["all photos"] == "+0.00 (+0.00 to +0.00)"


def evaluated(name: str, photos: pd.DataFrame, like: slices.Evaluation) -> slices.Evaluation:
    """An evaluation of these photos with the slices of another one, without TFMA."""
    errors = (photos["candidate"] - photos[features.AGE]).abs().astype(float)
    held: dict[Slice, Metrics] = {}
    for key in like.slices:
        chosen = np.logical_and.reduce([photos[column] == value for column, value in key] or [True])
        some = errors[np.broadcast_to(chosen, len(errors))]
        held[key] = figures(Figure(some.mean(), math.nan, math.nan), len(some))
    columns = {features.PHOTO_ID: photos[features.PHOTO_ID], ABSOLUTE_ERROR: errors}
    for column in {column for key in like.slices for column, _ in key}:
        columns[column] = photos[column]
    return slices.Evaluation(name, held, pa.table(columns))


def test_a_page_without_numbers() -> None:
    """NaN instead of an MAE, no interval, no count, no metrics."""
    nan = Figure(math.nan, math.nan, math.nan)
    band = ((features.AGE_BAND, "18–20"),)
    for metrics in (figures(nan), figures(Figure(5.0, math.nan, math.nan)), {MAE: nan}, {}):
        for held in ({}, {OVERALL: metrics, band: metrics}):
            blocks = slices.blocks([evaluation("a", held), evaluation("b", held)], FEW)
            assert "Every slice" in render("t", [Section("slices", "t", blocks)])


def test_a_mark_needs_the_whole_interval() -> None:
    overall, photos = Figure(5.0, 4.5, 5.5), {"good": 4.9, "bad": 5.1, "": 5.0}
    intervals = {"good": (4.0, 4.99), "bad": (5.01, 6.0), "": (4.0, 6.0)}
    held: dict[Slice, Metrics] = {
        (("group", mark),): figures(Figure(photos[mark], *intervals[mark])) for mark in photos
    }
    held[(("group", "few"),)] = figures(Figure(9.0, 8.0, 10.0), photos=FEW - 1)
    rows = table(slices.blocks([evaluation("m", {OVERALL: figures(overall), **held})], FEW))
    for row in rows[1:]:
        assert row["MAE, years"].mark == row["slice"].text.removeprefix("group ")

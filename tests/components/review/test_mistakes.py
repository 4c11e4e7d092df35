"""The suspected labels, the thumbnails and the charts of the section "Mistakes"."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from scipy.stats import norm

from components import predictions
from components.photo_example_gen import labels
from components.photo_example_gen.rejects import Reason
from components.review import mistakes
from components.review.inputs import Inputs
from components.review.page import Photos, render
from schemas import features
from tests.components.review import synthetic

PAIRS = st.integers(0, 250).flatmap(
    lambda n: st.tuples(
        *[arrays.arrays(np.float64, n, elements=st.floats(-1e4, 1e4, allow_subnormal=False))] * 2
    )
)


@given(PAIRS)
def test_any_estimates_have_scores(pair: tuple[np.ndarray, np.ndarray]) -> None:
    scores = mistakes.outlier_scores(*pair)
    assert scores.shape == pair[0].shape and np.isfinite(scores).all()
    assert set(mistakes.outliers(scores)) == set(np.flatnonzero(np.abs(scores) > 3.5))


def test_a_wrong_label_stands_out() -> None:
    random = np.random.default_rng(0)
    estimates, errors = random.uniform(0, 90, 500), random.normal(0, 5, 500)
    errors[123] = 60
    assert mistakes.outliers(mistakes.outlier_scores(estimates, errors))[0] == 123


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A run with one wrong label, and its test photos."""
    folder = tmp_path_factory.mktemp("run")
    photos = synthetic.photos(400)
    test = photos.index[photos["split"] == features.TEST]
    middle = (photos.loc[test, features.AGE] - 40).abs().idxmin()
    photos.loc[middle, [features.FILE_NAME, "candidate"]] = ["=final_files/<b>,1.jpg", 400.0]
    inputs = synthetic.run(folder, photos, photos=3)
    synthetic.write_test_shard(folder / "examples", photos)
    return inputs


def test_the_largest_errors_come_first(inputs: Inputs) -> None:
    worst, suspects = [b for b in mistakes.section(inputs).blocks if isinstance(b, Photos)]
    assert len(worst.photos) == 3
    assert worst.photos[0].facts[0] == suspects.photos[0].facts[0] == "=final_files/<b>,1.jpg"
    assert "estimate 400" in worst.photos[0].facts[2]
    with Image.open(io.BytesIO(worst.photos[0].jpeg)) as thumbnail:
        assert thumbnail.size == (96, 48)
    page = render("t", [mistakes.section(inputs)])
    assert "<b>,1" not in page and page.count("data:image/jpeg") == 3 + len(suspects.photos)


def changed(inputs: Inputs, folder: Path, change: Callable[[pd.DataFrame], None]) -> Inputs:
    """The same run with changed estimates."""
    table = pd.read_parquet(inputs.artifacts["evaluation"].path / predictions.FILE)
    change(table)
    table.to_parquet(folder / predictions.FILE)
    return synthetic.with_folders(inputs, evaluation=folder)


def test_refused_photos_and_unknown_ages_are_left_out(inputs: Inputs, tmp_path: Path) -> None:
    def refused(table: pd.DataFrame) -> None:
        table.loc[table.index[:7], synthetic.OBJECTION] = features.NO_FACE
        table.loc[table.index[7], "candidate"] = np.nan

    some = changed(inputs, tmp_path, refused)
    assert len(mistakes.estimates(some).ages) == len(mistakes.estimates(inputs).ages) - 8
    assert "nan" not in render("t", [mistakes.section(some)]).split("<main")[1].split("<script")[0]
    names = pd.read_parquet(tmp_path / predictions.FILE)[features.FILE_NAME][:8]
    listed = csv.DictReader(io.StringIO(mistakes.suspects_csv(some)))
    assert not {row["file_name"] for row in listed} & set(names)

    def no_estimates(table: pd.DataFrame) -> None:
        table["candidate"] = np.nan

    nothing = changed(inputs, tmp_path, no_estimates)
    assert "no estimates" in synthetic.text_of(mistakes.section(nothing))
    assert len(mistakes.suspects_csv(nothing).splitlines()) == 1


def test_without_suspects_there_are_no_photos_of_them(inputs: Inputs, tmp_path: Path) -> None:
    def one_year_too_old(table: pd.DataFrame) -> None:
        table["candidate"] = table[features.AGE] + 1

    section = mistakes.section(changed(inputs, tmp_path, one_year_too_old))
    assert [block.caption for block in section.blocks if isinstance(block, Photos)] == [
        "The largest errors"
    ]
    assert "No label is suspicious" in synthetic.text_of(section)


def test_errors_of_few_photos_are_not_drawn(inputs: Inputs) -> None:
    title = "Error by age: the median, and the range of eight in ten photos"
    found = mistakes.estimates(inputs)
    bins, counts = np.unique(found.ages // 5 * 5, return_counts=True)
    bound = int(np.median(counts))
    assert 0 < sum(counts >= bound) < len(counts)
    description = synthetic.charts(
        mistakes.section(synthetic.with_settings(inputs, min_photos=bound))
    )[title].description
    for age, count in zip(bins, counts, strict=True):
        assert (f"{age:.0f} to {age + 5:.0f} years: " in description) == (count >= bound)
    assert title not in synthetic.charts(
        mistakes.section(synthetic.with_settings(inputs, min_photos=1000))
    )


def test_a_square_counts_its_photos(inputs: Inputs) -> None:
    """The squares of the chart contain each photo once."""
    chart = synthetic.charts(mistakes.section(inputs))["Estimate and real age"]
    squares = chart.spec.layer[0].data.values
    found = mistakes.estimates(inputs)
    assert sum(square["photos"] for square in squares) == len(found.ages)
    for square in squares:
        assert square["photos"] == sum(
            (square["age"] <= found.ages) & (found.ages < square["to_age"])
            & (square["estimate"] <= found.estimates) & (found.estimates < square["to_estimate"])
        )  # fmt: skip


def test_who_is_asked_for_id_at_each_limit(inputs: Inputs) -> None:
    """The chart has the share of each group that does not pass, with Wilson's interval."""
    title = "Who is asked for ID, by the limit of the probability, with 95 % intervals"
    chart = synthetic.charts(mistakes.section(inputs))[title]
    found = mistakes.estimates(inputs)
    (bands, *_) = chart.spec.layer
    rows = bands.data.values
    limits = sorted({row["limit"] for row in rows})
    assert limits[0] == pytest.approx(0.001) and limits[-1] == pytest.approx(0.5)
    for group, young, old in (("15 to 17", 15, 18), ("35 and older", 35, 200)):
        chosen = found.of((found.ages >= young) & (found.ages < old))
        for limit in (limits[0], limits[30], limits[-1]):
            (row,) = (r for r in rows if (r["group"], r["limit"]) == (group, limit))
            asked = int(np.sum((chosen.estimates < 25) | (chosen.p_minor > limit)))
            photos = len(chosen.ages)
            low, high = proportion_bounds(asked, photos)
            assert row["asked"] == asked / photos
            assert (row["low"], row["high"]) == pytest.approx((low, high), abs=1e-6)
    minors = found.of((found.ages >= 15) & (found.ages < 18))
    asked = int(np.sum((minors.estimates < 25) | (minors.p_minor > 0.0001)))
    low, high = proportion_bounds(asked, len(minors.ages))
    share = f"{asked / len(minors.ages):.1%} ({low:.1%} to {high:.1%})"
    assert "Who looks younger than 25 is always asked. At a limit of 0.01%" in chart.description
    assert f"15 to 17: {share}" in chart.description


def proportion_bounds(count: int, photos: int) -> tuple[float, float]:
    """Wilson's interval by its definition (1927)."""
    z, share = norm.ppf(0.975), count / photos
    middle = (share + z**2 / (2 * photos)) / (1 + z**2 / photos)
    half = z / (1 + z**2 / photos) * np.sqrt(share * (1 - share) / photos + (z / 2 / photos) ** 2)
    return max(middle - half, 0.0), middle + half


def test_thumbnails_can_be_switched_off(inputs: Inputs) -> None:
    section = mistakes.section(synthetic.with_settings(inputs, thumbnails=False))
    assert "data:image" not in render("t", [section])
    assert "=final_files/<b>,1.jpg" in str(synthetic.tables(section))


def test_the_suspects_can_be_excluded(inputs: Inputs, tmp_path: Path) -> None:
    text = mistakes.suspects_csv(inputs)
    suspects = list(csv.DictReader(io.StringIO(text)))
    assert suspects[0]["file_name"] == "=final_files/<b>,1.jpg"
    assert float(suspects[0]["estimate"]) == 400
    (tmp_path / "final_files").mkdir()
    (tmp_path / "suspects.csv").write_text(text)
    table = labels.Table("labels.csv", "", None, 0)
    paths = [*(row["file_name"] for row in suspects), "b"]
    rows = [labels.Row(table, 2, "", path, 30.0, {}) for path in paths]
    found = labels.Labels(rows, [], [], 0, None)
    left = labels.leave_out(found, str(tmp_path / "suspects.csv"), str(tmp_path))
    assert [row.path for row in left.rows] == ["b"]
    assert {reject.reason for reject in left.rejects} == {Reason.EXCLUDED}


def test_errors_of_the_old_and_the_young(inputs: Inputs) -> None:
    text = synthetic.text_of(mistakes.section(inputs))
    assert "Yes, by more than chance." in text  # the photos of older people have larger errors
    assert re.search(r"young people, [\d.]+% \([\d.]+% to [\d.]+%\) get an estimate", text)
    few = mistakes.section(synthetic.with_settings(inputs, min_photos=1000))
    assert "too few photos to say" in synthetic.text_of(few)

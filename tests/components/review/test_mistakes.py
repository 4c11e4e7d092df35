"""Which labels are suspected, and what leaves the examples."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from components.photo_example_gen import labels
from components.photo_example_gen.rejects import Reason
from components.review import mistakes
from components.review.inputs import Inputs
from components.review.page import Photos, render
from schemas import features
from tests.components.review import made

PAIRS = st.integers(0, 250).flatmap(
    lambda n: st.tuples(
        *[arrays.arrays(np.float64, n, elements=st.floats(-1e4, 1e4, allow_subnormal=False))] * 2
    )
)


@given(PAIRS)
def test_any_estimates_have_scores(pair: tuple[np.ndarray, np.ndarray]) -> None:
    scores = mistakes.scored(*pair)
    assert scores.shape == pair[0].shape and np.isfinite(scores).all()
    assert set(mistakes.suspected(scores)) == set(np.flatnonzero(np.abs(scores) > 3.5))


def test_a_wrong_label_stands_out() -> None:
    random = np.random.default_rng(0)
    given, errors = random.uniform(0, 90, 500), random.normal(0, 5, 500)
    errors[123] = 60
    assert mistakes.suspected(mistakes.scored(given, errors))[0] == 123


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A run with a label that is far off, and its test photos."""
    folder = tmp_path_factory.mktemp("run")
    photos = made.photos(400)
    test = photos.index[photos["split"] == features.TEST]
    middle = (photos.loc[test, features.AGE] - 40).abs().idxmin()
    photos.loc[middle, [features.FILE_NAME, "candidate"]] = ["=final_files/<b>,1.jpg", 400.0]
    inputs = made.run(folder, photos, photos=3)
    shards = folder / "examples" / "Split-test"
    shards.mkdir()
    jpeg = io.BytesIO()
    Image.new("RGB", (200, 100), (90, 120, 60)).save(jpeg, "JPEG")
    with tf.io.TFRecordWriter(str(shards / "data.gz"), "GZIP") as writer:
        for photo_id in photos.loc[test, features.PHOTO_ID]:
            example = tf.train.Example()
            values = example.features.feature
            values[features.PHOTO_ID].bytes_list.value.append(photo_id.encode())
            values[features.IMAGE].bytes_list.value.append(jpeg.getvalue())
            writer.write(example.SerializeToString())
    return inputs


def test_the_worst_come_first_with_what_is_known_of_them(inputs: Inputs) -> None:
    worst, likeliest = [b for b in mistakes.section(inputs).blocks if isinstance(b, Photos)]
    assert len(worst.photos) == 3
    assert worst.photos[0].facts[0] == likeliest.photos[0].facts[0] == "=final_files/<b>,1.jpg"
    assert "estimate 400" in worst.photos[0].facts[2]
    with Image.open(io.BytesIO(worst.photos[0].jpeg)) as thumbnail:
        assert thumbnail.size == (96, 48)
    page = render("t", [mistakes.section(inputs)])
    assert "<b>,1" not in page and page.count("data:image/jpeg") == 3 + len(likeliest.photos)


def test_thumbnails_can_be_switched_off(inputs: Inputs) -> None:
    settings = {**inputs.settings, "review": {**inputs.settings["review"], "thumbnails": False}}
    section = mistakes.section(Inputs(inputs.artifacts, settings, inputs.run))
    assert "data:image" not in render("t", [section])
    assert "=final_files/<b>,1.jpg" in str(made.tables(section))


def test_the_suspects_can_be_left_out(inputs: Inputs, tmp_path: Path) -> None:
    text = mistakes.suspects_csv(inputs)
    suspects = list(csv.DictReader(io.StringIO(text)))
    assert suspects[0]["file_name"] == "=final_files/<b>,1.jpg"
    assert float(suspects[0]["estimate"]) == 400
    (tmp_path / "final_files").mkdir()
    (tmp_path / "suspects.csv").write_text(text)
    table = labels.Table("labels.csv", "", None, 0)
    paths = [*(row["file_name"] for row in suspects), "b"]
    rows = [labels.Row(table, 2, "", path, 30.0, {}) for path in paths]
    found = labels.Labels(rows, [], [], 0)
    left = labels.leave_out(found, str(tmp_path / "suspects.csv"), str(tmp_path))
    assert [row.path for row in left.rows] == ["b"]
    assert {reject.reason for reject in left.rejects} == {Reason.EXCLUDED}


def test_the_seeds_question_is_answered_by_figures(inputs: Inputs) -> None:
    said = made.words(mistakes.section(inputs))
    assert "The elderly: true here, by more than chance." in said  # as made.photos are
    few = {**inputs.settings, "review": {**inputs.settings["review"], "min_photos": 1000}}
    assert "Too few photos to say" in made.words(
        mistakes.section(Inputs(inputs.artifacts, few, inputs.run))
    )

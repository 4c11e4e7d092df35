"""Every photo and its mirror once an epoch in training; every photo once in evaluation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from components.trainer import data
from schemas import features
from tests.components.trainer import tiny

AGES = [float(age) for age in range(1, 14)]  # each photo has an age of its own


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two patterns; one of them matches two files."""
    folder = tmp_path_factory.mktemp("squares")
    tiny.write_squares(folder / "a" / "one.gz", AGES[:4], first=0)
    tiny.write_squares(folder / "a" / "two.gz", AGES[4:9], first=4)
    tiny.write_squares(folder / "b" / "three.gz", AGES[9:], first=9)
    return [f"{folder}/a/*", f"{folder}/b/three.gz"]


def photos(batches: tf.data.Dataset) -> list[tuple[float, np.ndarray]]:
    return [
        (float(age), pixels)
        for images, years in batches.as_numpy_iterator()
        for pixels, age in zip(images, years, strict=True)
    ]


def order(batches: tf.data.Dataset) -> list[tuple[float, bytes]]:
    return [(age, pixels.tobytes()) for age, pixels in photos(batches)]


def test_labels_are_those_of_all_files(files: list[str]) -> None:
    assert [label.age for label in data.labels(files)] == AGES
    assert data.labels(files)[3] == data.Label("3.jpg", AGES[3], "")


def test_photos_with_an_objection_are_listed_but_not_read(files: list[str], tmp_path: Path) -> None:
    objected = tiny.write_squares(tmp_path / "x.gz", [50.0, 60.0], 20, features.NO_FACE)
    files = [*files, objected]
    found = [label for label in data.labels(files) if label.objection]
    assert found == [
        data.Label("20.jpg", 50.0, features.NO_FACE),
        data.Label("21.jpg", 60.0, features.NO_FACE),
    ]
    assert [age for age, _ in photos(data.eval_batches(files, tiny.SIZE, 4))] == AGES
    trained = photos(data.train_batches(files, tiny.SIZE, 1, 1, range(1), True))
    assert {age for age, _ in trained} == set(AGES)


def test_without_mirror_images(files: list[str]) -> None:
    trained = photos(data.train_batches(files, tiny.SIZE, 1, 1, range(1), False))
    plain = dict(photos(data.eval_batches(files, tiny.SIZE, 4)))
    assert sorted(age for age, _ in trained) == AGES
    assert all(np.array_equal(plain[age], pixels) for age, pixels in trained)


def test_an_epoch_has_each_photo_and_its_mirror_once(files: list[str]) -> None:
    as_it_is = dict(photos(data.eval_batches(files, tiny.SIZE, 4)))
    found: dict[float, list[np.ndarray]] = {age: [] for age in AGES}
    for age, pixels in photos(data.train_batches(files, tiny.SIZE, 2, 1, range(1), True)):
        found[age].append(pixels)
    for age, pair in found.items():
        plain = as_it_is[age]
        mirror = plain[:, ::-1]
        assert not np.array_equal(plain, mirror)
        assert len(pair) == 2
        assert sorted(p.tobytes() for p in pair) == sorted([plain.tobytes(), mirror.tobytes()])


def test_evaluation_has_each_photo_once_as_it_is(files: list[str]) -> None:
    found = photos(data.eval_batches(files, tiny.SIZE, 4))
    assert [age for age, _ in found] == AGES  # the files' order
    for i, (age, pixels) in enumerate(found):
        jpeg = tiny.photo((tiny.SIZE, tiny.SIZE), age, i)
        assert np.array_equal(pixels, tf.io.decode_jpeg(jpeg).numpy())


def test_the_order_is_the_seeds(files: list[str]) -> None:
    first, again, other = (
        order(data.train_batches(files, tiny.SIZE, 2, seed, range(1), True)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert Counter(first) == Counter(other)


def test_each_epoch_has_an_order_of_its_own(files: list[str]) -> None:
    """So a resumed training gets the batches that it would have had without the kill."""
    both = order(data.train_batches(files, tiny.SIZE, 2, 1, range(3, 5), True))
    first, second = (
        order(data.train_batches(files, tiny.SIZE, 2, 1, range(epoch, epoch + 1), True))
        for epoch in (3, 4)
    )
    assert both == first + second
    assert first != second


def test_the_order_is_not_that_of_the_files_numbers(tmp_path: Path) -> None:
    """Transform's files are numbered in the order in which Beam's workers finish."""
    for folder, (one, other) in (("a", (0, 1)), ("b", (1, 0))):
        tiny.write_squares(tmp_path / folder / f"squares-{one}.gz", AGES[:6], first=0)
        tiny.write_squares(tmp_path / folder / f"squares-{other}.gz", AGES[6:], first=6)
    tiny.write(tmp_path / "b" / "squares-2.gz", [])
    a, b = ([f"{tmp_path}/{folder}/*"] for folder in ("a", "b"))
    assert order(data.train_batches(a, tiny.SIZE, 2, 1, range(1), True)) == order(
        data.train_batches(b, tiny.SIZE, 2, 1, range(1), True)
    )
    assert order(data.eval_batches(a, tiny.SIZE, 2)) == order(data.eval_batches(b, tiny.SIZE, 2))


def test_photos_and_mirrors_are_shuffled_together(files: list[str]) -> None:
    ages = [age for age, _ in photos(data.train_batches(files, tiny.SIZE, 2, 1, range(1), True))]
    assert ages[: len(AGES)] != AGES
    assert len(set(ages[: len(AGES)])) < len(
        AGES
    )  # some photo and its mirror are both in the first half
    pairs = list(zip(ages[::2], ages[1::2], strict=True))
    assert any(one != other for one, other in pairs)


@pytest.mark.parametrize("batch_size", [4, 8, 26])
def test_training_leaves_the_last_smaller_batch_out(files: list[str], batch_size: int) -> None:
    shapes = [
        (images.shape, years.shape)
        for images, years in data.train_batches(files, tiny.SIZE, batch_size, 1, range(1), True)
    ]
    whole = (batch_size, tiny.SIZE, tiny.SIZE, 3), (batch_size,)
    assert shapes == [whole] * (2 * len(AGES) // batch_size)


def test_evaluation_keeps_the_last_smaller_batch(files: list[str]) -> None:
    batches = data.eval_batches(files, tiny.SIZE, 8)
    assert [len(years) for _, years in batches] == [8, 5]


def test_types(files: list[str]) -> None:
    for batches in (
        data.train_batches(files, tiny.SIZE, 4, 1, range(1), True),
        data.eval_batches(files, tiny.SIZE, 4),
    ):
        images, years = next(iter(batches))
        assert images.dtype == tf.uint8
        assert years.dtype == tf.float32


def test_more_photos_than_wait_to_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full shuffle buffer mixes less well, but loses no photo."""
    monkeypatch.setattr(data, "SHUFFLE_BUFFER", 5)
    path = tiny.write_squares(tmp_path / "x.gz", AGES)
    ages = Counter(
        age for age, _ in photos(data.train_batches([path], tiny.SIZE, 2, 1, range(1), True))
    )
    assert ages == Counter(AGES * 2)

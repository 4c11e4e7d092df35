"""Every photo and its mirror once an epoch in training; every photo once in evaluation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from components.trainer import data
from tests.components.trainer import tiny

AGES = [float(age) for age in range(1, 14)]  # each photo has an age of its own


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two patterns, one of them of two files."""
    folder = tmp_path_factory.mktemp("squares")
    tiny.write_squares(folder / "a" / "one.gz", AGES[:4], first=0)
    tiny.write_squares(folder / "a" / "two.gz", AGES[4:9], first=4)
    tiny.write_squares(folder / "b" / "three.gz", AGES[9:], first=9)
    return [f"{folder}/a/*", f"{folder}/b/three.gz"]


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos are not varied."""
    for name in ("MOVE", "LIGHT"):
        monkeypatch.setattr(data, name, 0)


def photos(batches: tf.data.Dataset) -> list[tuple[float, np.ndarray]]:
    return [
        (float(age), pixels)
        for images, years in batches.as_numpy_iterator()
        for pixels, age in zip(images, years, strict=True)
    ]


def order(batches: tf.data.Dataset) -> list[tuple[float, bytes]]:
    return [(age, pixels.tobytes()) for age, pixels in photos(batches)]


def test_ages_are_those_of_all_files(files: list[str]) -> None:
    assert sorted(data.ages(files).as_numpy_iterator()) == AGES


@pytest.mark.usefixtures("still")
def test_an_epoch_has_each_photo_and_its_mirror_once(files: list[str]) -> None:
    as_it_is = dict(photos(data.eval_batches(files, tiny.SIZE, 4)))
    found: dict[float, list[np.ndarray]] = {age: [] for age in AGES}
    for age, pixels in photos(data.train_batches(files, tiny.SIZE, 2, seed=1)):
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


@pytest.mark.usefixtures("still")
def test_the_order_is_the_seeds(files: list[str]) -> None:
    first, again, other = (
        order(data.train_batches(files, tiny.SIZE, 2, seed)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert Counter(first) == Counter(other)


def test_photos_and_mirrors_are_shuffled_together(files: list[str]) -> None:
    ages = [age for age, _ in photos(data.train_batches(files, tiny.SIZE, 2, seed=1))]
    assert ages[: len(AGES)] != AGES
    assert len(set(ages[: len(AGES)])) < len(AGES)  # some pair met before the half
    pairs = list(zip(ages[::2], ages[1::2], strict=True))
    assert any(one != other for one, other in pairs)


@pytest.mark.parametrize("batch_size", [4, 8, 26])
def test_training_leaves_the_last_smaller_batch_out(files: list[str], batch_size: int) -> None:
    shapes = [
        (images.shape, years.shape)
        for images, years in data.train_batches(files, tiny.SIZE, batch_size, seed=1)
    ]
    whole = (batch_size, tiny.SIZE, tiny.SIZE, 3), (batch_size,)
    assert shapes == [whole] * (2 * len(AGES) // batch_size)


def test_evaluation_keeps_the_last_smaller_batch(files: list[str]) -> None:
    batches = data.eval_batches(files, tiny.SIZE, 8)
    assert [len(years) for _, years in batches] == [8, 5]


def test_types(files: list[str]) -> None:
    for batches in (
        data.train_batches(files, tiny.SIZE, 4, seed=1),
        data.eval_batches(files, tiny.SIZE, 4),
    ):
        images, years = next(iter(batches))
        assert images.dtype == tf.uint8
        assert years.dtype == tf.float32


def test_more_photos_than_wait_to_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full shuffle buffer changes how well photos are mixed, not which there are."""
    monkeypatch.setattr(data, "SHUFFLE_BUFFER", 5)
    path = tiny.write_squares(tmp_path / "x.gz", AGES)
    ages = Counter(age for age, _ in photos(data.train_batches([path], tiny.SIZE, 2, seed=1)))
    assert ages == Counter(AGES * 2)


def noise(count: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8))


def varied(pixels: tf.Tensor, *seed: int) -> np.ndarray:
    found: np.ndarray = data.varied(pixels, tf.constant(seed)).numpy()
    return found


def test_photos_are_varied_each_in_its_own_way_by_the_seed() -> None:
    one, *rest = varied(tf.repeat(noise(1), 8, axis=0), 1, 2)
    assert all(not np.array_equal(one, other) for other in rest)
    assert np.array_equal(varied(noise(3), 1, 2), varied(noise(3), 1, 2))
    assert not np.array_equal(varied(noise(3), 1, 2), varied(noise(3), 1, 3))
    assert not np.array_equal(varied(noise(3), 1, 2), varied(noise(3), 2, 2))


def test_no_epoch_repeats_a_photo(tmp_path: Path) -> None:
    file = tiny.write_squares(tmp_path / "one.gz", [30.0])
    shown = [
        pixels.tobytes()
        for seed in range(8)
        for _, pixels in photos(data.train_batches([file], tiny.SIZE, 2, seed))
    ]
    assert len(set(shown)) == len(shown) == 16


@pytest.mark.usefixtures("still")
def test_no_two_batches_are_varied_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "LIGHT", 0.2)
    file = tiny.write_squares(tmp_path / "one.gz", [30.0])
    one, mirror = (pixels for _, pixels in photos(data.train_batches([file], tiny.SIZE, 1, seed=1)))
    assert abs(one.mean() - mirror.mean()) > 1


def test_the_edges_are_filled_with_the_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "LIGHT", 0)
    white = tf.fill((16, 32, 32, 3), tf.constant(255, tf.uint8))
    assert (varied(white, 1, 2) == 255).all()


@pytest.mark.usefixtures("still")
def test_without_variation_a_photo_stays_as_it_is() -> None:
    assert np.array_equal(varied(noise(4), 1, 2), noise(4).numpy())


@pytest.mark.usefixtures("still")
def test_a_photo_is_moved_both_ways_by_whole_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    dot = np.zeros((64, 33, 33, 3), np.uint8)
    dot[:, 16, 16] = 255
    monkeypatch.setattr(data, "MOVE", 0.25)
    moved = varied(tf.constant(dot), 1, 2)
    assert {tuple(np.unique(photo, return_counts=True)[1]) for photo in moved} == {
        (33**2 * 3 - 3, 3)
    }
    places = [np.unravel_index(photo[..., 0].argmax(), (33, 33)) for photo in moved]
    for axis in zip(*places, strict=True):
        assert 16 - 8 <= min(axis) < 12 < 20 < max(axis) <= 16 + 8
    assert any(y != x for y, x in places)


@pytest.mark.usefixtures("still")
def test_light_moves_within_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "LIGHT", 0.2)
    grey = varied(tf.fill((64, 8, 8, 3), tf.constant(128, tf.uint8)), 1, 2)
    assert grey.min() >= 128 * 0.8 - 1
    assert grey.max() <= 128 * 1.2 + 1
    assert grey.min() < 115 < 141 < grey.max()
    halves = np.full((64, 8, 8, 3), 78, np.uint8)
    halves[:, :, 4:] = 178
    contrast = np.ptp(varied(tf.constant(halves), 1, 2).astype(int), axis=(1, 2, 3))
    assert 80 - 1 <= contrast.min() < 90 < 110 < contrast.max() <= 120 + 1

"""Transformed examples as batches for the network."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from components.transform import decode_squares, mirror
from components.upstream import without_autotune
from schemas import features

# Records in memory, from which the next one is drawn at random.
SHUFFLE_BUFFER = 16_384

_STRING = tf.io.FixedLenFeature([], tf.string)
_AGE = {features.AGE: tf.io.FixedLenFeature([], tf.float32)}
_ID = {features.PHOTO_ID: _STRING}
_OBJECTION = {features.OBJECTION: _STRING}
_LABEL = {features.FILE_NAME: _STRING, **_AGE, **_OBJECTION}
_SPEC = {features.IMAGE: _STRING, **_AGE}


class Label(NamedTuple):
    """A photo without its picture."""

    file_name: str
    age: float  # years
    objection: str  # empty: the photo can be used


def labels(patterns: Sequence[str]) -> list[Label]:
    """All photos of a split, those that can't be used too."""
    parsed = _records(patterns).map(lambda record: tf.io.parse_single_example(record, _LABEL))
    return [
        Label(
            row[features.FILE_NAME].decode(),
            float(row[features.AGE]),
            row[features.OBJECTION].decode(),
        )
        for row in parsed.as_numpy_iterator()
    ]


def digest(patterns: Sequence[str]) -> str:
    """The SHA-256 of all records of a split, in hex."""
    found = hashlib.sha256()
    for record in _records(patterns).as_numpy_iterator():
        found.update(record)
    return found.hexdigest()


def train_batches(
    patterns: Sequence[str],
    image_size: int,
    batch_size: int,
    seed: int,
    epochs: range,
    mirrored: bool,
) -> tf.data.Dataset:
    """One epoch after the other; in each, every photo without objection once.

    The order in an epoch depends only on the seed and the number of the epoch. So a training that
    was killed goes on with the same batches. If the last batch of an epoch is smaller, it is left
    out, because batch norm would learn from it as much as from a full one. Each epoch leaves out
    other images.

    Args:
        patterns: of the transformed examples' files.
        image_size: side of the photos, pixels.
        batch_size: images in a batch.
        seed: of the order.
        epochs: their numbers, from 0.
        mirrored: whether an epoch also has the mirror image of each photo.

    Returns:
        Batches of (uint8 [batch_size, image_size, image_size, 3], float32 [batch_size] years).
    """
    flips = [False, True] if mirrored else [False]
    photos = _usable(patterns).map(lambda record: ([record] * len(flips), flips)).unbatch()

    def batches(epoch: int) -> tf.data.Dataset:
        # With several devices, `fit` starts the dataset twice. The order has to be the same.
        shuffled = photos.shuffle(SHUFFLE_BUFFER, seed=seed + epoch, reshuffle_each_iteration=False)
        return shuffled.batch(batch_size, drop_remainder=True)

    def decode(records: tf.Tensor, flipped: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels, years = _decode(records, image_size)
        return mirror(pixels, flipped), years

    return (
        functools.reduce(tf.data.Dataset.concatenate, map(batches, epochs))
        .map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(2)
        .with_options(without_autotune())
    )


def eval_batches(patterns: Sequence[str], image_size: int, batch_size: int) -> tf.data.Dataset:
    """Every photo without objection once, as it is, always in the same order.

    The batches are as in `train_batches`; the last one may be smaller.
    """
    return (
        _usable(patterns)
        .batch(batch_size)
        .map(lambda records: _decode(records, image_size), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(2)
        .with_options(without_autotune())
    )


def _usable(patterns: Sequence[str]) -> tf.data.Dataset:
    """The records of the photos without objection."""

    def usable(record: tf.Tensor) -> tf.Tensor:
        return tf.io.parse_single_example(record, _OBJECTION)[features.OBJECTION] == ""

    return _records(patterns).filter(usable)


def _records(patterns: Sequence[str]) -> tf.data.Dataset:
    """The records of all files, ordered by the id of each file's first photo.

    Transform's Beam workers number their files as they finish, so the order of the names differs
    between runs. The same photos with the same seed have to give the same model.
    """
    files = tf.data.Dataset.list_files(list(patterns), shuffle=False).as_numpy_iterator()
    return _read(sorted(files, key=_first_id))


def _first_id(file: bytes) -> bytes:
    for record in _read([file]).take(1):
        return bytes(tf.io.parse_single_example(record, _ID)[features.PHOTO_ID].numpy())
    return b""


def _read(files: Sequence[bytes]) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(files, compression_type="GZIP")


def _decode(records: tf.Tensor, image_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    parsed = tf.io.parse_example(records, _SPEC)
    return decode_squares(parsed[features.IMAGE], image_size), parsed[features.AGE]

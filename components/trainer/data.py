"""Transformed examples as batches for the network."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from components.transform import decode_squares
from schemas import features

# Records that wait to be drawn in random order: a few kB each.
SHUFFLE_BUFFER = 16_384

_AGE = {features.AGE: tf.io.FixedLenFeature([], tf.float32)}
_ID = {features.PHOTO_ID: tf.io.FixedLenFeature([], tf.string)}
_SPEC = {features.IMAGE: tf.io.FixedLenFeature([], tf.string), **_AGE}


def ages(patterns: Sequence[str]) -> tf.data.Dataset:
    """The ages alone, float32 scalars, years."""
    return _records(patterns).map(lambda record: tf.io.parse_single_example(record, _AGE)["age"])


def train_batches(
    patterns: Sequence[str], image_size: int, batch_size: int, seed: int
) -> tf.data.Dataset:
    """One epoch: every photo and its mirror image, in an order of the seed's.

    The last, smaller batch is left out, since batch norm would weigh it like a whole one; another
    epoch has another order, so that no photo stays out for long.

    Returns:
        Batches of (uint8 [batch_size, image_size, image_size, 3], float32 [batch_size] years).
    """

    def decode(records: tf.Tensor, mirrored: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels, years = _decode(records, image_size)
        return tf.where(mirrored[:, None, None, None], pixels[:, :, ::-1], pixels), years

    records = _records(patterns)
    sides = tf.data.Dataset.from_tensor_slices([False, True])
    return (
        sides.interleave(
            lambda mirrored: records.map(lambda record: (record, mirrored)), cycle_length=2
        )
        .shuffle(SHUFFLE_BUFFER, seed=seed)
        .batch(batch_size, drop_remainder=True)
        .map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(2)
        .with_options(_untuned())
    )


def eval_batches(patterns: Sequence[str], image_size: int, batch_size: int) -> tf.data.Dataset:
    """Every photo once, as it is, always in the same order; batches as in `train_batches`."""
    return (
        _records(patterns)
        .batch(batch_size)
        .map(lambda records: _decode(records, image_size), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(2)
        .with_options(_untuned())
    )


def _untuned() -> tf.data.Options:
    """Without tf.data's tuner, whose thread naps for up to a minute; an epoch's end waits for it.

    The naps double from 10 ms: epochs took 20.5, 41.0, 202.0 or 262.0 s, whatever they had to do.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def _records(patterns: Sequence[str]) -> tf.data.Dataset:
    """The records of all files, these in the order of their first photos' ids.

    Not of their names: Transform's Beam workers number their files as they get done, and the same
    photos with the same seed are to make the same model.
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

"""Transformed examples as batches for the network."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from components.transform import decode_squares
from schemas import features

# Records that wait to be drawn in random order: a few kB each.
SHUFFLE_BUFFER = 16_384

# How far a photo is varied in training: shares of its side and of its light.
MOVE, LIGHT = 0.06, 0.2

_AGE = {features.AGE: tf.io.FixedLenFeature([], tf.float32)}
_SPEC = {features.IMAGE: tf.io.FixedLenFeature([], tf.string), **_AGE}


def ages(patterns: Sequence[str]) -> tf.data.Dataset:
    """The ages alone, float32 scalars, years."""
    return _records(patterns).map(lambda record: tf.io.parse_single_example(record, _AGE)["age"])


def train_batches(
    patterns: Sequence[str], image_size: int, batch_size: int, seed: int
) -> tf.data.Dataset:
    """One epoch: every photo and its mirror image, varied, in an order of the seed's.

    The last, smaller batch is left out, since batch norm would weigh it like a whole one; another
    epoch has another order, so that no photo stays out for long.

    Returns:
        Batches of (uint8 [batch_size, image_size, image_size, 3], float32 [batch_size] years).
    """

    def decode(
        number: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        records, mirrored = batch
        pixels, years = _decode(records, image_size)
        pixels = tf.where(mirrored[:, None, None, None], pixels[:, :, ::-1], pixels)
        return varied(pixels, tf.stack([seed, tf.cast(number, tf.int32)])), years

    sides = tf.data.Dataset.from_tensor_slices([False, True])
    return (
        sides.interleave(
            lambda mirrored: _records(patterns).map(lambda record: (record, mirrored)),
            cycle_length=2,
        )
        .shuffle(SHUFFLE_BUFFER, seed=seed)
        .batch(batch_size, drop_remainder=True)
        .enumerate()
        .map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(2)
        .with_options(_untuned())
    )


def eval_batches(patterns: Sequence[str], image_size: int, batch_size: int) -> tf.data.Dataset:
    """Every photo once, as it is, in the files' order; batches as in `train_batches`."""
    return (
        _records(patterns)
        .batch(batch_size)
        .map(lambda records: _decode(records, image_size), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(2)
        .with_options(_untuned())
    )


def varied(pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """The photos as another till's camera might have taken them.

    Each is moved and lit by chance, up to MOVE and LIGHT; what comes in at an edge is the mirror
    image of what is inside. Moved by whole pixels, and neither turned nor enlarged: that blurs
    what an age is read from, and a network that has learnt from blurred photos takes others to be
    older (by 0.9 years with up to 8 degrees and 10 %, on 900 real photos of 96 pixels).

    Args:
        pixels: uint8 [N, size, size, 3].
        seed: int32 [2]; the same seed gives the same photos.

    Returns:
        uint8 [N, size, size, 3].
    """
    count, size = tf.shape(pixels)[0], tf.shape(pixels)[1]
    chance = tf.random.stateless_uniform((4, count), seed, -1.0, 1.0)
    across, down = (MOVE * tf.cast(size, tf.float32) * chance[i] for i in (0, 1))
    one, zero = tf.ones_like(across), tf.zeros_like(across)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels,
        # From a point of the result to where in the photo it comes from.
        transforms=tf.stack((one, zero, across, zero, one, down, zero, zero), axis=1),
        output_shape=tf.stack([size, size]),
        fill_value=0.0,
        interpolation="NEAREST",
        fill_mode="REFLECT",
    )
    contrast, light = (1 + LIGHT * chance[i][:, None, None, None] for i in (2, 3))
    lit = (tf.cast(moved, tf.float32) - 128) * contrast + 128 * light
    return tf.saturate_cast(tf.round(lit), tf.uint8)


def _untuned() -> tf.data.Options:
    """Without tf.data's tuner, whose thread naps for up to a minute; an epoch's end waits for it.

    The naps double from 10 ms: epochs took 20.5, 41.0, 202.0 or 262.0 s, whatever they had to do.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def _records(patterns: Sequence[str]) -> tf.data.Dataset:
    files = tf.data.Dataset.list_files(list(patterns), shuffle=False)
    return tf.data.TFRecordDataset(files, compression_type="GZIP")


def _decode(records: tf.Tensor, image_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    parsed = tf.io.parse_example(records, _SPEC)
    return decode_squares(parsed[features.IMAGE], image_size), parsed[features.AGE]

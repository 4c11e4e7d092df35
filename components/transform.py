"""Transform: a photo becomes the square picture that the network sees.

`preprocessing_fn` is the only preprocessing there is: Transform runs it over the examples, and the
graph that it leaves behind is what the served model runs on a point of sale's photo. Its output is
a JPEG, which keeps the transformed examples small; a served photo goes through the same encoder,
so that a photo has one age wherever it is asked for.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
import tfx.components
from apache_beam.io.filesystem import CompressedFile
from tfx.components.transform import executor
from tfx.dsl.components.base import executor_spec
from tfx.proto import transform_pb2
from tfx.types import BaseChannel

from components import heap
from components.beam_step import BeamStep
from pipeline import config
from schemas import features


def square_jpeg(photo: tf.Tensor, size: int, quality: int) -> tf.Tensor:
    """The centre square of a photo, resized.

    Args:
        photo: scalar string, the bytes of a JPEG (PNG, GIF and BMP are read too).
        size: side of the result, pixels.
        quality: JPEG quality of the result, 0 to 100.

    Returns:
        Scalar string, a JPEG of size × size pixels in RGB without chroma subsampling.
    """
    pixels = tf.io.decode_image(photo, channels=3, expand_animations=False)
    height, width = tf.shape(pixels)[0], tf.shape(pixels)[1]
    side = tf.minimum(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    pixels = pixels[top : top + side, left : left + side]
    pixels = tf.cast(tf.round(_resized(pixels, size)), tf.uint8)  # means of what is in range
    return tf.io.encode_jpeg(pixels, format="rgb", quality=quality, chroma_downsampling=False)


def _resized(pixels: tf.Tensor, size: int) -> tf.Tensor:
    """[height, width, 3] to float32 [size, size, 3], bilinear, antialiased.

    What `tf.image.resize` makes of the picture as it is, in half the time: its kernel adds whole
    rows at once, but goes through columns pixel by pixel. So columns are made rows.
    """
    for _ in ("height", "width"):
        height, width = tf.shape(pixels)[0], tf.shape(pixels)[1]
        rows = tf.reshape(pixels, (height, 1, 3 * width))
        rows = tf.image.resize(rows, (size, 1), method="bilinear", antialias=True)
        pixels = tf.transpose(tf.reshape(rows, (size, width, 3)), (1, 0, 2))
    return pixels


def decode_squares(jpegs: tf.Tensor, size: int) -> tf.Tensor:
    """What the network takes, from what Transform wrote.

    Args:
        jpegs: string [N], results of `square_jpeg`.
        size: their side, pixels.

    Returns:
        uint8 [N, size, size, 3], RGB.
    """

    def decode(jpeg: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.io.decode_jpeg(jpeg, channels=3), (size, size, 3))

    return tf.map_fn(decode, jpegs, fn_output_signature=tf.TensorSpec((size, size, 3), tf.uint8))


def preprocessing_fn(
    inputs: dict[str, tf.Tensor], custom_config: dict[str, Any]
) -> dict[str, tf.Tensor]:
    """Raw to transformed examples, for TFX's Transform.

    Args:
        inputs: of the raw features: IMAGE string [N], AGE float32 [N] (years), PHOTO_ID string [N].
        custom_config: `image_size` (pixels) and `jpeg_quality`.

    Returns:
        The TRANSFORMED_FEATURES, each [N].
    """
    size, quality = custom_config["image_size"], custom_config["jpeg_quality"]
    squares = tf.map_fn(
        lambda photo: square_jpeg(photo, size, quality),
        inputs[features.IMAGE],
        fn_output_signature=tf.TensorSpec((), tf.string),
    )
    return {
        features.IMAGE: squares,
        features.AGE: tf.identity(inputs[features.AGE]),
        features.PHOTO_ID: tf.identity(inputs[features.PHOTO_ID]),
    }


class Executor(heap.GivesBack, BeamStep, executor.Executor):
    """TFX's, whose memory hardly grows with the number of photos, and whose output is stored."""

    def Do(self, *arguments: Any) -> None:
        """Runs the executor."""
        with _stored():
            super().Do(*arguments)


@contextlib.contextmanager
def _stored() -> Iterator[None]:
    """Beam's gzip files are stored, as PhotoExampleGen's are.

    TFX writes gzip, which for JPEGs takes a tenth of the step's time (0.10 ms of CPU a photo of 96
    px) and saves just the tables that all of them share, 15 %. Beam knows no level of compression.
    Workers in other processes still deflate, which is as good to read.
    """

    def store(file: Any) -> None:
        file._compressor = zlib.compressobj(0, zlib.DEFLATED, file._gzip_mask)

    beams = CompressedFile._initialize_compressor
    CompressedFile._initialize_compressor = store
    try:
        yield
    finally:
        CompressedFile._initialize_compressor = beams


class Transform(tfx.components.Transform):
    """TFX's Transform with the executor above."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)


def transform(examples: BaseChannel, schema: BaseChannel, settings: config.Transform) -> Transform:
    """TFX's Transform with this module's `preprocessing_fn`.

    Nothing is learned from the data here, so there is neither an analyzer cache nor statistics of
    the output: StatisticsGen has described the photos already.
    """
    return Transform(
        examples=examples,
        schema=schema,
        preprocessing_fn=f"{__name__}.{preprocessing_fn.__name__}",
        splits_config=transform_pb2.SplitsConfig(
            analyze=[features.TRAIN], transform=list(features.SPLITS)
        ),
        custom_config=settings.model_dump(),
        disable_analyzer_cache=True,
        disable_statistics=True,
    )

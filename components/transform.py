"""Transform: cuts the centre square out of a photo and resizes it for the network.

`preprocessing_fn` is the only preprocessing. Transform applies it to the examples, and its graph is
part of the served model, so a photo gets the same age in training, evaluation and serving. The
output is a JPEG, which keeps the transformed examples small.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tfx.components import Transform
from tfx.proto import transform_pb2
from tfx.types import BaseChannel

from pipeline import config
from schemas import features


def square_jpeg(photo: tf.Tensor, size: int, quality: int) -> tf.Tensor:
    """The centre square of a photo, resized: bilinear, with antialiasing.

    Args:
        photo: scalar string, the bytes of a JPEG, PNG, GIF or BMP.
        size: side of the result, pixels.
        quality: JPEG quality of the result, 0 to 100.

    Returns:
        Scalar string, a JPEG of size × size pixels in RGB without chroma subsampling.
    """
    pixels = tf.io.decode_image(photo, channels=3, expand_animations=False)
    height, width = tf.shape(pixels)[0], tf.shape(pixels)[1]
    side = tf.minimum(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[top : top + side, left : left + side]
    resized = tf.image.resize(square, (size, size), method="bilinear", antialias=True)
    rounded = tf.cast(tf.round(resized), tf.uint8)  # weighted means stay within 0 to 255
    return tf.io.encode_jpeg(rounded, format="rgb", quality=quality, chroma_downsampling=False)


def decode_squares(jpegs: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes transformed photos for the network.

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
    """Makes transformed examples of raw ones; TFX's Transform calls it.

    Args:
        inputs: raw features: IMAGE string [N], AGE float32 [N] (years), PHOTO_ID string [N].
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


def transform(examples: BaseChannel, schema: BaseChannel, settings: config.Transform) -> Transform:
    """TFX's Transform with the `preprocessing_fn` above.

    The preprocessing learns nothing from the data, so there is no analyzer cache. There are no
    statistics of the output either: StatisticsGen describes the photos.
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

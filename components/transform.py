"""Transform: cuts the face out of a photo, and resizes and flips it for the network.

`preprocessing_fn` is the only preprocessing. Transform applies it to the examples, and its graph is
part of the served model, so a photo gets the same age in training, evaluation and serving. The
output is a JPEG, which keeps the transformed examples small. `mirror` is an operation of its own:
the Trainer applies it while it reads, because stored mirror images would take twice the disk.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tfx.components import Transform
from tfx.proto import transform_pb2
from tfx.types import BaseChannel

from components.face.finder import Square, centre_square, find_face
from pipeline import config
from schemas import features


def decode_photo(photo: tf.Tensor) -> tf.Tensor:
    """The pixels of a photo, uint8 [height, width, 3], RGB; of an animation, its first frame.

    Args:
        photo: scalar string, the bytes of a JPEG, PNG, GIF or BMP. The op fails if they are not.
    """
    return tf.io.decode_image(photo, channels=3, expand_animations=False)


def square_jpeg(photo: tf.Tensor, settings: config.Transform) -> tuple[tf.Tensor, tf.Tensor]:
    """What the network sees of a photo, and what speaks against it.

    Args:
        photo: scalar string, as `decode_photo` takes it.
        settings: the `transform` section of the configuration.

    Returns:
        Two scalar strings: a JPEG of image_size × image_size pixels in RGB without chroma
        subsampling, and one of features.OBJECTIONS or nothing.
    """
    pixels = decode_photo(photo)
    size = settings.image_size
    if settings.face == "find":
        square = find_face(pixels, size, settings)
    else:
        square = Square(centre_square(pixels, size), tf.constant(""))
    jpeg = tf.io.encode_jpeg(
        square.pixels, format="rgb", quality=settings.jpeg_quality, chroma_downsampling=False
    )
    return jpeg, square.objection


def mirror(pictures: tf.Tensor, which: tf.Tensor) -> tf.Tensor:
    """Flips pictures from left to right.

    Args:
        pictures: [N, height, width, channels].
        which: bool [N]; the other pictures stay as they are.
    """
    return tf.where(which[:, None, None, None], pictures[:, :, ::-1], pictures)


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
        inputs: raw features: IMAGE, FILE_NAME and PHOTO_ID string [N], AGE float32 [N] (years).
        custom_config: the `transform` section of the configuration.

    Returns:
        The TRANSFORMED_FEATURES, each [N].
    """
    settings = config.Transform(**custom_config)
    jpegs, objections = tf.map_fn(
        lambda photo: square_jpeg(photo, settings),
        inputs[features.IMAGE],
        fn_output_signature=(tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.string)),
    )
    kept = (features.AGE, features.FILE_NAME, features.PHOTO_ID)
    return {
        features.IMAGE: jpegs,
        features.OBJECTION: objections,
        **{name: tf.identity(inputs[name]) for name in kept},
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

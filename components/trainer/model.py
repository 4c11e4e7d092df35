"""The network, and the servable that is made of it."""

from __future__ import annotations

import functools
from pathlib import Path

import keras
import tensorflow as tf
import tensorflow_transform as tft

from components.errors import UserError
from components.transform import decode_squares
from schemas import features

# Keras' 0.99 remembers hundreds of steps; a short training's evaluation would see statistics of
# weights long gone.
BATCH_NORM_MOMENTUM = 0.9

TRUNK = "resnet50"


def build(
    image_size: int,
    *,
    initial_weights: str,
    mean_age: float,
    dropout: float,
    precision: str = "float32",
) -> keras.Model:
    """ResNet50, average pooling, dropout, one ReLU output (He et al. 2015, arXiv:1512.03385).

    Args:
        image_size: side of the input, pixels.
        initial_weights: "imagenet", "none" or a file of ResNet50 weights without top.
        mean_age: years; the output's bias, so that training starts at the best constant.
        dropout: share of the pooled features that is dropped.
        precision: what the trunk computes in: float32, bfloat16 or float16; weights are float32.

    Returns:
        A model from uint8 [N, image_size, image_size, 3] (RGB) to float32 [N, 1] (years).

    Raises:
        UserError: the initial weights can't be had or do not fit.
    """
    policy = "float32" if precision == "float32" else f"mixed_{precision}"
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        trunk = _trunk(image_size, initial_weights)
    finally:
        keras.config.set_dtype_policy(before)
    photo = keras.Input((image_size, image_size, 3), dtype="uint8", name=features.IMAGE)
    pixels = keras.ops.cast(photo, "float32")
    x = trunk(keras.applications.resnet50.preprocess_input(pixels))
    x = keras.layers.Dropout(dropout, dtype="float32")(x)
    age = keras.layers.Dense(
        1,
        activation="relu",
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        bias_initializer=keras.initializers.Constant(mean_age),
        dtype="float32",
        name=features.AGE,
    )(x)
    return keras.Model(photo, age)


def _trunk(image_size: int, initial_weights: str) -> keras.Model:
    weights = None if initial_weights == "none" else initial_weights
    try:
        trunk = keras.applications.ResNet50(
            include_top=False,
            weights=weights,
            input_shape=(image_size, image_size, 3),
            pooling="avg",
            name=TRUNK,
        )
    except Exception as error:  # Keras raises whatever its downloader and h5py do
        raise UserError(
            f"trainer.initial_weights={initial_weights}: no ResNet50 weights without top could "
            f"be loaded ({str(error).splitlines()[0]}); give another file, or none"
        ) from error
    for layer in trunk.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = BATCH_NORM_MOMENTUM
    return trunk


class Servable(tf.Module):
    """The trained network behind Transform's graph, from photo bytes to years.

    Transform's layer is a tf_keras one and the network is Keras 3, so that neither can hold the
    other; a tf.Module holds both.
    """

    def __init__(self, model: keras.Model, transform: tft.TFTransformOutput, image_size: int):
        super().__init__()
        # Not the network itself: its layers would be written and loaded too, for nothing.
        self._weights = [variable.value for variable in model.variables]
        self._network = functools.partial(model, training=False)
        self._transform = transform.transform_features_layer()
        self._image_size = image_size

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=features.IMAGE)])
    def serving_default(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Photo bytes, string [N], to `age`, float32 [N], years."""
        squares = self._transform({features.IMAGE: image})[features.IMAGE]
        ages = self._network(decode_squares(squares, self._image_size))
        return {features.AGE: tf.squeeze(ages, axis=1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Serialized raw examples, string [N], to the same outputs."""
        spec = {features.IMAGE: tf.io.FixedLenFeature([], tf.string)}
        return self.serving_default(tf.io.parse_example(examples, spec)[features.IMAGE])


def export(model: keras.Model, transform_graph: str, image_size: int, folder: str | Path) -> None:
    """Writes the SavedModel with its signatures `serving_default` and `examples`."""
    servable = Servable(model, tft.TFTransformOutput(transform_graph), image_size)
    tf.saved_model.save(
        servable,
        str(folder),
        signatures={
            "serving_default": servable.serving_default,
            "examples": servable.examples,
        },
    )

"""The network, and the servable that is made of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from components.errors import UserError
from components.transform import decode_squares
from schemas import features

# Keras' 0.99 remembers hundreds of steps; a short training's evaluation would see statistics of
# weights long gone.
BATCH_NORM_MOMENTUM = 0.9

TRUNK = "resnet50"
SMALL = 8  # pixels: the side of a picture, at most, for which see `_convolve`


def build(
    image_size: int,
    *,
    initial_weights: str,
    mean_age: float,
    dropout: float,
    precision: str = "float32",
) -> keras.Model:
    """ResNet50, average pooling, dropout, one ReLU output (He et al. 2015, arXiv:1512.03385).

    Loaded weights keep the batch-norm statistics that they came with, learnt from far more photos
    than ours, with which the eval MAE jumped by a year from one epoch to the next. Such norms are
    constants, and are folded away.

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
        if initial_weights != "none":
            trunk = _folded(trunk, lambda normed: normed)
    finally:
        keras.config.set_dtype_policy(before)
    age = keras.layers.Dense(
        1,
        activation="relu",
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        bias_initializer=keras.initializers.Constant(mean_age),
        dtype="float32",
        name=features.AGE,
    )
    return _network(trunk, dropout, age)


def served(network: keras.Model) -> keras.Model:
    """The network as it is served: its ages (to 1e-4 years), in float32 and without batch norms.

    In float32: a photo has one age, whatever machine or batch serves it. Without batch norms, a
    photo alone takes 14.3 ms instead of 17.5, among 32 others 6.8 instead of 8.1 (ResNet50, 96 px,
    two cores).

    Args:
        network: as `build` returns it.
    """
    trunk = _folded(network.get_layer(TRUNK), _Normed.alone)
    return _network(trunk, 0.0, network.get_layer(features.AGE))


def _network(trunk: keras.Model, dropout: float, age: keras.layers.Dense) -> keras.Model:
    photo = keras.Input(trunk.input_shape[1:], dtype="uint8", name=features.IMAGE)
    pixels = keras.ops.cast(photo, "float32")
    x = trunk(keras.applications.resnet50.preprocess_input(pixels))
    x = keras.layers.Dropout(dropout, dtype="float32")(x)
    return keras.Model(photo, age(x))


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
            layer.__class__ = _BatchNorm  # Keras' ResNet50 takes no other layers than its own
    return trunk


class _BatchNorm(keras.layers.BatchNormalization):
    """Keras' own, with TensorFlow's kernel.

    Keras makes a dozen operations of it, on photos cast to float32. The training step of ResNet50
    is traced and started in half the time, and then takes a quarter less (48 px, bfloat16).
    """

    def call(self, inputs: tf.Tensor, training: bool = False, mask: None = None) -> tf.Tensor:
        """Normalises by the batch's statistics and remembers them; else by those remembered."""
        learning = training and self.trainable
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=self.moving_mean,
            variance=self.moving_variance,
            epsilon=self.epsilon,
            exponential_avg_factor=1 - self.momentum,
            is_training=learning,
        )
        if learning:
            self.moving_mean.assign(mean)
            self.moving_variance.assign(variance)
        return outputs


class _Normed(keras.layers.Layer):
    """A convolution and the batch norm after it, whose statistics stay, as one convolution.

    Such a norm multiplies by and adds constants, which kernel and bias take in (Jacob et al. 2017,
    arXiv:1712.05877, section 3.2). What is learned are the kernel and the bias that there were. A
    training step of ResNet50 takes a sixth less time (96 px, bfloat16, two cores).

    Args:
        convolution: built; it is learned.
        norm: where the constants come from; it is not kept.
    """

    def __init__(
        self, convolution: keras.layers.Conv2D, norm: keras.layers.BatchNormalization
    ) -> None:
        super().__init__(name=convolution.name, autocast=False)  # it is folded in float32
        gamma, beta, mean, variance = norm.get_weights()
        self._convolution = convolution
        self._scale = gamma / np.sqrt(variance + norm.epsilon)
        self._offset = beta - mean * self._scale

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The convolution with the folded kernel and bias."""
        kernel, bias = (tf.cast(weight, inputs.dtype) for weight in self._kernel_and_bias())
        convolution = self._convolution
        small = convolution.kernel_size == (1, 1) or inputs.shape[1] <= SMALL
        dense = convolution.strides == (1, 1) and small
        convolve = _convolve if dense else convolution.convolution_op
        return tf.nn.bias_add(convolve(inputs, kernel), bias)

    def _kernel_and_bias(self) -> tuple[tf.Tensor, tf.Tensor]:
        convolution = self._convolution
        return convolution.kernel * self._scale, convolution.bias * self._scale + self._offset

    def alone(self) -> keras.layers.Conv2D:
        """What it does, as a convolution of Keras' in float32 that learns no more."""
        kernel, bias = (
            keras.initializers.Constant(weight.numpy()) for weight in self._kernel_and_bias()
        )
        config = self._convolution.get_config()
        config |= {"dtype": "float32", "kernel_initializer": kernel, "bias_initializer": bias}
        return keras.layers.Conv2D.from_config(config)


@tf.custom_gradient
def _convolve(
    inputs: tf.Tensor, kernel: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
    """A convolution of stride 1 with zeros around; its kernel's gradient is products of matrices.

    oneDNN's own takes up to 20 times as long in bfloat16 (AMX) where the pictures or the kernel are
    small: a training step of ResNet50 takes a sixth less time. In float32 both take the same.
    """
    sides, (height, width) = kernel.shape[:2], inputs.shape[1:3]
    top, left = (side // 2 for side in sides)

    def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        padded = tf.pad(inputs, [[0, 0], [top, top], [left, left], [0, 0]])
        rows = tf.reshape(upstream, [-1, kernel.shape[3]])
        products = [
            tf.matmul(
                tf.reshape(padded[:, y : y + height, x : x + width], [-1, kernel.shape[2]]),
                rows,
                transpose_a=True,
            )
            for y, x in np.ndindex(*sides)
        ]
        back = tf.nn.conv2d_transpose(upstream, kernel, tf.shape(inputs), 1, "SAME")
        return back, tf.reshape(tf.stack(products), kernel.shape)

    return tf.nn.conv2d(inputs, kernel, 1, "SAME"), gradients


class _Folded(keras.layers.Layer):
    """In a batch norm's place, once the convolution before it does what it did."""

    def call(self, inputs: tf.Tensor, training: bool = False, mask: None = None) -> tf.Tensor:
        """Hands on what it gets."""
        return inputs


def _folded(
    trunk: keras.Model, convolution: Callable[[_Normed], keras.layers.Layer]
) -> keras.Model:
    """The trunk, computing as Keras' dtype policy says, without the batch norms that it still has.

    `convolution` makes what is put in the place of each convolution and its batch norm.
    """

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.layers.BatchNormalization):
            return _Folded(name=layer.name)
        if isinstance(layer, keras.layers.Conv2D):
            norm = trunk.get_layer(layer.name.removesuffix("_conv") + "_bn")
            layer = _Normed(layer, norm)
        if isinstance(layer, _Normed):
            return convolution(layer)
        return layer.__class__.from_config(layer.get_config() | {"dtype": None})

    return keras.models.clone_model(trunk, clone_function=clone)


class Servable(tf.Module):
    """The trained network behind Transform's graph, from photo bytes to years.

    It keeps the weights alone: layers would be written too, traced for loaders of Keras models, and
    each variable a second time, of which a session (so TensorFlow Serving) fills only those that
    these functions do not read.
    """

    def __init__(
        self,
        model: keras.Model,
        transform: tft.TFTransformOutput,
        image_size: int,
        max_pixels: int,
    ):
        super().__init__()
        self._weights = [variable.value for variable in model.variables]
        self._network = functools.partial(model, training=False)
        self._transform = transform.transform_features_layer().__call__
        self._image_size = image_size
        self._max_pixels = tf.constant(max_pixels, tf.int64)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=features.IMAGE)])
    @tf.autograph.experimental.do_not_convert  # it would rewrite Transform's layer, for nothing
    def serving_default(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Photo bytes, string [N], to `age`, float32 [N], years, and `valid`, bool [N].

        Bytes that hold no JPEG or PNG, or one of too many pixels, are not valid and have no age
        (NaN); the others in the batch have theirs.
        """
        pixels, valid = self._decode(image)
        count = tf.size(image)
        # The network is never asked about nothing at all: oneDNN's convolutions fail on it.
        ages = tf.squeeze(self._network(pixels[: tf.maximum(count, 1)]), axis=1)
        ages = tf.where(valid, ages[:count], np.nan)
        return {features.AGE: ages, features.VALID: valid}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Serialized raw examples, string [N], to the same outputs."""
        spec = {features.IMAGE: tf.io.FixedLenFeature([], tf.string)}
        return self.serving_default(tf.io.parse_example(examples, spec)[features.IMAGE])

    def _decode(self, photos: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What the network takes, and whether it is a photo, bool [N].

        Returns uint8 [N + 1, size, size, 3], the last one blank, as are those that are no photos.
        """
        count = tf.size(photos, tf.int64)
        blank = tf.zeros((self._image_size, self._image_size, 3), tf.uint8)
        # The decoding ops tell of an error by failing alone; tf.data drops what fails and goes on.
        # One row more than there are photos, so that there always is one that does not fail.
        options = tf.data.Options()
        options.autotune.enabled = False
        options.experimental_optimization.apply_default_optimizations = False  # at every call
        # Numbered by a tensor: enumerate() adds a dataset that is rewritten at every call.
        rows = (
            tf.data.Dataset.from_tensor_slices((tf.range(count), photos))
            .map(self._row, num_parallel_calls=tf.data.AUTOTUNE)
            .ignore_errors()
            .concatenate(tf.data.Dataset.from_tensors((count, blank)))
            .batch(count + 1)
            .with_options(options)
        )
        at, pixels = rows.get_single_element()
        pixels = tf.scatter_nd(at[:, None], pixels, tf.stack([count + 1, *blank.shape]))
        valid = tf.scatter_nd(at[:, None], tf.ones_like(at, tf.bool), [count + 1])
        return pixels, valid[:count]

    def _row(self, row: tf.Tensor, photo: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        small_enough = tf.debugging.assert_less_equal(count_pixels(photo), self._max_pixels)
        with tf.control_dependencies([small_enough]):
            photos = tf.identity(photo)[None]
        squares = self._transform({features.IMAGE: photos})[features.IMAGE]
        return row, decode_squares(squares, self._image_size)[0]


def count_pixels(photo: tf.Tensor) -> tf.Tensor:
    """How many pixels a JPEG or PNG says it has, int64 scalar, without decoding it.

    Args:
        photo: its bytes, scalar string. The op fails where they are neither.
    """

    def png() -> tf.Tensor:
        signature = tf.debugging.assert_equal(tf.strings.substr(photo, 0, 8), b"\x89PNG\r\n\x1a\n")
        with tf.control_dependencies([signature]):
            sides = tf.io.decode_raw(tf.strings.substr(photo, 16, 8), tf.int32, False)
        return tf.cast(sides, tf.int64)

    def jpeg() -> tf.Tensor:
        return tf.io.extract_jpeg_shape(photo, tf.int64)[:2]

    return tf.reduce_prod(tf.cond(tf.image.is_jpeg(photo), jpeg, png))


def export(
    model: keras.Model,
    transform_graph: str,
    folder: str | Path,
    *,
    image_size: int,
    max_pixels: int,
    max_batch_size: int,
) -> None:
    """Writes the SavedModel with its signatures `serving_default` and `examples`, and warm-up.

    Args:
        model: as `build` returns it.
        transform_graph: folder of Transform's.
        folder: where it goes.
        image_size: side of the network's input, pixels.
        max_pixels: photos with more are not valid.
        max_batch_size: the largest batch that a server makes; the warm-up sends it.
    """
    transform = tft.TFTransformOutput(transform_graph)
    servable = Servable(model, transform, image_size, max_pixels)
    tf.saved_model.save(
        servable,
        str(folder),
        signatures={
            "serving_default": servable.serving_default,
            "examples": servable.examples,
        },
    )
    _write_warmup(Path(folder), sorted({1, max_batch_size}))


def _write_warmup(folder: Path, batch_sizes: Sequence[int]) -> None:
    """What a model server plays before it takes customers, who would wait for it otherwise."""
    grey = tf.io.encode_jpeg(tf.fill([256, 256, 3], tf.constant(128, tf.uint8)))
    file = folder / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for size in batch_sizes:
            log = PredictionLog()
            log.predict_log.request.model_spec.signature_name = "serving_default"
            photos = tf.make_tensor_proto(tf.repeat(grey, size))
            log.predict_log.request.inputs[features.IMAGE].CopyFrom(photos)
            writer.write(log.SerializeToString())

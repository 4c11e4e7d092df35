"""The network, and the servable that is made of it."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from components import certificate as certificates
from components import confusion
from components.certificate import Certificate
from components.confusion import Confusion
from components.errors import UserError
from components.trainer.calibration import Calibration
from components.trainer.guard import Guard
from components.trainer.heads import LAYER, Head
from components.transform import decode_photo, decode_squares
from components.upstream import without_autotune
from schemas import features

# Keras' default of 0.99 averages over hundreds of steps. In a short training, evaluation would use
# the statistics of weights that have changed much since then.
BATCH_NORM_MOMENTUM = 0.9

# A photo with the most pixels may have so many scans, and a smaller one more. A normal progressive
# JPEG has about ten.
MAX_SCANS = 10
START_OF_SCAN = b"\xff\xda"

TRUNK = "resnet50"
# Outputs of a served network, beside the age.
SPREAD = "spread"  # how far off the age may be, compared with other photos
SCORE = "score"  # the higher, the more likely it is a minor
POOLED = "pooled"  # what the guard looks at


def build(
    image_size: int,
    *,
    initial_weights: str,
    head: Head,
    ages: np.ndarray,
    dropout: float,
    precision: str = "float32",
) -> keras.Model:
    """ResNet50, average pooling, dropout and a head (He et al. 2015, arXiv:1512.03385).

    Args:
        image_size: side of the input, pixels.
        initial_weights: "imagenet", "none" or a file of ResNet50 weights without top.
        head: the last layer.
        ages: of the train photos, years [N]; the training starts at the best constant.
        dropout: share of the pooled features that is dropped.
        precision: what the trunk computes in: float32, bfloat16 or float16; weights are float32.

    Returns:
        A model from uint8 [N, image_size, image_size, 3] (RGB) to the head's outputs, float32.

    Raises:
        UserError: the initial weights cannot be loaded or do not fit.
    """
    trunk = _trunk(image_size, initial_weights)
    policy = "float32" if precision == "float32" else f"mixed_{precision}"
    photo, pooled = _pooled(_clone(trunk, policy))
    kept = keras.layers.Dropout(dropout, dtype="float32")(pooled)
    return keras.Model(photo, head.layer(ages)(kept))


def served(network: keras.Model, head: Head, legal_age: int) -> keras.Model:
    """The network as it is served: in float32, without dropout and batch norms.

    In float32, a photo has one age on every machine. Without batch norms, the answer is faster.

    Args:
        network: as `build` returns it.
        head: its head.
        legal_age: years.

    Returns:
        A model from uint8 [N, image_size, image_size, 3] to AGE, in years, SPREAD and SCORE,
        float32 [N, 1], and the pooled features of the trunk, POOLED, float32 [N, F].
    """
    trunk = fold_batch_norms(_clone(network.get_layer(TRUNK), "float32"))
    photo, pooled = _pooled(trunk)
    outputs = network.get_layer(LAYER)(pooled)
    return keras.Model(
        photo,
        {
            features.AGE: head.age(outputs),
            SPREAD: head.spread(outputs),
            SCORE: head.score(outputs, legal_age),
            POOLED: pooled,
        },
    )


def predict(network: keras.Model, batches: tf.data.Dataset) -> dict[str, np.ndarray]:
    """What a network says about photos: AGE (years), SPREAD, SCORE, [N], POOLED [N, F]; float32.

    Args:
        network: as `served` returns it.
        batches: as `data.eval_batches` returns them.
    """
    found = network.predict(batches.map(lambda pixels, years: pixels), verbose=0)
    return {name: values if name == POOLED else values[:, 0] for name, values in found.items()}


def fold_batch_norms(model: keras.Model) -> keras.Model:
    """A copy of a model in which each convolution does the work of the batch norm after it.

    A batch norm whose statistics do not change multiplies by and adds constants. Kernel and bias
    of the convolution can take these in (Jacob et al. 2017, arXiv:1712.05877, section 3.2).

    Args:
        model: a functional model, channels last. The input of each batch norm is the output of a
            Conv2D without activation, which goes nowhere else.

    Returns:
        A model with the outputs that `model` has in inference, without batch norms.

    Raises:
        ValueError: a batch norm does not follow such a Conv2D.
    """
    convolutions = {
        id(layer.output): layer
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D) and layer.activation is keras.activations.linear
    }
    weights = {layer.name: layer.get_weights() for layer in model.layers}
    for norm in model.layers:
        if isinstance(norm, keras.layers.BatchNormalization):
            if id(norm.input) not in convolutions:
                raise ValueError(f"{norm.name} does not follow a Conv2D without activation")
            convolution = convolutions[id(norm.input)]
            weights[convolution.name] = _folded(convolution, norm)

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if isinstance(layer, keras.layers.Conv2D):
            config["use_bias"] = len(weights[layer.name]) == 2
        return type(layer).from_config(config)

    def call(layer: keras.layers.Layer, *inputs: Any, **arguments: Any) -> Any:
        if isinstance(layer, keras.layers.BatchNormalization):
            return inputs[0]
        return layer(*inputs, **arguments)

    folded = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in folded.layers:
        if layer.weights:
            layer.set_weights(weights[layer.name])
    return folded


def _folded(
    convolution: keras.layers.Conv2D, norm: keras.layers.BatchNormalization
) -> list[np.ndarray]:
    """The kernel and the bias that do what the convolution and the norm do."""
    kernel, *biases = (np.float64(weight) for weight in convolution.get_weights())
    gamma, beta, mean, variance = (np.float64(weight) for weight in norm.get_weights())
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return [kernel * scale, (sum(biases) - mean) * scale + beta]


def _clone(trunk: keras.Model, dtype: str) -> keras.Model:
    """A copy that computes as the dtype policy says. ResNet50 itself takes no dtype."""

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config() | {"dtype": dtype}
        if isinstance(layer, keras.layers.BatchNormalization):
            config["momentum"] = BATCH_NORM_MOMENTUM
        return type(layer).from_config(config)

    copy = keras.models.clone_model(trunk, clone_function=clone)
    copy.set_weights(trunk.get_weights())
    return copy


def _pooled(trunk: keras.Model) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The input of a network with this trunk, and the trunk's pooled features of it."""
    photo = keras.Input(trunk.input_shape[1:], dtype="uint8", name=features.IMAGE)
    pixels = keras.ops.cast(photo, "float32")
    return photo, trunk(keras.applications.resnet50.preprocess_input(pixels))


def _trunk(image_size: int, initial_weights: str) -> keras.Model:
    weights = None if initial_weights == "none" else initial_weights
    try:
        return keras.applications.ResNet50(
            include_top=False,
            weights=weights,
            input_shape=(image_size, image_size, 3),
            pooling="avg",
            name=TRUNK,
        )
    except Exception as error:  # whatever Keras' downloader and h5py raise
        raise UserError(
            f"trainer.initial_weights={initial_weights}: no ResNet50 weights without top could "
            f"be loaded ({str(error).splitlines()[0]}); give another file, or none"
        ) from error


class Servable(tf.Module):
    """The trained network behind Transform's graph, from photo bytes to years.

    It tracks the network's variables, but not the network. A tracked Keras model would be saved
    with a second copy of each variable, and TensorFlow Serving would fill only that copy.
    """

    def __init__(
        self,
        model: keras.Model,
        guard: Guard,
        calibration: Calibration,
        certificate: Certificate,
        assets: Sequence[Path],
        transform: tft.TFTransformOutput,
        image_size: int,
        max_pixels: int,
    ):
        super().__init__()
        self._assets = [tf.saved_model.Asset(str(file)) for file in assets]  # travel with the model
        self._calibration = calibration
        self._certificate = certificate
        self._weights = [variable.value for variable in model.variables]
        self._network = functools.partial(model, training=False)  # hides it from tf.Module
        # As constants, they would be copied with each function of the graph.
        self._guard = Guard(*(tf.Variable(part, trainable=False) for part in guard))
        self._transform = transform.transform_features_layer().__call__
        self._image_size = image_size
        self._max_pixels = tf.constant(max_pixels, tf.int64)

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, name=features.IMAGE)], autograph=False
    )
    def serving_default(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Photo bytes, string [N], to what the model says about each photo, all [N].

        AGE, AGE_LOW and AGE_HIGH are float32, years; P_MINOR float32, 0 to 1; VALID bool; OBJECTION
        string, one of features.OBJECTIONS or empty; CHALLENGE bool: whether to ask for ID. It is
        false if the certificate lets the person pass, and there is no objection. Bytes that hold no
        JPEG or PNG, or one of too many pixels, are not valid, have no age (NaN) and the objection
        NO_PHOTO. They do not affect the other photos in the batch.
        """
        count = tf.size(image)
        # An empty batch becomes one invalid photo: oneDNN's convolutions fail on empty batches.
        given = tf.cond(count > 0, lambda: image, lambda: tf.constant([""]))
        photos, valid = tf.map_fn(
            self._readable,
            given,
            fn_output_signature=(tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.bool)),
        )
        transformed = self._transform({features.IMAGE: photos})
        seen = self._network(decode_squares(transformed[features.IMAGE], self._image_size))
        unlike = self._guard.distances(seen[POOLED]) > self._guard.limit
        objection = transformed[features.OBJECTION]
        objection = tf.where((objection == "") & unlike, features.UNLIKE_TRAINING, objection)
        objection = tf.where(valid, objection, features.NO_PHOTO)
        age, score = (tf.where(valid, seen[name][:, 0], np.nan) for name in (features.AGE, SCORE))
        outputs = {
            features.AGE: age,
            features.VALID: valid,
            features.OBJECTION: objection,
            **self._calibration.outputs(age, seen[SPREAD][:, 0], score),
        }
        passes = self._certificate.passes(age, outputs[features.P_MINOR])
        outputs[features.CHALLENGE] = ~passes | (objection != "")
        return {name: values[:count] for name, values in outputs.items()}

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, name="examples")], autograph=False
    )
    def examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Serialized raw examples, string [N], to the same outputs."""
        spec = {features.IMAGE: tf.io.FixedLenFeature([], tf.string)}
        return self.serving_default(tf.io.parse_example(examples, spec)[features.IMAGE])

    def _readable(self, photo: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The photo and true, or a blank photo and false if its bytes can't be decoded.

        TensorFlow's decoders fail on bad bytes, and the whole batch would fail with them. Only
        tf.data can go on after an error: it drops the photo, and a blank one comes next.
        It copies its function at each call. So the transform graph, which is large, stays outside
        and decodes the photo again.
        """
        options = without_autotune()
        # Otherwise tf.data would optimize this dataset again for each photo.
        options.experimental_optimization.apply_default_optimizations = False
        return (
            tf.data.Dataset.from_tensors(photo)
            .map(lambda photo: (photo, self._decodes(photo)))
            .ignore_errors()
            .concatenate(tf.data.Dataset.from_tensors((_blank(), False)))
            .take(1)
            .with_options(options)
            .get_single_element()
        )

    def _decodes(self, photo: tf.Tensor) -> tf.Tensor:
        """True; fails if the bytes are not a photo."""
        pixels = count_pixels(photo)
        work = pixels * count_scans(photo)
        small_enough = tf.debugging.assert_less_equal(pixels, self._max_pixels)
        quick_enough = tf.debugging.assert_less_equal(work, MAX_SCANS * self._max_pixels)
        with tf.control_dependencies([small_enough, quick_enough]):
            return tf.size(decode_photo(photo)) > 0


def _blank() -> tf.Tensor:
    """A black JPEG of one pixel, scalar string."""
    return tf.io.encode_jpeg(tf.zeros([1, 1, 3], tf.uint8))


def count_scans(photo: tf.Tensor) -> tf.Tensor:
    """How many times its pixels are decoded, int64 scalar: a progressive JPEG has several scans.

    A JPEG may have thousands, and each takes as long as a photo. Marker bytes behind the picture
    count too (a motion photo has a video there), so such a photo may be refused.

    Args:
        photo: its bytes, scalar string.
    """

    def jpeg() -> tf.Tensor:
        parts = tf.strings.split([photo], START_OF_SCAN).values
        return tf.maximum(tf.size(parts, tf.int64) - 1, 1)

    return tf.cond(tf.image.is_jpeg(photo), jpeg, lambda: tf.constant(1, tf.int64))


def count_pixels(photo: tf.Tensor) -> tf.Tensor:
    """How many pixels a JPEG or PNG says it has, int64 scalar, without decoding it.

    Args:
        photo: its bytes, scalar string. The op fails if they are neither.
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
    guard: Guard,
    calibration: Calibration,
    certificate: Certificate,
    confused: Confusion,
    transform_graph: str,
    folder: str | Path,
    *,
    image_size: int,
    max_pixels: int,
    max_batch_size: int,
) -> None:
    """Writes the SavedModel with its signatures `serving_default` and `examples`, and warm-up.

    Args:
        model: as `served` returns it.
        guard: fitted to the model's pooled features.
        calibration: fitted to the model's ages.
        certificate: says who passes without ID; an asset of the SavedModel.
        confused: how the model confuses ages; an asset too.
        transform_graph: folder of Transform's graph.
        folder: of the SavedModel.
        image_size: side of the network's input, pixels.
        max_pixels: photos with more are not valid.
        max_batch_size: the largest batch that a server makes; one of the warm-up's requests.
    """
    transform = tft.TFTransformOutput(transform_graph)
    with tempfile.TemporaryDirectory() as aside:
        assets = [Path(aside, name) for name in (certificates.FILE, confusion.FILE)]
        certificate.write(assets[0])
        confusion.write(confused, assets[1])
        servable = Servable(
            model, guard, calibration, certificate, assets, transform, image_size, max_pixels
        )
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
    """Writes the requests that a model server runs first, so that no customer waits for warm-up."""
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

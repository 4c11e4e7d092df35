"""The network, the weights it starts from, and the servable."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from components import certificate, confusion
from components.certificate import Certificate, Proof
from components.errors import UserError
from components.trainer import data, model
from components.trainer.calibration import Calibration
from components.trainer.guard import Guard
from components.trainer.heads import HEADS, LAYER, Head
from schemas import features
from tests.components.trainer import tiny
from tests.components.trainer.conftest import Transformed

MEAN_AGE = 31.5
AGES = np.array([21.5, 41.5])
DISTRIBUTION, REGRESSION = HEADS["distribution"], HEADS["regression"]
TOLERANCE = 0.05  # years
MAX_PIXELS = 600_000
MAX_BATCH_SIZE = 4
NO_GUARD = Guard(np.zeros(8, np.float32), np.eye(8, dtype=np.float32), np.inf)
LEGAL_AGE = 18
CALIBRATION = Calibration(half_width=1.5, slope=0.2, intercept=0.4)
CONFUSION = {(17, 25): 3, (30, 28): 1}
CERTIFICATE = Certificate(25.0, 0.1, True, LEGAL_AGE, (Proof(0, 17, 90, 1, 0.05, 0),))


def build(
    precision: str = "float32", initial_weights: str = "none", head: Head = DISTRIBUTION
) -> keras.Model:
    keras.utils.set_random_seed(0)
    return model.build(
        tiny.SIZE,
        initial_weights=initial_weights,
        head=head,
        ages=AGES,
        dropout=0.3,
        precision=precision,
    )


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return build()


def pictures(count: int) -> np.ndarray:
    shape = (count, tiny.SIZE, tiny.SIZE, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_shapes_and_types(network: keras.Model) -> None:
    assert network.input_shape == (None, tiny.SIZE, tiny.SIZE, 3)
    assert network.input.dtype == "uint8"
    probabilities = network(pictures(3))
    assert (probabilities.shape, probabilities.dtype) == ((3, 121), tf.float32)
    served = model.served(network, DISTRIBUTION, LEGAL_AGE)(pictures(3))
    assert {name: (values.shape, values.dtype) for name, values in served.items()} == {
        features.AGE: ((3, 1), tf.float32),
        model.SPREAD: ((3, 1), tf.float32),
        model.SCORE: ((3, 1), tf.float32),
        model.POOLED: ((3, 2048), tf.float32),
    }


def test_it_is_resnet50_with_a_head(network: keras.Model) -> None:
    trunk = network.get_layer(model.TRUNK).count_params()
    assert trunk == 23_587_712  # Keras' ResNet50 without its top
    assert network.count_params() == trunk + (2048 + 1) * 121


@pytest.mark.parametrize("head", HEADS.values())
def test_it_starts_at_the_mean_age(monkeypatch: pytest.MonkeyPatch, head: Head) -> None:
    monkeypatch.setattr(model, "_trunk", tiny.trunk)
    ages = head.age(build(head=head)(pictures(16), training=True)).numpy()
    assert ages == pytest.approx(MEAN_AGE, abs=4)
    assert ages.mean() == pytest.approx(MEAN_AGE, abs=1.5)


def test_pixels_are_prepared_as_for_imagenet(monkeypatch: pytest.MonkeyPatch) -> None:
    """BGR, less ImageNet's means: what ResNet50's weights were trained with."""

    def means(image_size: int, initial_weights: str) -> keras.Model:
        photo = keras.Input((image_size, image_size, 3))
        return keras.Model(photo, keras.layers.GlobalAveragePooling2D()(photo), name=model.TRUNK)

    monkeypatch.setattr(model, "_trunk", means)
    net = build()
    red = np.full((1, tiny.SIZE, tiny.SIZE, 3), (200, 20, 2), np.uint8)
    prepared = keras.Model(net.input, net.get_layer(LAYER).input)(red)[0]
    expected = [2 - 103.939, 20 - 116.779, 200 - 123.68]
    np.testing.assert_allclose(prepared, expected, atol=1e-3)


def test_batch_norm_forgets_quickly(network: keras.Model) -> None:
    norms = [
        layer
        for layer in network.get_layer(model.TRUNK).layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(norms) == 53
    assert {layer.momentum for layer in norms} == {0.9}


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_the_trunk_computes_in_its_precision(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """The weights, the output and Keras' global policy stay float32."""
    monkeypatch.setattr(model, "_trunk", tiny.trunk)
    net = build(precision)
    trunk = net.get_layer(model.TRUNK)
    assert {layer.compute_dtype for layer in trunk.layers[1:]} == {precision}
    assert trunk.output.dtype == precision
    assert {weight.dtype for weight in net.weights} == {"float32"}
    assert net(pictures(2)).dtype == tf.float32
    assert keras.config.dtype_policy().name == "float32"


def test_what_is_served_is_the_trained_network_in_float32(network: keras.Model) -> None:
    """Trained in bfloat16, with batch norms; served without them, in float32."""
    randomize_batch_norms(network.get_layer(model.TRUNK))
    net = build("bfloat16")
    net.set_weights(network.get_weights())
    expected = DISTRIBUTION.age(network(pictures(8))).numpy()
    assert np.std(expected) > 0.05  # otherwise the next line could not fail
    served = model.served(net, DISTRIBUTION, LEGAL_AGE)
    np.testing.assert_allclose(served(pictures(8))[features.AGE], expected, atol=0.01)
    layers = [*served.layers, *served.get_layer(model.TRUNK).layers]
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers)
    assert {layer.compute_dtype for layer in layers} <= {"float32", "uint8"}


@given(
    seed=st.integers(0, 2**32 - 1),
    use_bias=st.booleans(),
    kernel_size=st.sampled_from([1, 3]),
    strides=st.sampled_from([1, 2]),
    padding=st.sampled_from(["same", "valid"]),
)
@settings(deadline=None, max_examples=20)
def test_folding_changes_no_output(seed: int, use_bias: bool, **shape: Any) -> None:
    """A block like ResNet's: both branches of the sum have a convolution and a batch norm."""
    photo = keras.Input((9, 9, 3))
    branches = [
        keras.layers.BatchNormalization()(keras.layers.Conv2D(4, use_bias=use_bias, **shape)(photo))
        for _ in range(2)
    ]
    sum_ = keras.layers.Activation("relu")(keras.layers.Add()(branches))
    net = keras.Model(photo, keras.layers.Dense(2)(sum_))
    randomize_batch_norms(net, seed)
    folded = model.fold_batch_norms(net)
    assert not any(isinstance(x, keras.layers.BatchNormalization) for x in folded.layers)
    photos = np.random.default_rng(seed).normal(size=(3, 9, 9, 3)).astype(np.float32)
    np.testing.assert_allclose(folded(photos), net(photos), rtol=1e-4, atol=1e-4)


def test_a_batch_norm_that_cannot_be_folded_is_an_error() -> None:
    photo = keras.Input((9, 9, 3))
    active = keras.layers.Conv2D(4, 3, activation="relu")(photo)
    for before in (photo, active):
        net = keras.Model(photo, keras.layers.BatchNormalization(name="norm")(before))
        with pytest.raises(ValueError, match="norm does not follow a Conv2D"):
            model.fold_batch_norms(net)


def randomize_batch_norms(net: keras.Model, seed: int = 0) -> None:
    """Gives its batch norms scales, offsets and statistics that are not 0 and 1."""
    random = np.random.default_rng(seed)
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            size = layer.gamma.shape[0]
            gamma, variance = random.uniform(0.5, 1.5, (2, size))
            layer.set_weights([gamma, *random.normal(0, 0.1, (2, size)), variance])


@pytest.mark.slow
def test_a_weights_file_is_used(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    theirs = keras.applications.ResNet50(include_top=False, weights=None, pooling="avg")
    randomize_batch_norms(theirs)
    file = str(tmp_path / "trunk.weights.h5")
    theirs.save_weights(file)
    trunk = build("float32", file).get_layer(model.TRUNK)
    photos = pictures(8).astype(np.float32)
    expected = theirs(photos).numpy()
    assert np.std(expected, axis=0).max() > 0.1  # otherwise the next line could not fail
    np.testing.assert_allclose(trunk(photos), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def _truncated(file: Path) -> None:
    keras.applications.ResNet50(include_top=False, weights=None).save_weights(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _of_another_network(file: Path) -> None:
    tiny.trunk(tiny.SIZE, "none").save_weights(file)


def _text(file: Path) -> None:
    file.write_text("no\nweights\nat all\n")


def _nothing(file: Path) -> None:
    pass


@pytest.mark.parametrize("make", [_truncated, _of_another_network, _text, _nothing])
def test_an_unusable_weights_file_is_the_users_mistake(make: Any, tmp_path: Path) -> None:
    file = tmp_path / "bad.weights.h5"
    make(file)
    with pytest.raises(UserError, match=r"trainer\.initial_weights=") as caught:
        build(initial_weights=str(file))
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


class Exported(NamedTuple):
    """A network, and the servable that was exported from it."""

    network: keras.Model
    servable: Any
    folder: Path

    @property
    def meta_graph(self) -> MetaGraphDef:
        written = (self.folder / "saved_model.pb").read_bytes()
        return SavedModel.FromString(written).meta_graphs[0]


@pytest.fixture(scope="module")
def exported(transformed: Transformed, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A small network whose head amplifies small differences, and its SavedModel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "_trunk", tiny.trunk)
        network = build(head=REGRESSION)
    head = network.get_layer(LAYER)
    head.kernel.assign(np.random.default_rng(0).normal(0, 2, head.kernel.shape))
    pooled = keras.Model(network.input, head.input)
    images = next(iter(data.eval_batches(transformed.files(features.TRAIN), tiny.SIZE, 99)))[0]
    head.bias.assign(MEAN_AGE - (pooled(images).numpy() @ head.kernel.numpy()).mean(axis=0))
    return export(network, REGRESSION, transformed, tmp_path_factory.mktemp("exported") / "model")


def export(network: keras.Model, head: Head, transformed: Transformed, folder: Path) -> Exported:
    model.export(
        model.served(network, head, LEGAL_AGE),
        NO_GUARD,
        CALIBRATION,
        CERTIFICATE,
        CONFUSION,
        str(transformed.graph),
        folder,
        image_size=tiny.SIZE,
        max_pixels=MAX_PIXELS,
        max_batch_size=MAX_BATCH_SIZE,
    )
    return Exported(network, tf.saved_model.load(str(folder)), folder)


def test_signatures(exported: Exported) -> None:
    check_signatures(exported.servable)


def check_signatures(servable: Any) -> None:
    """The contract with the points of sale: names, types and shapes."""
    signatures = servable.signatures
    assert set(signatures) == {"serving_default", "examples"}
    for name, argument in (("serving_default", "image"), ("examples", "examples")):
        inputs = signatures[name].structured_input_signature[1]
        assert list(inputs) == [argument]
        assert (inputs[argument].dtype, inputs[argument].shape.as_list()) == (tf.string, [None])
        outputs = signatures[name].structured_outputs
        assert {key: (value.dtype, value.shape.as_list()) for key, value in outputs.items()} == {
            "age": (tf.float32, [None]),
            "age_low": (tf.float32, [None]),
            "age_high": (tf.float32, [None]),
            "p_minor": (tf.float32, [None]),
            "valid": (tf.bool, [None]),
            "objection": (tf.string, [None]),
            "challenge": (tf.bool, [None]),
        }


def test_no_layers_are_beside_the_weights(exported: Exported) -> None:
    nodes = exported.meta_graph.object_graph_def.nodes
    assert not [node for node in nodes if "keras" in node.user_object.identifier]


def test_no_dataset_is_rewritten_at_each_call(exported: Exported) -> None:
    functions = exported.meta_graph.graph_def.library.function
    operations = {node.op for function in functions for node in function.node_def}
    assert "DatasetToSingleElement" in operations
    assert "RewriteDataset" not in operations


def test_a_served_photo_has_the_age_of_its_transformed_example(
    exported: Exported, transformed: Transformed
) -> None:
    """One preprocessing, for photos of all sizes and aspects, by either signature."""
    network, servable, _ = exported
    trained: dict[str, float] = {}
    raw: dict[str, bytes] = {}
    for split in features.SPLITS:
        batches = data.eval_batches(transformed.files(split), tiny.SIZE, 5)
        ages = np.concatenate([network(images)[:, 0].numpy() for images, _ in batches])
        records = tiny.read(transformed.examples / f"Split-{split}")
        trained |= dict(zip((tiny.parse(r)[0] for r in records), ages, strict=True))
        records = tiny.read(transformed.raw / f"Split-{split}")
        raw |= {tiny.parse(record)[0]: record for record in records}
    assert trained.keys() == raw.keys()
    ids = sorted(raw)
    expected = [trained[photo_id] for photo_id in ids]
    assert np.std(expected) > 40 * TOLERANCE  # otherwise the next lines could not fail

    photos = tf.constant([tiny.parse(raw[photo_id])[1] for photo_id in ids])
    served = servable.signatures["serving_default"](image=photos)["age"].numpy()
    np.testing.assert_allclose(served, expected, atol=TOLERANCE)
    records = tf.constant([raw[photo_id] for photo_id in ids])
    of_examples = servable.signatures["examples"](examples=records)["age"].numpy()
    np.testing.assert_allclose(of_examples, served, atol=1e-4)


def test_a_photo_has_one_age_alone_and_among_others(
    exported: Exported, transformed: Transformed
) -> None:
    serve = exported.servable.signatures["serving_default"]
    raw = tiny.read(transformed.raw / f"Split-{features.EVAL}")
    photos = [tiny.parse(record)[1] for record in raw]
    together = serve(image=tf.constant(photos))["age"].numpy()
    alone = [serve(image=tf.constant([photo]))["age"].numpy()[0] for photo in photos]
    np.testing.assert_allclose(alone, together, atol=TOLERANCE)


def encoded(shape: tuple[int, int], format: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (shape[1], shape[0]), (200, 120, 90)).save(file, format)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """The start of a PNG that claims this size."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def scans(photo: bytes, extra: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    last = photo.rindex(model.START_OF_SCAN)
    return photo[:-2] + photo[last:-2] * extra + photo[-2:]


def progressive(shape: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    Image.fromarray(noise).save(file, "JPEG", progressive=True)
    return file.getvalue()


GOOD = tiny.photo((50, 40), 30, 1)
NOT_PHOTOS = {
    "empty": b"",
    "text": b"not a photo at all, but some words",
    "a truncated JPEG": GOOD[: len(GOOD) // 2],
    "a JPEG's first bytes": GOOD[:3],
    "a truncated PNG": encoded((50, 40), "PNG")[:60],
    "a PNG's signature": b"\x89PNG\r\n\x1a\n",
    "GIF": encoded((50, 40), "GIF"),
    "WebP": encoded((50, 40), "WEBP"),
    "BMP": encoded((50, 40), "BMP"),
    "50 MB": bytes(50_000_000),
    "50 MB after a JPEG's start": GOOD[:300] + bytes(50_000_000),
    "a JPEG of too many pixels": encoded((1000, 601), "JPEG"),
    "a PNG of too many pixels": encoded((1000, 601), "PNG"),
    "a PNG that claims a terabyte": png_header(600_000, 600_000),
    "a PNG of negative size": png_header(2**32 - 1, 5),
    "a JPEG of too many scans": scans(progressive((500, 600)), 12),
    "a small JPEG of a thousand scans": scans(progressive((100, 100)), 1000),
}
PHOTOS = {
    "a progressive JPEG of the most pixels": progressive((1000, 600)),
    "a small progressive JPEG of many scans": scans(progressive((50, 40)), 500),
    "a PNG with the bytes of many scans": encoded((50, 40), "PNG") + model.START_OF_SCAN * 90_000,
}


@pytest.mark.parametrize("name", PHOTOS)
def test_unusual_photos_are_read(exported: Exported, name: str) -> None:
    answer = exported.servable.signatures["serving_default"](image=tf.constant([PHOTOS[name]]))
    assert answer["valid"].numpy().all() and np.isfinite(answer["age"].numpy()).all()


def by_rule(answer: dict[str, tf.Tensor]) -> list[bool]:
    """Whether each photo is challenged by the certificate alone."""
    passes = CERTIFICATE.passes(answer["age"].numpy(), answer["p_minor"].numpy())
    challenged: list[bool] = (~passes).tolist()
    return challenged


def test_each_photo_has_the_interval_of_its_own_distribution(
    transformed: Transformed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "_trunk", tiny.trunk)
    network = build()
    network.get_layer(LAYER).kernel.assign(np.random.default_rng(0).normal(0, 0.1, (8, 121)))
    one = export(network, DISTRIBUTION, transformed, tmp_path / "model")
    raw = tiny.read(transformed.raw / f"Split-{features.TRAIN}")
    images = next(iter(data.eval_batches(transformed.files(features.TRAIN), tiny.SIZE, 99)))[0]
    spreads = np.sort(DISTRIBUTION.spread(network(images)).numpy()[:, 0])
    assert spreads[-1] - spreads[0] > 0.5  # otherwise the last line could not fail
    found = one.servable.signatures["examples"](examples=tf.constant(raw))
    age, low, high = (found[name].numpy() for name in ("age", "age_low", "age_high"))
    half = np.sort(np.maximum(high - age, age - low))  # one of the two ends may be cut off
    np.testing.assert_allclose(half, CALIBRATION.half_width * spreads, atol=0.1)


def test_the_outputs_are_those_of_the_calibration(
    exported: Exported, transformed: Transformed
) -> None:
    raw = tiny.read(transformed.raw / f"Split-{features.TRAIN}")
    answer = exported.servable.signatures["examples"](examples=tf.constant(raw))
    expected = CALIBRATION.outputs(
        answer["age"], tf.ones_like(answer["age"]), LEGAL_AGE - answer["age"]
    )
    for name in ("age_low", "age_high", "p_minor"):
        np.testing.assert_allclose(answer[name], expected[name], rtol=1e-6)
    challenged = answer["challenge"].numpy()
    assert challenged.tolist() == by_rule(answer)
    assert challenged.any() and not challenged.all()  # otherwise it could not fail


def test_the_certificate_travels_with_the_model(exported: Exported) -> None:
    assets = exported.folder / "assets"
    assert certificate.read(assets / "certificate.json") == CERTIFICATE
    assert confusion.read(assets / "confusion.csv") == CONFUSION


@pytest.mark.parametrize("photo", NOT_PHOTOS.values(), ids=list(NOT_PHOTOS))
def test_what_is_no_photo_is_marked_and_the_others_are_answered(
    exported: Exported, photo: bytes
) -> None:
    serve = exported.servable.signatures["serving_default"]
    others = [GOOD, encoded((1, 1), "JPEG"), encoded((30, 70), "PNG")]
    alone = serve(image=tf.constant(others))
    answer = serve(image=tf.constant([photo, *others, photo]))
    assert answer["valid"].numpy().tolist() == [False, True, True, True, False]
    assert np.isnan(answer["age"].numpy()[[0, -1]]).all()
    assert answer["objection"].numpy().tolist() == [b"no_photo", b"", b"", b"", b"no_photo"]
    assert answer["challenge"].numpy().tolist() == [True, *by_rule(alone), True]
    assert np.isnan(answer["p_minor"].numpy()[[0, -1]]).all()
    np.testing.assert_allclose(answer["age"][1:-1], alone["age"], atol=TOLERANCE)


def test_photos_up_to_the_limit_are_read(exported: Exported) -> None:
    serve = exported.servable.signatures["serving_default"]
    photos = [encoded((1000, 600), "JPEG"), encoded((1000, 600), "PNG")]
    assert serve(image=tf.constant(photos))["valid"].numpy().all()


@pytest.mark.parametrize("photos", [[], [b""]])
def test_a_batch_without_any_photo_is_answered(exported: Exported, photos: list[bytes]) -> None:
    answer = exported.servable.signatures["serving_default"](image=tf.constant(photos, tf.string))
    assert answer["age"].shape == len(photos)
    assert not answer["valid"].numpy().any()


@given(start=st.sampled_from([0, 20, 200, len(GOOD)]), rest=st.binary(max_size=2_000))
@settings(deadline=None, max_examples=150)
def test_any_bytes_are_answered(exported: Exported, start: int, rest: bytes) -> None:
    serve = exported.servable.signatures["serving_default"]
    answer = serve(image=tf.constant([GOOD[:start] + rest]))
    valid = answer["valid"].numpy().tolist()
    assert (
        valid == np.isfinite(answer["age"]).tolist() == (answer["objection"] == "").numpy().tolist()
    )
    assert answer["challenge"].numpy().tolist() == by_rule(answer)


def test_the_warm_up_has_the_smallest_and_the_largest_batch(exported: Exported) -> None:
    file = exported.folder / "assets.extra" / "tf_serving_warmup_requests"
    logs = [
        PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(file))
    ]
    requests = [log.predict_log.request for log in logs]
    assert {request.model_spec.signature_name for request in requests} == {"serving_default"}
    photos = [tf.make_ndarray(request.inputs["image"]) for request in requests]
    assert [len(batch) for batch in photos] == [1, MAX_BATCH_SIZE]
    serve = exported.servable.signatures["serving_default"]
    assert serve(image=tf.constant(photos[1].tolist()))["valid"].numpy().all()

"""The network, the weights it starts from, and the servable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.errors import UserError
from components.trainer import data, model
from schemas import features
from tests.components.trainer import tiny
from tests.components.trainer.conftest import Transformed

MEAN_AGE = 31.5
TOLERANCE = 0.05  # years, of DESIGN.md


def build(precision: str = "float32", initial_weights: str = "none") -> keras.Model:
    keras.utils.set_random_seed(0)
    return model.build(
        tiny.SIZE,
        initial_weights=initial_weights,
        mean_age=MEAN_AGE,
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
    ages = network(pictures(3))
    assert (ages.shape, ages.dtype) == ((3, 1), tf.float32)


def test_it_is_resnet50_with_one_output(network: keras.Model) -> None:
    trunk = network.get_layer(model.TRUNK).count_params()
    assert trunk == 23_587_712  # Keras' ResNet50 without its top
    assert network.count_params() == trunk + 2048 + 1


def test_it_starts_at_the_mean_age(network: keras.Model) -> None:
    ages = network(pictures(16), training=True).numpy()
    assert ages == pytest.approx(MEAN_AGE, abs=4)
    assert ages.mean() == pytest.approx(MEAN_AGE, abs=1.5)


def test_ages_are_never_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_trunk", tiny.trunk)
    net = build()
    net.get_layer(features.AGE).bias.assign([-1000.0])
    assert (net(pictures(4)).numpy() == 0).all()


def test_pixels_are_prepared_as_for_imagenet(monkeypatch: pytest.MonkeyPatch) -> None:
    """BGR, less ImageNet's means: what ResNet50's weights were trained with."""

    def means(image_size: int, initial_weights: str) -> keras.Model:
        photo = keras.Input((image_size, image_size, 3))
        return keras.Model(photo, keras.layers.GlobalAveragePooling2D()(photo), name=model.TRUNK)

    monkeypatch.setattr(model, "_trunk", means)
    net = build()
    red = np.full((1, tiny.SIZE, tiny.SIZE, 3), (200, 20, 2), np.uint8)
    prepared = keras.Model(net.input, net.get_layer(features.AGE).input)(red)[0]
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


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_narrow_trunk_keeps_wide_weights_and_output(precision: str) -> None:
    net = build(precision)
    trunk = net.get_layer(model.TRUNK)
    assert trunk.output.dtype == precision
    assert {weight.dtype for weight in net.weights} == {"float32"}
    assert net(pictures(2)).dtype == tf.float32
    assert keras.config.dtype_policy().name == "float32"  # as it was before


def test_a_weights_file_is_used(network: keras.Model, tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    trained = keras.applications.ResNet50(include_top=False, weights=None)
    file = tmp_path / "trunk.weights.h5"
    trained.save_weights(file)
    loaded = build(initial_weights=str(file)).get_layer(model.TRUNK).get_weights()
    for ours, theirs in zip(loaded, trained.get_weights(), strict=True):
        assert np.array_equal(ours, theirs)
    unlike = network.get_layer(model.TRUNK).get_weights()[0]
    assert not np.array_equal(loaded[0], unlike)


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
    assert keras.config.dtype_policy().name == "float32"


@pytest.fixture(scope="module")
def exported(
    network: keras.Model, transformed: Transformed, tmp_path_factory: pytest.TempPathFactory
) -> tuple[keras.Model, Any]:
    """The network, with a head that makes much of small differences, and its SavedModel."""
    head = network.get_layer(features.AGE)
    head.kernel.assign(np.random.default_rng(0).normal(0, 2, (2048, 1)))
    pooled = keras.Model(network.input, head.input)
    images = next(iter(data.eval_batches(transformed.files(features.TRAIN), tiny.SIZE, 99)))[0]
    head.bias.assign(MEAN_AGE - (pooled(images).numpy() @ head.kernel.numpy()).mean(axis=0))
    folder = tmp_path_factory.mktemp("exported") / "model"
    model.export(network, str(transformed.graph), tiny.SIZE, folder)
    return network, tf.saved_model.load(str(folder))


def test_signatures(exported: tuple[keras.Model, Any]) -> None:
    signatures = exported[1].signatures
    assert set(signatures) == {"serving_default", "examples"}
    for name, argument in (("serving_default", "image"), ("examples", "examples")):
        inputs = signatures[name].structured_input_signature[1]
        assert list(inputs) == [argument]
        assert (inputs[argument].dtype, inputs[argument].shape.as_list()) == (tf.string, [None])
        (age,) = signatures[name].structured_outputs.items()
        assert age[0] == "age"
        assert (age[1].dtype, age[1].shape.as_list()) == (tf.float32, [None])


def test_a_served_photo_has_the_age_of_its_transformed_example(
    exported: tuple[keras.Model, Any], transformed: Transformed
) -> None:
    """One preprocessing, for photos of all sizes and aspects, by either signature."""
    network, servable = exported
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
    assert np.std(expected) > 40 * TOLERANCE  # or the next lines would show nothing

    photos = tf.constant([tiny.parse(raw[photo_id])[1] for photo_id in ids])
    served = servable.signatures["serving_default"](image=photos)["age"].numpy()
    np.testing.assert_allclose(served, expected, atol=TOLERANCE)
    records = tf.constant([raw[photo_id] for photo_id in ids])
    of_examples = servable.signatures["examples"](examples=records)["age"].numpy()
    np.testing.assert_allclose(of_examples, served, atol=1e-4)


def test_a_photo_has_one_age_alone_and_among_others(
    exported: tuple[keras.Model, Any], transformed: Transformed
) -> None:
    serve = exported[1].signatures["serving_default"]
    raw = tiny.read(transformed.raw / f"Split-{features.EVAL}")
    photos = [tiny.parse(record)[1] for record in raw]
    together = serve(image=tf.constant(photos))["age"].numpy()
    alone = [serve(image=tf.constant([photo]))["age"].numpy()[0] for photo in photos]
    np.testing.assert_allclose(alone, together, atol=TOLERANCE)

"""A model that a server can't serve is not blessed, and the artifact says why."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf
from tfx.types.standard_artifacts import Examples, InfraBlessing, Model

from components.serving_check import ServingCheck
from schemas import features
from tests.components.trainer import tiny

MAX_BATCH_SIZE = 6


class Servable(tf.Module):
    """The age is the photo's length in kB. A very short photo is not valid."""

    signature = "serving_default"

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def serve(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        valid = tf.strings.length(image) > 200
        kilobytes = tf.cast(tf.strings.length(image), tf.float32) / 1000
        return {"age": tf.where(valid, kilobytes, float("nan")), "valid": valid}


class RandomAges(Servable):
    """Gives another age each time."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def serve(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        answer = super().serve(image)
        return answer | {"age": answer["age"] + tf.random.uniform([], 1, 90)}


class Failing(Servable):
    """A broken photo fails the whole batch."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def serve(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        answer = super().serve(image)
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(answer["valid"]), [0])]):
            return answer | {"age": tf.identity(answer["age"])}


class AcceptsEverything(Servable):
    """Says that everything is a valid photo."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def serve(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        answer = super().serve(image)
        return {"age": tf.zeros_like(answer["age"]), "valid": tf.ones_like(answer["valid"])}


class NoValidOutput(Servable):
    """Does not say which photos are valid."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def serve(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"age": super().serve(image)["age"]}


class NoAge(Servable):
    """Says only which photos are valid."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def serve(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"valid": super().serve(image)["valid"]}


class NoDefaultSignature(Servable):
    """Has only a signature that no client asks for."""

    signature = "other"


def checked(folder: Path, servable: Servable, photos: int = 4) -> tuple[int, str]:
    """The blessing and its reason for a model and a test split of this many photos."""
    model, examples, blessing = Model(), Examples(), InfraBlessing()
    model.uri, examples.uri = str(folder / "model"), str(folder / "examples")
    examples.split_names = '["test"]'
    records = [tiny.example(tiny.photo((50, 40), i, i), i, f"{i}") for i in range(photos)]
    tiny.write(folder / "examples" / f"Split-{features.TEST}" / "data.gz", records)
    target = str(folder / "model" / "Format-Serving")
    tf.saved_model.save(servable, target, signatures={servable.signature: servable.serve})
    if isinstance(servable, Broken):
        Path(target, "saved_model.pb").write_bytes(b"no graph")
    ServingCheck.EXECUTOR_SPEC.executor_class().Do(
        {"model": [model], "examples": [examples]},
        {"blessing": [blessing]},
        {"max_batch_size": MAX_BATCH_SIZE},
    )
    reason = blessing.get_string_custom_property("reason")
    return blessing.get_int_custom_property("blessed"), reason


class Broken(Servable):
    """Its files are not those of a model."""


def test_a_servable_model_is_blessed(tmp_path: Path) -> None:
    assert checked(tmp_path, Servable()) == (1, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("servable", "why"),
    [
        (Broken, "the model server ended: "),
        (RandomAges, "years off the model's own"),
        (Failing, f"{MAX_BATCH_SIZE} photos: INVALID_ARGUMENT: "),
        (AcceptsEverything, "one of them broken"),
        (NoValidOutput, "it has no output valid"),
        (NoAge, "it has no age"),
        (NoDefaultSignature, "it has no serving_default"),
    ],
)
def test_what_can_not_be_served_is_not(servable: type[Servable], why: str, tmp_path: Path) -> None:
    blessed, reason = checked(tmp_path, servable())
    assert not blessed
    assert why in reason
    assert "\n" not in reason

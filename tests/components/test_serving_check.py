"""A model that a server can't serve is not blessed, and the artifact says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tensorflow as tf
from tfx.types.standard_artifacts import Examples, InfraBlessing, Model

from components import no_faces
from components.gate import REASON
from components.serving_check import DRAWN, REFUSED, ServingCheck
from schemas import features
from tests.components.trainer import tiny

MAX_BATCH_SIZE = 6
SHAPE = (50, 40)  # of the test photos


class Servable(tf.Module):
    """Takes pictures with the shape of the test photos for faces.

    The age is the photo's length in kB. A very short photo is not valid.
    """

    signature = "serving_default"

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def serve(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        valid = tf.strings.length(image) > 200
        kilobytes = tf.cast(tf.strings.length(image), tf.float32) / 1000
        shapes = tf.map_fn(
            tf.image.extract_jpeg_shape, tf.where(valid, image, tiny.photo(SHAPE, 0, 0)), tf.int32
        )
        face = tf.reduce_all(shapes[:, :2] == SHAPE, -1)
        objection = tf.where(valid, tf.where(face, "", "no_face"), "no_photo")
        return {
            "age": tf.where(valid, kilobytes, float("nan")),
            "valid": valid,
            "objection": objection,
            "challenge": objection != "",
            **dict.fromkeys(("age_low", "age_high", "p_minor"), tf.where(valid, 0.5, float("nan"))),
        }


class Changed(Servable):
    """A Servable whose answer is changed."""

    def change(self, answer: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The changed answer."""
        raise NotImplementedError

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def serve(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        return self.change(super().serve(image))


class RandomAges(Changed):
    """Gives another age each time."""

    def change(self, answer: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return answer | {"age": answer["age"] + tf.random.uniform([], 1, 90)}


class Failing(Changed):
    """A broken photo fails the whole batch."""

    def change(self, answer: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(answer["valid"]), [0])]):
            return answer | {"age": tf.identity(answer["age"])}


class AcceptsBroken(Changed):
    """Says that everything is a valid photo."""

    def change(self, answer: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return answer | {"valid": tf.ones_like(answer["valid"])}


class RefusesPhotos(Changed):
    """Says that nothing is a valid photo."""

    def change(self, answer: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return answer | {"valid": tf.zeros_like(answer["valid"])}


class HidesAges(Changed):
    """Gives no age for a valid photo."""

    def change(self, answer: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return answer | {"age": answer["age"] * float("nan")}


class NoPhotoWithoutName(Changed):
    """Says `no_face` of a broken photo."""

    def change(self, answer: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        renamed = tf.where(answer["valid"], answer["objection"], "no_face")
        return answer | {"objection": renamed}


class NeverChallenges(Changed):
    """Has objections, but does not ask for ID."""

    def change(self, answer: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return answer | {"challenge": tf.zeros_like(answer["valid"])}


class NoObjection(Changed):
    """Takes each picture for a face."""

    def change(self, answer: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        objection = tf.where(answer["valid"], "", "no_photo")
        return answer | {"objection": objection, "challenge": objection != ""}


class NoOutputObjection(Changed):
    """A model from before there were objections."""

    def change(self, answer: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"age": answer["age"], "valid": answer["valid"]}


class NumberedObjections(Changed):
    """Says a number instead of the objection's name."""

    def change(self, answer: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return answer | {"objection": tf.zeros_like(answer["age"])}


class NoDefaultSignature(Servable):
    """Has only a signature that no client asks for."""

    signature = "other"


class OtherInput(Servable):
    """Its input has another name."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="picture")])
    def serve(self, picture: tf.Tensor) -> dict[str, tf.Tensor]:
        return super().serve(picture)


class Broken(Servable):
    """Its files are not those of a model."""


def checked(
    folder: Path, servable: Servable, photos: int = 4, face: str = "find"
) -> tuple[int, str, dict[str, list[int]]]:
    """The blessing, its reason and what was refused, for a test split of this many photos."""
    model, examples, blessing = Model(), Examples(), InfraBlessing()
    model.uri, examples.uri = str(folder / "model"), str(folder / "examples")
    examples.split_names = '["test"]'
    records = [tiny.example(tiny.photo(SHAPE, i, i), i, f"{i}") for i in range(photos)]
    tiny.write(folder / "examples" / f"Split-{features.TEST}" / "data.gz", records)
    target = str(folder / "model" / "Format-Serving")
    tf.saved_model.save(servable, target, signatures={servable.signature: servable.serve})
    if isinstance(servable, Broken):
        Path(target, "saved_model.pb").write_bytes(b"no graph")
    ServingCheck.EXECUTOR_SPEC.executor_class().Do(
        {"model": [model], "examples": [examples]},
        {"blessing": [blessing]},
        {"max_batch_size": MAX_BATCH_SIZE, "face": face},
    )
    return (
        blessing.get_int_custom_property("blessed"),
        blessing.get_string_custom_property(REASON),
        json.loads(blessing.get_string_custom_property(REFUSED) or "{}"),
    )


def test_a_servable_model_is_blessed(tmp_path: Path) -> None:
    blessed, reason, refused = checked(tmp_path, Servable())
    assert (blessed, reason) == (1, "")
    assert all(refused[kind] == [DRAWN, DRAWN] for kind in no_faces.DRAWN)
    assert refused["upside down"] == [0, 4]  # reported only
    assert refused["half a face"] == [4, 4]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("face", "missed"),
    [
        ("find", "8 of 8 noise, 8 of 8 flat colour, 8 of 8 gradients, 8 of 8 text"),
        ("as_is", "8 of 8 noise, 8 of 8 flat colour"),
    ],
)
def test_a_model_that_takes_noise_for_a_face_is_not(face: str, missed: str, tmp_path: Path) -> None:
    blessed, reason, refused = checked(tmp_path, NoObjection(), face=face)
    assert not blessed
    assert reason == f"it has no objection to pictures that are no faces: {missed}"
    assert refused["shelves"] == [0, DRAWN]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("servable", "why"),
    [
        (Broken, "the model server ended: "),
        (RandomAges, "years off the model's own"),
        (Failing, f"{MAX_BATCH_SIZE} photos: INVALID_ARGUMENT: "),
        (AcceptsBroken, "one of them broken"),
        (RefusesPhotos, f"it gives no age for {MAX_BATCH_SIZE} of {MAX_BATCH_SIZE} good photos"),
        (HidesAges, f"it gives no age for {MAX_BATCH_SIZE} of {MAX_BATCH_SIZE} good photos"),
        (NoPhotoWithoutName, "the server's objection to a photo is 'no_face', not 'no_photo'"),
        (NeverChallenges, f"1 of {MAX_BATCH_SIZE} photos are invalid or have an objection"),
        (NoOutputObjection, "it has no output objection"),
        (NumberedObjections, "its output objection is float32, not string"),
        (NoDefaultSignature, "it has no serving_default"),
        (OtherInput, "its input is picture, not image"),
    ],
)
def test_what_can_not_be_served_is_not(servable: type[Servable], why: str, tmp_path: Path) -> None:
    blessed, reason, refused = checked(tmp_path, servable())
    assert not blessed
    assert why in reason
    assert "\n" not in reason
    assert not refused

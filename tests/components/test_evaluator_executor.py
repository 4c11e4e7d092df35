"""The Evaluator's own executor, with two models and their photos."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.types import channel_utils, standard_artifacts
from tfx.utils import io_utils

from components import certificate, predictions
from components.beam_jobs import ARGUMENTS
from components.certificate import Certificate
from components.errors import UserError
from components.evaluator import Evaluator, Executor, eval_config
from components.gate import COMPARISON
from components.served_model import VERSION
from pipeline import config
from pipeline.config import Guard
from schemas import features
from tests.components.trainer import tiny

PHOTOS = 300
RANDOM = np.random.default_rng(0)
AGES = RANDOM.uniform(8, 60, PHOTOS)
LIVE = AGES + RANDOM.normal(0, 6, PHOTOS)
BETTER = AGES + (LIVE - AGES) / 2
COLUMNS = {"store": 6, "till": 5}  # extra columns, and how many photos have the same value
GATE = config.Evaluator()
UNSAFE = np.where((AGES < 18) & (np.arange(PHOTOS) % 3 == 0), 31.0, BETTER)


class Told(tf.Module):
    """A model that reads its estimate from the photo: the first one or the second."""

    def __init__(self, at: int, challenge_age: float):
        super().__init__()
        self._at = at
        self._challenge_age = challenge_age

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = {features.IMAGE: tf.io.FixedLenFeature([], tf.string)}
        image = tf.io.parse_example(examples, spec)[features.IMAGE]
        said = tf.strings.split(image, "|").to_tensor()[:, self._at]
        age = tf.strings.to_number(said)
        return {
            features.AGE: age,
            features.VALID: tf.ones_like(age, tf.bool),
            features.OBJECTION: tf.fill(tf.shape(age), ""),
            features.CHALLENGE: age < self._challenge_age,
        }


def artifact(kind: type[Any], folder: Path, **properties: Any) -> Any:
    made = kind()
    made.uri = str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in properties.items():
        made.set_int_custom_property(name, value)
    return made


def saved(folder: Path, at: int) -> Any:
    """A trained model at the challenge age 30, with a certificate that promises nothing."""
    told, served = Told(at, 30.0), folder / "Format-Serving"
    tf.saved_model.save(told, str(served), signatures={"examples": told.examples})
    file = served / "assets" / certificate.FILE
    file.parent.mkdir(exist_ok=True)
    Certificate(30.0, None, False, 18, ()).write(file)
    return artifact(standard_artifacts.Model, folder, **{VERSION: 1})


def with_columns(example: bytes, number: int) -> bytes:
    """The example of a photo with the extra columns."""
    changed = tf.train.Example.FromString(example)
    for name, every in COLUMNS.items():
        text = f"{name} {number // every}"
        changed.features.feature[name].bytes_list.value.append(text.encode())
    return changed.SerializeToString()


def evaluated(
    folder: Path, candidate: np.ndarray, gate: config.Evaluator = GATE
) -> tuple[bool, dict[str, Any]]:
    """Whether the candidate is blessed, and how it compares with the model LIVE."""
    examples = artifact(standard_artifacts.Examples, folder / "examples")
    examples.split_names = json.dumps([features.TEST])
    values = {name: PHOTOS // every for name, every in COLUMNS.items()}
    examples.set_string_custom_property("extra_values", json.dumps(values))
    tiny.write(
        folder / "examples" / f"Split-{features.TEST}" / "data.gz",
        (
            with_columns(tiny.example(f"{one}|{other}".encode(), age, str(number)), number)
            for number, (one, other, age) in enumerate(zip(candidate, LIVE, AGES, strict=True))
        ),
    )
    schema = artifact(standard_artifacts.Schema, folder / "schema")
    texts = (features.IMAGE, features.FILE_NAME, features.PHOTO_ID, *COLUMNS)
    known = schema_pb2.Schema(
        feature=[schema_pb2.Feature(name=name, type=schema_pb2.BYTES) for name in texts]
    )
    known.feature.add(name=features.AGE, type=schema_pb2.FLOAT)
    io_utils.write_pbtxt_file(str(folder / "schema" / "schema.pbtxt"), known)
    inputs = {
        "examples": examples,
        "model": saved(folder / "model", 0),
        "baseline_model": saved(folder / "live", 1),
        "schema": schema,
    }
    wired = {name: channel_utils.as_channel([one]) for name, one in inputs.items()}
    step = Evaluator(**wired, eval_config=eval_config(gate, Guard(), 18))
    outputs = {
        "evaluation": artifact(standard_artifacts.ModelEvaluation, folder / "evaluation"),
        "blessing": artifact(standard_artifacts.ModelBlessing, folder / "blessing"),
    }
    context = BaseBeamExecutor.Context(
        beam_pipeline_args=ARGUMENTS, tmp_dir=str(folder / "tmp"), unique_id="1"
    )
    Executor(context).Do(
        {name: [one] for name, one in inputs.items()},
        {name: [one] for name, one in outputs.items()},
        step.exec_properties,
    )
    compared = json.loads(outputs["evaluation"].get_string_custom_property(COMPARISON))
    files = {file.name for file in (folder / "blessing").iterdir()}
    blessed = outputs["blessing"].get_int_custom_property("blessed") == 1
    assert files == ({"BLESSED"} if blessed else {"NOT_BLESSED"})
    return blessed, compared


@pytest.mark.parametrize(("candidate", "passes"), [(BETTER, True), (UNSAFE, False)])
def test_a_better_mae_does_not_make_up_for_minors_who_pass(
    tmp_path: Path, candidate: np.ndarray, passes: bool
) -> None:
    blessed, compared = evaluated(tmp_path, candidate)
    columns = pq.read_schema(tmp_path / "evaluation" / predictions.FILE).names
    assert {*columns} - features.OUR_NAMES == {"store"}  # so no column of the CSV can collide
    assert compared["mae"]["difference"] < -0.5
    assert (compared["minors"]["lower"] > 0) is not passes
    assert blessed is passes


def sliced(folder: Path) -> dict[str, int]:
    """The number of slices of each column, in TFMA's result and in the rows of the photos."""
    result = tfma.load_eval_result(str(folder / "evaluation"))
    found = Counter(column for key in result.get_slice_names() for column, _ in key)
    rows = pq.read_table(folder / "evaluation" / predictions.FILE).to_pandas()
    for column, values in found.items():
        assert rows[column].nunique() == values
    assert set(rows) & set(COLUMNS) == set(found)
    return found


@pytest.mark.parametrize(
    ("chosen", "found"),
    [((), {"store": 50}), (("till", "till"), {"till": 60})],
)
def test_slices_are_of_few_values_or_chosen(
    tmp_path: Path, chosen: tuple[str, ...], found: dict[str, int]
) -> None:
    evaluated(tmp_path, BETTER, config.Evaluator(slice_columns=chosen))
    assert sliced(tmp_path) == found


def test_a_column_that_the_photos_do_not_have(tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        evaluated(tmp_path, BETTER, config.Evaluator(slice_columns=("store", "gender")))
    assert str(raised.value) == (
        "evaluator.slice_columns: the photos' table has no extra column gender; choose from those "
        "that it has: store, till"
    )

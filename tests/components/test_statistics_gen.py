"""The statistics take the types of the curated schema, whatever the values look like."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.components import SchemaGen
from tfx.components.util import examples_utils
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.proto import example_gen_pb2
from tfx.types import Artifact, BaseChannel, artifact_utils, channel_utils, standard_artifacts

from components.beam_jobs import ARGUMENTS
from components.curated_schema import CuratedSchema
from components.example_validator import ExampleValidator
from components.statistics_gen import statistics_gen
from schemas import features
from tests.components.trainer import tiny
from tests.conftest import ROOT

PHOTOS = 120  # TFDV guesses a domain from a hundred values on
# Columns of a user: what each value looks like, by the number of the photo.
LOOKS: dict[str, Callable[[int], str]] = {
    "day": lambda i: f"2024-{i % 12 + 1:02}-{i % 28 + 1:02}",
    "hour": lambda i: f"{i % 24:02}:{i % 60:02}:00",
    "seconds": lambda i: str(1_500_000_000 + 86_400 * i),
    "phone": lambda i: f"+49 30 {1_000_000 + 137 * i}",
    "note": lambda i: f"Person number {i} stands at the till, and looks into the camera.",
}


def records() -> Iterator[bytes]:
    """Raw examples, also with a date as the name of each file."""
    for i in range(PHOTOS):
        texts = {
            features.IMAGE: tiny.photo((32, 32), i % 80, i),
            features.AGE_BAND: features.age_band(i % 80).encode(),
            features.FILE_NAME: LOOKS["day"](i).encode(),
            features.PHOTO_ID: f"{i:064x}".encode(),
            features.FORMAT: b"JPEG",
            features.MODE: b"RGB",
            **{name: look(i).encode() for name, look in LOOKS.items()},
        }
        numbers = {
            features.AGE: i % 80, features.SQUARENESS: 1, features.BRIGHTNESS: 0.5,
            features.SHARPNESS: 100,
        }  # fmt: skip
        example = tf.train.Example()
        values = example.features.feature
        for name, text in texts.items():
            values[name].bytes_list.value.append(text)
        for name, number in numbers.items():
            values[name].float_list.value.append(number)
        for name in (features.WIDTH, features.HEIGHT):
            values[name].int64_list.value.append(32)
        yield example.SerializeToString()


def done(step: BaseComponent, output: Artifact, **inputs: Artifact) -> None:
    """Runs the executor of a step that has one output."""
    (key,) = step.outputs
    executor_class = step.executor_spec.executor_class
    context = BaseBeamExecutor.Context(
        beam_pipeline_args=ARGUMENTS, tmp_dir=f"{output.uri}-tmp", unique_id="1"
    )
    beam = issubclass(executor_class, BaseBeamExecutor)
    executor = executor_class(context) if beam else executor_class()
    executor.Do(
        {name: [one] for name, one in inputs.items()}, {key: [output]}, step.exec_properties
    )


def test_values_that_look_like_dates_phone_numbers_or_sentences(tmp_path: Path) -> None:
    def artifact(kind: type[Any], name: str) -> Any:
        made = kind()
        made.uri = str(tmp_path / name)
        Path(made.uri).mkdir()
        return made

    def wired(one: Artifact) -> BaseChannel:
        return channel_utils.as_channel([one])

    examples = artifact(standard_artifacts.Examples, "examples")
    examples.split_names = artifact_utils.encode_split_names([features.TRAIN])
    examples.set_string_custom_property("extra_columns", json.dumps(list(LOOKS)))
    examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)
    examples_utils.set_file_format(examples, "tfrecords_gzip")
    tiny.write(tmp_path / "examples" / f"Split-{features.TRAIN}" / "data.gz", records())

    curated = (ROOT / "schemas" / "curated.pbtxt").read_text()
    schema = artifact(standard_artifacts.Schema, "schema")
    done(CuratedSchema(examples=wired(examples), curated=curated), schema, examples=examples)
    statistics = artifact(standard_artifacts.ExampleStatistics, "statistics")
    step = statistics_gen(wired(examples), wired(schema))
    done(step, statistics, examples=examples, schema=schema)
    validator = ExampleValidator(statistics=wired(statistics), schema=wired(schema))
    anomalies = artifact(standard_artifacts.ExampleAnomalies, "anomalies")
    done(validator, anomalies, statistics=statistics, schema=schema)

    inferred = artifact(standard_artifacts.Schema, "inferred")
    done(SchemaGen(statistics=wired(statistics)), inferred, statistics=statistics)
    found = tfdv.load_schema_text(f"{inferred.uri}/schema.pbtxt")
    types = {feature.name: feature.type for feature in found.feature}
    assert {types[name] for name in (features.FILE_NAME, *LOOKS)} == {schema_pb2.BYTES}

"""An anomaly stops the run; one line names the feature and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import (
    ExampleAnomalies,
    Examples,
    ExampleStatistics,
    Schema,
)

from components.curated_schema import CuratedSchema, extra_columns
from components.errors import UserError
from components.example_validator import Executor
from schemas import features
from tests.conftest import ROOT

CURATED = (ROOT / "schemas" / "curated.pbtxt").read_text()


def curated_schema(tmp_path: Path, columns: str = "[]") -> Schema:
    """The artifact of the CuratedSchema step."""
    examples, schema = Examples(), Schema()
    schema.uri = str(tmp_path / "schema")
    Path(schema.uri).mkdir()
    examples.set_string_custom_property("extra_columns", columns)
    executor = CuratedSchema.EXECUTOR_SPEC.executor_class()
    executor.Do({"examples": [examples]}, {"schema": [schema]}, {"curated": CURATED})
    return schema


def statistics(**changes: str) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Statistics of ten examples with every raw feature.

    Args:
        changes: a feature's statistics as text proto; empty: the examples do not have the feature.
    """
    common = "common_stats { num_non_missing: 10 min_num_values: 1 max_num_values: 1 }"
    number = f"num_stats {{ {common} min: 0.5 max: 0.5 }}"
    text = f"string_stats {{ {common} unique: 5 }}"
    kinds = {"image": f"type: BYTES bytes_stats {{ {common} }}"}
    kinds |= dict.fromkeys(("file_name", "photo_id", "format", "mode"), f"type: STRING {text}")
    band = text.replace("unique: 5", 'rank_histogram { buckets { label: "65+" sample_count: 10 } }')
    kinds["age_band"] = f"type: STRING {band}"
    kinds |= dict.fromkeys(
        ("age", "squareness", "brightness", "sharpness"), f"type: FLOAT {number}"
    )
    kinds |= dict.fromkeys(("width", "height"), f"type: INT num_stats {{ {common} min: 9 max: 9 }}")
    assert kinds.keys() == set(features.RAW_FEATURES)
    kinds |= {name: kind.replace("COMMON", common) for name, kind in changes.items()}
    stated = "".join(f'features {{ path {{ step: "{n}" }} {k} }}' for n, k in kinds.items() if k)
    return text_format.Parse(
        f"datasets {{ num_examples: 10 {stated} }}", statistics_pb2.DatasetFeatureStatisticsList()
    )


def validate(
    tmp_path: Path, stats: statistics_pb2.DatasetFeatureStatisticsList, columns: str = "[]"
) -> None:
    """Runs the step's executor on sound statistics of `train`, and on these of `eval`."""
    given, anomalies = ExampleStatistics(), ExampleAnomalies()
    given.uri, anomalies.uri = str(tmp_path / "statistics"), str(tmp_path / "anomalies")
    given.split_names = artifact_utils.encode_split_names(["train", "eval"])
    for split, found in (("train", statistics()), ("eval", stats)):
        folder = tmp_path / "statistics" / f"Split-{split}"
        folder.mkdir(parents=True)
        (folder / "FeatureStats.pb").write_bytes(found.SerializeToString())
    schema = curated_schema(tmp_path, columns)
    Executor().Do({"statistics": [given], "schema": [schema]}, {"anomalies": [anomalies]}, {})


def test_statistics_that_fit_the_schema_pass(tmp_path: Path) -> None:
    validate(tmp_path, statistics())
    assert (tmp_path / "anomalies" / "Split-eval" / "SchemaDiff.pb").exists()


@pytest.mark.parametrize(
    ("name", "stats"),
    [
        ("age", "type: FLOAT num_stats { COMMON min: -1 max: 30 }"),
        ("age", "type: FLOAT num_stats { COMMON min: 3 max: 130 }"),
        ("width", "type: INT num_stats { COMMON min: 0 max: 30 }"),
        ("brightness", "type: FLOAT num_stats { COMMON min: 0 max: 255 }"),
        ("age", ""),
        (
            "age_band",
            "type: STRING string_stats { COMMON rank_histogram { buckets { label: 'old' } } }",
        ),
        ("store", "type: STRING string_stats { COMMON unique: 2 }"),
    ],
)
def test_an_anomaly_stops_the_run(name: str, stats: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        validate(tmp_path, statistics(**{name: stats}))
    assert str(raised.value).startswith("the eval split differs from schemas/curated.pbtxt: ")
    assert f"{name}: " in str(raised.value)
    assert "\n" not in str(raised.value)


def test_extra_columns_pass(tmp_path: Path) -> None:
    store = "type: STRING string_stats { COMMON unique: 2 }"
    validate(tmp_path, statistics(store=store), columns='["store"]')


def test_extra_columns(tmp_path: Path) -> None:
    artifact = curated_schema(tmp_path, '["gender", "store"]')
    schema = tfdv.load_schema_text(f"{artifact.uri}/schema.pbtxt")
    assert extra_columns(schema) == ["gender", "store"]

"""An anomaly stops the run and says in one line which feature and why."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2
from tfx.types.standard_artifacts import Examples, Schema

from components.curated_schema import CuratedSchema, extra_columns
from components.errors import UserError
from components.example_validator import Executor
from schemas import features
from tests.conftest import ROOT

CURATED = (ROOT / "schemas" / "curated.pbtxt").read_text()


def curated_schema(tmp_path: Path, columns: str = "[]") -> schema_pb2.Schema:
    """As the CuratedSchema step leaves it."""
    examples, schema = Examples(), Schema()
    schema.uri = str(tmp_path / "schema")
    Path(schema.uri).mkdir()
    examples.set_string_custom_property("extra_columns", columns)
    executor = CuratedSchema.EXECUTOR_SPEC.executor_class()
    executor.Do({"examples": [examples]}, {"schema": [schema]}, {"curated": CURATED})
    return tfdv.load_schema_text(f"{schema.uri}/schema.pbtxt")


def statistics(**changes: str) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Of ten examples with every raw feature; a change is a feature's statistics as text proto."""
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
    folder = tmp_path / "Split-eval"
    folder.mkdir()
    schema = curated_schema(tmp_path, columns)
    Executor()._Validate({"statistics": stats, "schema": schema}, {"schema_diff_path": str(folder)})


def test_what_the_schema_describes_passes(tmp_path: Path) -> None:
    validate(tmp_path, statistics())
    assert list((tmp_path / "Split-eval").iterdir())


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


def test_the_csvs_further_columns_are_welcome(tmp_path: Path) -> None:
    store = "type: STRING string_stats { COMMON unique: 2 }"
    validate(tmp_path, statistics(store=store), columns='["store"]')


def test_extra_columns(tmp_path: Path) -> None:
    assert extra_columns(curated_schema(tmp_path, '["gender", "store"]')) == ["gender", "store"]

"""CuratedSchema: what raw examples must look like, the CSV's further columns included."""

import json
from pathlib import Path

import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Examples, Schema

from schemas import features


@component
def CuratedSchema(
    examples: InputArtifact[Examples], schema: OutputArtifact[Schema], curated: Parameter[str]
) -> None:
    """Writes the curated schema with one optional string feature for each extra column.

    Args:
        examples: PhotoExampleGen's, whose custom property `extra_columns` lists those columns.
        schema: schema.pbtxt, as SchemaGen would leave it.
        curated: text of schemas/curated.pbtxt; as a parameter, so that an edit is not cached away.
    """
    proto = text_format.Parse(curated, schema_pb2.Schema())
    for column in json.loads(examples.get_string_custom_property("extra_columns")):
        feature = proto.feature.add(name=column, type=schema_pb2.BYTES, shape=None)
        feature.value_count.CopyFrom(schema_pb2.ValueCount(min=0, max=1))
        feature.drift_comparator.infinity_norm.threshold = 0.1
    tfdv.write_schema_text(proto, str(Path(schema.uri) / "schema.pbtxt"))


def extra_columns(schema: schema_pb2.Schema) -> list[str]:
    """The names of the CSV's further columns in a curated schema, in its order."""
    return [f.name for f in schema.feature if f.name not in features.RAW_FEATURES]

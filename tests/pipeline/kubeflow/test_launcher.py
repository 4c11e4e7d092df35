"""The input from KFP's launcher, and the output that it reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.types import standard_artifacts

from pipeline.kubeflow import node
from pipeline.kubeflow.launcher import Slot, Task, local_path
from tests.pipeline.kubeflow.cluster import stored_metadata


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("gs://bucket/a/b", "/gcs/bucket/a/b"),
        ("s3://bucket/a/b", "/s3/bucket/a/b"),
        ("minio://mlpipeline/v2/artifacts/a", "/minio/mlpipeline/v2/artifacts/a"),
        ("/local/outputs/a", "/local/outputs/a"),
    ],
)
def test_paths_are_those_of_the_launcher(
    uri: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ARTIFACT_LOCAL_PATH", raising=False)
    assert local_path(uri) == path


def executor_input(folder: Path, scheme: str) -> dict[str, Any]:
    """An ExecutorInput with an input and three outputs, as protojson prints it."""
    base = f"{scheme}bucket/v2/artifacts/goodseed-age-check/run/trainer/7f"
    return {
        "inputs": {
            "parameterValues": {"node": "{}", "number": 3},
            "artifacts": {
                "examples": {
                    "artifacts": [
                        {
                            "name": "42",
                            "type": {"instanceSchema": ""},
                            "uri": f"{base}/examples",
                            "metadata": {"display_name": "x", "properties": '{"span": 3}'},
                        }
                    ]
                },
                "none": {},
            },
        },
        "outputs": {
            "parameters": {"code": {"outputFile": f"{folder}/outputs/code"}},
            "artifacts": {
                key: {"artifacts": [{"name": key, "uri": f"{base}/{key}"}]}
                for key in ("model", "report", "executor-logs")
            },
            "outputFile": f"{folder}/outputs/executor_output.json",
        },
    }


@pytest.mark.parametrize("scheme", ["gs://", "s3://", "minio://"])
def test_the_input_is_read_and_the_output_is_written(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTIFACT_LOCAL_PATH", str(tmp_path))
    document = executor_input(tmp_path, scheme)
    message = json_format.ParseDict(document, pipeline_spec_pb2.ExecutorInput())
    task = Task(json_format.MessageToJson(message))
    assert task.parameters["number"] == 3
    assert task.inputs["examples"].metadata["properties"] == '{"span": 3}'
    assert task.outputs.keys() == {"model", "report"} and task.inputs.keys() == {"examples"}
    left = task.outputs["model"].path / "of" / "the last attempt"
    left.parent.mkdir(parents=True)
    left.touch()
    task.outputs["report"].path.write_text("the last attempt's, which is a file")

    task.begin()
    assert task.inputs["examples"].path.is_dir()  # an empty folder has no files in the object store
    assert not any(list(slot.path.iterdir()) for slot in task.outputs.values())

    task.finish({"code": "abc"}, {"model": {"properties": "{}"}})
    output = pipeline_spec_pb2.ExecutorOutput()
    json_format.Parse((tmp_path / "outputs" / "executor_output.json").read_text(), output)
    (model,) = output.artifacts["model"].artifacts
    assert model.uri == document["outputs"]["artifacts"]["model"]["artifacts"][0]["uri"]
    assert output.parameter_values["code"].string_value == "abc"
    assert any(task.outputs["model"].path.iterdir())  # the object store would lose an empty folder


def test_an_artifact_with_a_custom_path(tmp_path: Path) -> None:
    document = executor_input(tmp_path, "s3://")
    artifact = document["inputs"]["artifacts"]["examples"]["artifacts"][0]
    artifact["customPath"] = "/kfp-workspace/examples"
    assert Task(json.dumps(document)).inputs["examples"].path == Path("/kfp-workspace/examples")


_VALUES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
)


@given(st.dictionaries(st.text("abcdef_", min_size=1), _VALUES), st.integers(0, 2**31))
def test_properties_survive_a_round_trip(custom: dict[str, Any], span: int) -> None:
    """Their types survive too: TFX would read 0 for an integer that became a float."""
    artifact = standard_artifacts.Examples()
    artifact.split_names = '["train", "eval"]'
    artifact.span = span
    for name, value in custom.items():
        setters = {
            str: artifact.set_string_custom_property,
            int: artifact.set_int_custom_property,
            float: artifact.set_float_custom_property,
        }
        setters[type(value)](name, value)
    artifact.set_json_value_custom_property("structure", {"a": [1.5, None], "b": {"c": True}})
    said = json_format.ParseDict(
        node.metadata_of(artifact.mlmd_artifact), pipeline_spec_pb2.RuntimeArtifact().metadata
    )
    slot = Slot("42", "minio://b/a", Path("/minio/b/a"), stored_metadata(said))
    back = node.artifact_of(artifact.artifact_type, slot)
    assert back.mlmd_artifact.properties == artifact.mlmd_artifact.properties
    assert back.mlmd_artifact.custom_properties == artifact.mlmd_artifact.custom_properties
    assert type(back) is standard_artifacts.Examples and back.uri == "/minio/b/a"

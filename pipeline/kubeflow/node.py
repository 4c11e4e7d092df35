"""Runs a node of the graph in its pod, as TFX's own launcher would run it.

TFX has no public way to run a single node without its metadata store, and its runner for Kubeflow
v2 targets a managed service. So this module calls the executor operators of TFX's launcher
(tfx.orchestration.portable) itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration import data_types_utils
from tfx.orchestration.portable import data_types
from tfx.proto.orchestration import executable_spec_pb2, pipeline_pb2
from tfx.types import Artifact, standard_artifacts

from pipeline.config import Beam
from pipeline.kubeflow import shared
from pipeline.kubeflow.launcher import ACCOUNT, RUN_ID, Slot, Task
from pipeline.kubeflow.records import NO_VERSION, VERSION, Record, run_config
from pipeline.kubeflow.views import VIEWS
from pipeline.summary import URI

NODE = "node"  # input parameter: the plan's part of the graph
PUSHER = "Pusher"
_PROPERTIES, _CUSTOM = "properties", "custom_properties"


def run(name: str, task: Task, record: Record, folder: Path) -> None:
    """Runs a node's executor on the task's artifacts; their types come from the graph.

    Args:
        name: the node.
        task: its inputs and outputs.
        record: gets what it read and wrote.
        folder: the run's, on the work volume.

    Raises:
        Exception: any that the executor raises.
    """
    pipeline = json_format.Parse(task.parameters[NODE], pipeline_pb2.Pipeline())
    node = pipeline.nodes[0].pipeline_node
    properties = data_types_utils.build_parsed_value_dict(node.parameters.parameters)
    if name == "Review":  # only the pod knows these facts about the run
        account = os.environ.get(ACCOUNT)
        properties["run_id"] = os.environ[RUN_ID]
        properties["who"] = f"service account {account}" if account else ""
    operator, on_cluster = _operator(pipeline, name, folder)
    with _place(task, folder / "cluster" / name if on_cluster else None) as place:
        inputs = {}
        for key, spec in node.inputs.inputs.items():
            channel = spec.channels[0]
            artifact = artifact_of(channel.artifact_query.type, place.inputs[key])
            inputs[key] = [artifact]
            producer = f"{channel.producer_node_query.id}.{channel.output_key}"
            record.inputs[producer] = _plain(artifact.mlmd_artifact)
        outputs = {
            key: [artifact_of(spec.artifact_spec.type, place.outputs[key])]
            for key, spec in node.outputs.outputs.items()
        }
        info = data_types.ExecutionInfo(
            execution_id=1,
            input_dict=inputs,
            output_dict=outputs,
            exec_properties=properties,
            execution_output_uri=f"{place.scratch}/executor_output",
            stateful_working_dir=f"{place.scratch}/state",
            tmp_dir=f"{place.scratch}/tmp",
            pipeline_node=node,
            pipeline_info=pipeline.pipeline_info,
            pipeline_run_id=os.environ[RUN_ID],
        )
        result = operator.run_executor(info)
    made = {key: listed.artifacts[0] for key, listed in result.output_artifacts.items()}
    metadata: dict[str, dict[str, Any]] = {key: metadata_of(made[key]) for key in made}
    record.outputs = {
        f"{name}.{key}": {URI: task.outputs[key].uri, **_plain(artifact)}
        for key, artifact in made.items()
    }
    if name in VIEWS:
        metadata |= VIEWS[name].draw(task, record.outputs)
    parameters = {}
    if name == PUSHER:
        pushed = record.outputs[f"{PUSHER}.pushed_model"]
        parameters[VERSION] = str(pushed.get("pushed_version", NO_VERSION))
    task.finish(parameters, metadata)


@contextlib.contextmanager
def _place(task: Task, shared_folder: Path | None) -> Iterator[shared.Place]:
    """Where the executor works: in the pod, or in this folder of the work volume."""
    if shared_folder:
        with shared.place(shared_folder, task.inputs, task.outputs) as place:
            yield place
    else:
        with tempfile.TemporaryDirectory() as scratch:
            yield shared.Place(task.inputs, task.outputs, Path(scratch))


def _operator(pipeline: pipeline_pb2.Pipeline, name: str, folder: Path) -> tuple[Any, bool]:
    """What runs the executor, and whether it works on a cluster."""
    deployment = pipeline_pb2.IntermediateDeploymentConfig()
    pipeline.deployment_config.Unpack(deployment)
    packed = deployment.executor_specs[name]
    if packed.Is(executable_spec_pb2.BeamExecutableSpec.DESCRIPTOR):
        from tfx.orchestration.portable.beam_executor_operator import BeamExecutorOperator

        from components import beam_jobs

        beam = executable_spec_pb2.BeamExecutableSpec()
        packed.Unpack(beam)
        where = Beam.model_validate(run_config(folder)["beam"])
        beam_jobs.use(where, os.environ[RUN_ID])
        beam_jobs.step.set(name)
        return BeamExecutorOperator(beam), where.runner != "direct"
    from tfx.orchestration.portable.python_executor_operator import PythonExecutorOperator

    python = executable_spec_pb2.PythonClassExecutableSpec()
    packed.Unpack(python)
    return PythonExecutorOperator(python), False


def artifact_of(kind: metadata_store_pb2.ArtifactType, slot: Slot) -> Artifact:
    """TFX's artifact of a type, at the launcher's path, with the properties from its producer."""
    # By the name of the type: the compiled graph omits the properties of an input's type.
    known = getattr(standard_artifacts, kind.name, None)
    artifact: Artifact = known() if known else Artifact(kind)
    artifact.uri = str(slot.path)
    for field in (_PROPERTIES, _CUSTOM):
        target = getattr(artifact.mlmd_artifact, field)
        for name, value in json.loads(slot.metadata.get(field, "{}")).items():
            if isinstance(value, dict):
                json_format.ParseDict(value, target[name].struct_value)
            else:
                data_types_utils.set_metadata_value(target[name], value)
    return artifact


def metadata_of(artifact: metadata_store_pb2.Artifact) -> dict[str, str]:
    """The properties as JSON text: the server changes numbers, but returns text as it is."""
    return {
        field: json.dumps(_values(getattr(artifact, field))) for field in (_PROPERTIES, _CUSTOM)
    }


def _plain(artifact: metadata_store_pb2.Artifact) -> dict[str, Any]:
    return {**_values(artifact.properties), **_values(artifact.custom_properties)}


def _values(properties: Mapping[str, metadata_store_pb2.Value]) -> dict[str, Any]:
    """Strings and numbers; for a value that TFX keeps as a structure, a dictionary."""
    return {
        name: json_format.MessageToDict(value) if isinstance(value, Message) else value
        for name, value in data_types_utils.build_value_dict(properties).items()
    }

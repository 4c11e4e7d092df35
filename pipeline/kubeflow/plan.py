"""The first step of a run: it compiles the graph and gives each node its part."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from google.protobuf import json_format
from tfx.dsl.compiler import compiler
from tfx.orchestration import data_types_utils
from tfx.orchestration.portable import data_types, python_driver_operator
from tfx.proto.orchestration import executable_spec_pb2, pipeline_pb2

from components import beam_jobs
from components.errors import UserError
from pipeline.config import Config
from pipeline.graph import check_columns, create_pipeline
from pipeline.kubeflow.launcher import RUN_ID, Task
from pipeline.kubeflow.parameters import configuration, parameter_name
from pipeline.kubeflow.records import Record

CODE = "code"  # output parameter: the hash of this code, for KFP's cache

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("components", "pipeline", "schemas", "serving")


def write(task: Task, run_dir: Path, record: Record) -> None:
    """Writes the output parameters: each node's part of the compiled graph, and CODE.

    KFP's cache compares the parameters and input artifacts of a step. So the part of a node holds
    only what the node needs. PhotoExampleGen's part also holds the fingerprint of the photos, which
    its driver adds.

    Raises:
        UserError: the parameters are not a valid configuration, or name a missing file or folder;
            Beam's cluster does not answer, or does not see the volumes.
    """
    config = configuration(task.parameters, run_dir)
    record.config = config.model_dump(mode="json", exclude={"kubeflow"})
    _check_paths(config)
    check_columns(config)
    beam_jobs.use(config.beam, os.environ[RUN_ID])
    beam_jobs.check(Path(config.data.photos), run_dir)
    ir = compiler.Compiler().compile(create_pipeline(config))
    parts = {
        parameter_name(n.pipeline_node.node_info.id): part(ir, n.pipeline_node) for n in ir.nodes
    }
    task.finish({CODE: _code(), **parts}, {})


def _check_paths(config: Config) -> None:
    root = Path(config.serving_base).parent
    if not root.is_dir():  # the Pusher would make it, but inside its pod
        raise UserError(f"serving_root: no folder {root}: name one on the serving claim's volume")
    weights = config.trainer.initial_weights
    if weights not in ("imagenet", "none") and not Path(weights).is_file():
        raise UserError(f"initial_weights: no file {weights} on the volumes of the plan's pod")


def part(ir: pipeline_pb2.Pipeline, node: pipeline_pb2.PipelineNode) -> str:
    """A pipeline of one node, as JSON; the node's parameters include those that its driver adds."""
    deployment = pipeline_pb2.IntermediateDeploymentConfig()
    ir.deployment_config.Unpack(deployment)
    name = node.node_info.id
    alone = pipeline_pb2.Pipeline(pipeline_info=ir.pipeline_info)
    mine = alone.nodes.add().pipeline_node
    mine.CopyFrom(node)
    if name in deployment.custom_driver_specs:
        spec = executable_spec_pb2.PythonClassExecutableSpec()
        deployment.custom_driver_specs[name].Unpack(spec)
        has = data_types_utils.build_parsed_value_dict(node.parameters.parameters)
        driver = python_driver_operator.PythonDriverOperator(spec, None)
        found = driver.run_driver(data_types.ExecutionInfo(exec_properties=has))
        for key, value in found.exec_properties.items():
            mine.parameters.parameters[key].field_value.CopyFrom(value)
    only = pipeline_pb2.IntermediateDeploymentConfig()
    only.executor_specs[name].CopyFrom(deployment.executor_specs[name])
    alone.deployment_config.Pack(only)
    return json_format.MessageToJson(alone, indent=None, sort_keys=True)


def _code() -> str:
    """SHA-256, in hex, of the code in this image: the cache does not reuse steps of other code."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for file in sorted((_ROOT / package).rglob("*")):
            if file.suffix in (".py", ".pbtxt"):
                digest.update(f"{file.relative_to(_ROOT)}\n".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()

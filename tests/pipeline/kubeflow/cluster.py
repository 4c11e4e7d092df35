"""Runs a package as KFP's server and launcher do, but each step is a process of this machine.

It imitates kubeflow/pipelines, backend/src/v2: the ExecutorInput of the driver, how the launcher
copies artifacts and reads executor_output.json, and how the server changes the metadata on its way
to the next step.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from google.protobuf import json_format, struct_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.conftest import ROOT, Finished

BUCKET = "minio://mlpipeline/v2/artifacts"
LOGS = "executor-logs"  # an output that the package does not declare


class Stored(NamedTuple):
    """An artifact, as the server stores it."""

    uri: str
    metadata: dict[str, Any]


class Ran(NamedTuple):
    """The outcome of a task; `finished` is None if it came from the cache."""

    finished: Finished | None
    parameters: dict[str, Any]
    artifacts: dict[str, Stored]

    @property
    def succeeded(self) -> bool:
        return self.finished is None or self.finished.status == 0


class Cluster:
    """A server, its object store and the files of its pods, all in one folder."""

    def __init__(self, package: Path, folder: Path):
        documents = list(yaml.safe_load_all(package.read_text()))
        self.spec = json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
        self.store = folder / "store"
        self.pods = folder / "pods"
        self._cache: dict[str, Ran] = {}
        tasks = self.spec.components["comp-exit-handler-1"].dag.tasks
        self._steps = {n: t for n, t in tasks.items() if not t.trigger_policy.condition}
        (self._if,) = [t for t in tasks.values() if t.trigger_policy.condition]
        self._exit = self.spec.root.dag.tasks["summary"]

    @property
    def defaults(self) -> dict[str, Any]:
        """The default values of the pipeline's parameters."""
        return {
            name: json_format.MessageToDict(definition.default_value)
            for name, definition in self.spec.root.input_definitions.parameters.items()
        }

    def file(self, artifact: Stored) -> Path:
        """The files of an artifact in the object store."""
        return _local(artifact.uri, self.store)

    def run(self, run_id: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Ran]:
        """Runs every task whose inputs exist, two at a time, and then the exit handler."""
        values = {**self.defaults, **(parameters or {})}
        done: dict[str, Ran] = {}
        running: dict[Future[Ran], str] = {}
        with ThreadPoolExecutor(2) as pool:
            while True:
                for name, task in self._steps.items():
                    ready = all(up in done and done[up].succeeded for up in task.dependent_tasks)
                    if ready and name not in done and name not in running.values():
                        running[pool.submit(self._task, run_id, name, task, values, done)] = name
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    done[running.pop(future)] = future.result()
        done |= self._conditional(run_id, done)
        done["summary"] = self._task(run_id, "summary", self._exit, values, done)
        return done

    def _conditional(self, run_id: str, done: Mapping[str, Ran]) -> dict[str, Ran]:
        """The tasks below the condition, if it is met."""
        ((name, source),) = self._if.inputs.parameters.items()
        made = source.task_output_parameter
        if made.producer_task not in done:
            return {}
        value = done[made.producer_task].parameters[made.output_parameter_key]
        # The only form of condition that this server knows.
        condition = f"inputs.parameter_values['{name}'] != '"
        before, found, excluded = self._if.trigger_policy.condition.partition(condition)
        assert found and not before and excluded.endswith("'")
        if value == excluded[:-1]:
            return {}
        inside = self.spec.components[self._if.component_ref.name].dag.tasks
        return {n: self._task(run_id, n, t, {name: value}, done) for n, t in inside.items()}

    def executor_input(
        self,
        run_id: str,
        name: str,
        task: pipeline_spec_pb2.PipelineTaskSpec,
        values: Mapping[str, Any],
        done: Mapping[str, Ran],
    ) -> dict[str, Any]:
        """The ExecutorInput that the driver makes for a task."""
        component = self.spec.components[task.component_ref.name]
        given = {}
        for key, source in task.inputs.parameters.items():
            if source.HasField("task_output_parameter"):
                made = source.task_output_parameter
                given[key] = done[made.producer_task].parameters[made.output_parameter_key]
            else:
                above = source.component_input_parameter
                given[key] = values[
                    above if above in values else above.removeprefix("pipelinechannel--")
                ]
        artifacts = {}
        for key, source in task.inputs.artifacts.items():
            made = source.task_output_artifact
            stored = done[made.producer_task].artifacts[made.output_artifact_key]
            artifacts[key] = {
                "artifacts": [
                    {
                        "name": str(abs(hash(stored.uri))),  # the metadata store's id
                        "type": {"instanceSchema": ""},
                        "uri": stored.uri,
                        "metadata": stored.metadata,
                    }
                ]
            }
        base = f"{BUCKET}/{self.spec.pipeline_info.name}/{run_id}/{name}/{uuid.uuid4()}"
        outputs = {
            key: {
                "artifacts": [
                    {
                        "name": key,
                        "type": json_format.MessageToDict(definition.artifact_type),
                        "uri": f"{base}/{key}",
                        "metadata": {},
                    }
                ]
            }
            for key, definition in component.output_definitions.artifacts.items()
        }
        logs = {"type": {"schemaTitle": "system.Artifact"}, "uri": f"{base}/{LOGS}"}
        outputs[LOGS] = {"artifacts": [{"name": LOGS, **logs}]}
        folder = self.pods / run_id / name
        return {
            "inputs": {"parameterValues": given, "artifacts": artifacts},
            "outputs": {
                "parameters": {
                    key: {"outputFile": f"{folder}/tmp/kfp/outputs/{key}"}
                    for key in component.output_definitions.parameters
                },
                "artifacts": outputs,
                "outputFile": f"{folder}/tmp/kfp_outputs/output_metadata.json",
            },
        }

    def _task(
        self,
        run_id: str,
        name: str,
        task: pipeline_spec_pb2.PipelineTaskSpec,
        values: Mapping[str, Any],
        done: Mapping[str, Ran],
    ) -> Ran:
        document = self.executor_input(run_id, name, task, values, done)
        key = json.dumps(
            [
                name,
                document["inputs"]["parameterValues"],
                [a["artifacts"][0]["uri"] for a in document["inputs"]["artifacts"].values()],
            ]
        )
        if task.caching_options.enable_cache and key in self._cache:
            return self._cache[key]._replace(finished=None)
        ran = self._run(run_id, name, task, document)
        if ran.succeeded:
            self._cache[key] = ran
        return ran

    def _run(
        self,
        run_id: str,
        name: str,
        task: pipeline_spec_pb2.PipelineTaskSpec,
        document: dict[str, Any],
    ) -> Ran:
        pod = self.pods / run_id / name
        for listed in document["inputs"]["artifacts"].values():
            self._download(listed["artifacts"][0]["uri"], pod)
        for key, listed in document["outputs"]["artifacts"].items():
            local = _local(listed["artifacts"][0]["uri"], pod)
            local.parent.mkdir(parents=True, exist_ok=True)
            if key == LOGS:
                local.write_text("the launcher's")
            else:  # files of a killed attempt
                local.mkdir()
                (local / "half-written").write_text("")
        label = self.spec.components[task.component_ref.name].executor_label
        executors = self.spec.deployment_spec["executors"]
        container = json_format.MessageToDict(executors[label])["container"]
        text = json_format.MessageToJson(
            json_format.ParseDict(document, pipeline_spec_pb2.ExecutorInput()), indent=None
        )
        arguments = [a.replace("{{$}}", text) for a in container["args"]]
        done_process = subprocess.run(
            [sys.executable, *container["command"][1:], *arguments],
            cwd=ROOT,
            env={**os.environ, "KFP_RUN_ID": run_id, "ARTIFACT_LOCAL_PATH": str(pod)},
            capture_output=True,
            text=True,
            timeout=600,
        )
        finished = Finished(done_process.returncode, done_process.stdout, done_process.stderr)
        if finished.status:
            return Ran(finished, {}, {})
        return self._publish(document, pod, finished)

    def _publish(self, document: dict[str, Any], pod: Path, finished: Finished) -> Ran:
        output = pipeline_spec_pb2.ExecutorOutput()
        json_format.Parse(Path(document["outputs"]["outputFile"]).read_text(), output)
        artifacts = {}
        for key, listed in document["outputs"]["artifacts"].items():
            artifact = listed["artifacts"][0]
            self._upload(artifact["uri"], pod)
            if key == LOGS:
                continue
            (said,) = output.artifacts[key].artifacts
            assert said.uri == artifact["uri"]
            artifacts[key] = Stored(said.uri, stored_metadata(said.metadata))
        parameters = {k: v.string_value for k, v in output.parameter_values.items()}
        assert parameters.keys() == document["outputs"]["parameters"].keys()
        return Ran(finished, parameters, artifacts)

    def _upload(self, uri: str, pod: Path) -> None:
        """Stores files as objects: without modes and empty folders; a symlinked folder fails."""
        local = _local(uri, pod)
        for file in [local] if local.is_file() else local.rglob("*"):
            assert not (file.is_symlink() and file.is_dir()), f"{file} is a symlinked folder"
            if file.is_file():
                target = _local(uri, self.store) / file.relative_to(local)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)

    def _download(self, uri: str, pod: Path) -> None:
        source, target = _local(uri, self.store), _local(uri, pod)
        if source.exists():
            shutil.copytree(source, target, dirs_exist_ok=True, copy_function=shutil.copyfile)


def stored_metadata(metadata: struct_pb2.Struct) -> dict[str, Any]:
    """The metadata of an artifact, as the next step gets it."""

    def through(value: struct_pb2.Value) -> Any:
        kind = value.WhichOneof("kind")
        assert kind != "null_value", "null fails the task"
        if kind == "list_value":
            return {"list": [through(v) for v in value.list_value.values]}
        if kind == "struct_value":
            return {"struct": {k: through(v) for k, v in value.struct_value.fields.items()}}
        return float(value.bool_value) if kind == "bool_value" else getattr(value, str(kind))

    return {
        **{key: through(value) for key, value in metadata.fields.items()},
        "display_name": "some name",
        "store_session_info": '{"Provider":"minio","Params":{"fromEnv":"false"}}',
    }


def _local(uri: str, root: Path) -> Path:
    return root / uri.replace("://", "/", 1)

"""What KFP's launcher gives to a step, and what it expects back.

The launcher passes an ExecutorInput. It has made the parent folders of the outputs, and has put the
files of the inputs where `local_path` says. Afterwards it reads executor_output.json and uploads
the files of the outputs. This module reads plain JSON: importing kfp for its messages would slow
down the start of every step.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

# Environment variables that the package sets in a pod.
RUN_ID = "KFP_RUN_ID"
ACCOUNT = "KFP_SERVICE_ACCOUNT"  # of the Review step only

_KEEP = ".keep"  # a file for empty folders, which an object store can't hold
_LOGS = "executor-logs"  # an output that some servers add and that their launcher fills


class Slot(NamedTuple):
    """The place of an artifact. The slot of an input has the metadata from the input's producer."""

    name: str
    uri: str
    path: Path
    metadata: dict[str, Any]


class Task:
    """One task's inputs and outputs."""

    def __init__(self, executor_input: str):
        """Reads the JSON that KFP inserts for `{{$}}`."""
        document = json.loads(executor_input)
        inputs, self._outputs = document.get("inputs", {}), document["outputs"]
        self.parameters: dict[str, Any] = inputs.get("parameterValues", {})
        self.inputs = _slots(inputs)
        self.outputs = _slots(self._outputs)

    def begin(self) -> None:
        """Makes an empty folder for every output, and a folder for every input that has none.

        A retried step may find files of its last attempt. An input without files has no folder,
        because the object store holds files only.
        """
        for slot in self.outputs.values():
            if slot.path.is_dir():
                shutil.rmtree(slot.path)
            else:
                slot.path.unlink(missing_ok=True)
            slot.path.mkdir(parents=True)
        for slot in self.inputs.values():
            slot.path.mkdir(parents=True, exist_ok=True)

    def finish(
        self, parameters: Mapping[str, str], metadata: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Writes executor_output.json.

        Args:
            parameters: values of the output parameters.
            metadata: of each output artifact, strings and finite numbers only. Null fails the
                task; the server passes booleans on as numbers, and wraps lists and dictionaries.
        """
        artifacts = {}
        for key, values in metadata.items():
            slot = self.outputs[key]
            if slot.path.is_dir() and not any(slot.path.iterdir()):
                (slot.path / _KEEP).touch()
            artifact = {"name": slot.name, "uri": slot.uri, "metadata": dict(values)}
            artifacts[key] = {"artifacts": [artifact]}
        file = Path(self._outputs["outputFile"])
        file.parent.mkdir(parents=True, exist_ok=True)
        document = {"parameterValues": dict(parameters), "artifacts": artifacts}
        file.write_text(json.dumps(document, allow_nan=False), "utf-8")


def _slots(side: Mapping[str, Any]) -> dict[str, Slot]:
    slots = {}
    for key, listed in side.get("artifacts", {}).items():
        artifacts = listed.get("artifacts")
        if artifacts and key != _LOGS:
            artifact = artifacts[0]
            slots[key] = Slot(
                artifact.get("name", ""),
                artifact["uri"],
                Path(artifact.get("customPath") or local_path(artifact["uri"])),
                artifact.get("metadata", {}),
            )
    return slots


def local_path(uri: str) -> str:
    """Where the launcher keeps the files of a URI: LocalPathForURI in KFP's launcher_v2.go.

    kfp.local passes plain paths instead of URIs.
    """
    root = os.environ.get("ARTIFACT_LOCAL_PATH", "")
    for scheme, folder in {"gs://": "gcs", "minio://": "minio", "s3://": "s3"}.items():
        if uri.startswith(scheme):
            return f"{root}/{folder}/{uri.removeprefix(scheme)}"
    return uri

"""What KFP's launcher hands to a step, and what it wants back.

The launcher gives an ExecutorInput, has made the parents of the outputs and has put the inputs'
files where `local_path` says; it reads executor_output.json and takes the outputs' files away.
Plain JSON here: importing kfp for its messages would take seconds of every step's start.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

# An empty folder does not survive the object store.
_KEEP = ".keep"
_LOGS = "executor-logs"  # an output that some servers add, and their launcher fills


class Slot(NamedTuple):
    """An artifact's place: an input's with what its maker said of it, or an output's."""

    name: str
    uri: str
    path: Path
    metadata: dict[str, Any]


class Task:
    """One task's inputs and outputs."""

    def __init__(self, executor_input: str):
        """Reads the JSON that KFP puts in the place of `{{$}}`."""
        document = json.loads(executor_input)
        inputs, self._outputs = document.get("inputs", {}), document["outputs"]
        self.parameters: dict[str, Any] = inputs.get("parameterValues", {})
        self.inputs = _slots(inputs)
        self.outputs = _slots(self._outputs)

    def begin(self) -> None:
        """Makes every output's folder, empty, and sees to it that every input's is there.

        A step that is tried again finds what its last attempt left. An input without a file never
        came through the object store.
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
            metadata: of each output artifact, strings and finite numbers only: null fails the
                task, and the server hands on booleans as numbers, lists and dictionaries wrapped.
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
        file.write_text(json.dumps(document, allow_nan=False))


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
    """Where the launcher has the files of a URI: LocalPathForURI in KFP's launcher_v2.go.

    A URI of no store that KFP knows is a path: the local runner's.
    """
    root = os.environ.get("ARTIFACT_LOCAL_PATH", "")
    for scheme, folder in {"gs://": "gcs", "minio://": "minio", "s3://": "s3"}.items():
        if uri.startswith(scheme):
            return f"{root}/{folder}/{uri.removeprefix(scheme)}"
    return uri

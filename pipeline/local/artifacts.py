"""The artifact folders of a run folder, held against its metadata store.

A step writes to `artifacts/NODE/KEY/ID`. ID is the number of its execution in the store. A store
that is new, or restored from a backup, gives out numbers again that older folders may have.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from components.errors import UserError
from pipeline.local.store import metadata_store

_FILES = "files"  # custom property of an execution: the digest of what its step wrote


def remove_unknown(run_dir: Path, nodes: Collection[str]) -> int:
    """Deletes what no complete step of the store has written, so that no step writes beside it.

    Args:
        run_dir: the folder of the run.
        nodes: the steps of the graph. A folder with another name is not ours.

    Returns:
        How many of the deleted artifacts are of runs that the store does not know. The others are
        of killed runs.
    """
    known, numbers = set(), set()
    if (run_dir / "metadata.db").exists():
        store = metadata_store(run_dir / "metadata.db")
        known = {folder.parts[-3:] for _, folders in _complete(store) for folder in folders}
        numbers = {str(execution.id) for execution in store.get_executions()}
    strange = 0
    for node in nodes:
        root = run_dir / "artifacts" / node
        shutil.rmtree(root / ".system", ignore_errors=True)  # what TFX keeps during a step
        for folder in root.glob("*/*"):
            if folder.name.isdecimal() and folder.parts[-3:] not in known:
                shutil.rmtree(folder)
                strange += folder.name not in numbers
    return strange


def record(run_dir: Path, nodes: Collection[str]) -> None:
    """Writes into the store what files the complete steps have; `check` compares them.

    Args:
        run_dir: the folder of the run.
        nodes: the steps that a later run may take from the cache.
    """
    store = metadata_store(run_dir / "metadata.db")
    new = []
    for execution, folders in _complete(store):
        if folders[0].parts[-3] in nodes and _FILES not in execution.custom_properties:
            execution.custom_properties[_FILES].string_value = _digest(folders)
            new.append(execution)
    store.put_executions(new)


def check(run_dir: Path) -> None:
    """Compares the files that the cache may give to a step with those that were recorded.

    Raises:
        UserError: there are others, as after one run folder has been copied over another.
    """
    if not (run_dir / "metadata.db").exists():
        return
    for execution, folders in _complete(metadata_store(run_dir / "metadata.db")):
        recorded = execution.custom_properties[_FILES].string_value
        whole = all(folder.exists() for folder in folders)  # otherwise, the step runs again
        if recorded and whole and recorded != _digest(folders):
            raise UserError(
                f"{folders[0]}: these are not the files that the step wrote; was another run "
                f"folder copied over this one? Give a new --run-dir, or delete {run_dir}/"
                "metadata.db: then the next run deletes artifacts/ and runs every step"
            )


def _complete(
    store: MetadataStore,
) -> Iterator[tuple[metadata_store_pb2.Execution, list[Path]]]:
    """The executions that completed and wrote something, each with the folders of its outputs."""
    executions = [
        execution
        for execution in store.get_executions()
        if execution.last_known_state == metadata_store_pb2.Execution.COMPLETE
    ]
    events = store.get_events_by_execution_ids([execution.id for execution in executions])
    outputs = [event for event in events if event.type == metadata_store_pb2.Event.OUTPUT]
    artifacts = store.get_artifacts_by_id({event.artifact_id for event in outputs})
    uris = {artifact.id: Path(artifact.uri) for artifact in artifacts}
    folders = defaultdict(list)
    for event in outputs:
        folders[event.execution_id].append(uris[event.artifact_id])
    for execution in executions:
        if folders[execution.id]:
            yield execution, sorted(folders[execution.id])


def _digest(folders: Collection[Path]) -> str:
    """Tells the names and sizes of all files; hidden files are the desktop's, not a step's."""
    files = [
        (str(file.relative_to(folder.parents[1])), file.stat().st_size)
        for folder in folders
        for file in sorted(folder.rglob("[!.]*"))
        if file.is_file()
    ]
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()

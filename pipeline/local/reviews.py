"""The review pages in a run's folder, found through its metadata store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from components.errors import UserError
from components.review import PAGE_TYPE
from components.review.inputs import Inputs, RunFacts
from pipeline.local.store import metadata_store


def newest(run_dir: Path) -> Path:
    """The folder of the newest page of a run.

    Raises:
        UserError: the folder holds no run, or no run reached its review.
    """
    return Path(_newest(run_dir)[1].uri)


def inputs(run_dir: Path) -> Inputs:
    """The inputs of the newest review of a run.

    Raises:
        UserError: as `newest`.
    """
    store, page = _newest(run_dir)
    # Imported here, because `newest` works without TFX.
    from tfx.types import artifact_utils

    from components.review.component import RUN, inputs_of

    (made,) = store.get_events_by_artifact_ids([page.id])
    (execution,) = store.get_executions_by_id([made.execution_id])
    artifacts = {}
    for event in store.get_events_by_execution_ids([execution.id]):
        if event.type == metadata_store_pb2.Event.INPUT:
            (artifact,) = store.get_artifacts_by_id([event.artifact_id])
            (kind,) = store.get_artifact_types_by_id([artifact.type_id])
            found = artifact_utils.deserialize_artifact(kind, artifact)
            artifacts[event.path.steps[0].key] = found
    settings = json.loads(execution.custom_properties["settings"].string_value)
    facts = RunFacts(**json.loads(page.custom_properties[RUN].string_value))
    return inputs_of(artifacts, settings, facts)


def compared(runs: Sequence[tuple[str, Inputs]]) -> str:
    """The page that shows runs side by side.

    Args:
        runs: the name of each run, and the inputs of its review.
    """
    from components.review import comparison
    from components.review.page import render

    return render("Good Seed Age Check: two runs", comparison.sections(runs))


def _newest(run_dir: Path) -> tuple[MetadataStore, metadata_store_pb2.Artifact]:
    database = run_dir / "metadata.db"
    if not database.is_file():
        raise UserError(f"{run_dir} is not the folder of a run: name the --run-dir of a run")
    store = metadata_store(database)
    pages = [
        page
        for page in store.get_artifacts_by_type(PAGE_TYPE)
        if page.state == metadata_store_pb2.Artifact.LIVE
    ]
    if not pages:
        raise UserError(f"{run_dir}: no run reached its review; goodseed run makes one")
    return store, max(pages, key=lambda page: page.id)

"""The metadata store of a run folder, read without TFX, because its import is slow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from components.errors import UserError
from pipeline.summary import URI


def metadata_store(database: Path) -> MetadataStore:
    """The store in this file; the steps of the run use the same one.

    Raises:
        UserError: the file is not a store, or is damaged.
    """
    sqlite = metadata_store_pb2.SqliteMetadataSourceConfig(filename_uri=str(database))
    sqlite.connection_mode = sqlite.READWRITE_OPENCREATE
    try:
        return MetadataStore(metadata_store_pb2.ConnectionConfig(sqlite=sqlite))
    except RuntimeError as error:
        reason = re.search(r": (.+?)(?: query:|$)", str(error))
        raise UserError(
            f"{database}: {reason[1] if reason else error}; restore it from a backup, give a new "
            "--run-dir, or delete it: then the next run deletes artifacts/ and runs every step"
        ) from None


def run_outputs(database: Path, run_id: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The artifacts that the steps of a run made or took from the cache.

    Returns:
        (node, output key) → the artifact's properties, custom properties and URI: what
        `pipeline.summary.summarise` takes.
    """
    store = metadata_store(database)
    run = store.get_context_by_type_and_name("pipeline_run", run_id)
    outputs: dict[tuple[str, str], dict[str, Any]] = {}
    for execution in store.get_executions_by_context(run.id) if run else ():
        contexts = store.get_contexts_by_execution(execution.id)
        nodes = [c.name.split(".", 1)[1] for c in contexts if c.type == "node"]
        for event in store.get_events_by_execution_ids([execution.id]):
            if event.type == metadata_store_pb2.Event.OUTPUT:
                (artifact,) = store.get_artifacts_by_id([event.artifact_id])
                outputs[nodes[0], event.path.steps[0].key] = {
                    URI: artifact.uri,
                    **_values(artifact.properties),
                    **_values(artifact.custom_properties),
                }
    return outputs


def _values(properties: Any) -> dict[str, Any]:
    return {name: getattr(value, value.WhichOneof("value")) for name, value in properties.items()}

"""A run folder's metadata store, without TFX, which takes ten seconds to import."""

from __future__ import annotations

from pathlib import Path

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2


def metadata_store(database: Path) -> MetadataStore:
    """The store in this file, as a run's steps have it."""
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(database)
    return MetadataStore(config)

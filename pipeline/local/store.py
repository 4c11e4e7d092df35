"""A run folder's metadata store, without TFX, which takes ten seconds to import."""

from __future__ import annotations

from pathlib import Path

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2


def metadata_store(database: Path) -> MetadataStore:
    """The store in this file, as a run's steps have it."""
    sqlite = metadata_store_pb2.SqliteMetadataSourceConfig(filename_uri=str(database))
    sqlite.connection_mode = sqlite.READWRITE_OPENCREATE
    return MetadataStore(metadata_store_pb2.ConnectionConfig(sqlite=sqlite))

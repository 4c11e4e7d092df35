"""Fixtures of the server's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.server.models import Client, ModelFolders, config, serving


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> ModelFolders:
    return ModelFolders(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def base(folders: ModelFolders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one version, 3."""
    folder = tmp_path_factory.mktemp("base")
    folders.put(folder, 3)
    return folder


@pytest.fixture(scope="module")
def client(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a server of one model, `photos`, version 3, with the health service."""
    folder = tmp_path_factory.mktemp("server")
    models = config(photos=base)
    with serving(folder, models, enable_grpc_healthcheck_service=True) as found:
        yield found

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
def client(
    base: Path, folders: ModelFolders, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """A client of a server of two models, `half` (TF2, version 3) and `old` (TF1, version 1)."""
    old = tmp_path_factory.mktemp("old")
    folders.put(old, 1, tf1=True)
    with serving(config(half=base, old=old)) as (_, found):
        yield found

"""The benchmark that sends requests and photos that nobody should send."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks import abuse, results
from benchmarks.serving import serving
from tests.pictures import encoded
from tests.serving.client.photos import picture
from tests.serving.server.models import ModelFolders


def photos(folder: Path) -> list[bytes]:
    folder.mkdir()
    (folder / "1.jpg").write_bytes(encoded(picture()))
    return abuse.good_photos(folder)


def test_a_seed_has_its_abuses(tmp_path: Path) -> None:
    good = photos(tmp_path / "photos")
    assert len(good) == 3 and good[2].startswith(b"\x89PNG")

    def some(seed: int) -> list[bytes]:
        chance = random.Random(seed)
        return [
            made
            for _ in range(300)
            for made in (
                abuse.request_bytes(chance, good[0]),
                abuse.rest_body(chance, good[0]),
                abuse.mutated_photo(chance, good),
            )
        ]

    assert some(1) == some(1) != some(2)
    assert not set(some(1)) & set(good)


@pytest.mark.slow
def test_a_server_is_abused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    model = ModelFolders(tmp_path / "models").put(tmp_path / "served", 3)
    with serving(model) as (server, _):
        figures = abuse.abuse(server, photos(tmp_path / "photos"), 100, seed=0)
    assert [figure["unit"] for figure in figures] == ["MiB", "MiB", "%"]
    assert figures[2]["value"] == 100  # this model calls what it can't read not valid

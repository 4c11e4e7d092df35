"""A version folder is complete and new, and the same model is not pushed twice."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from serving.versions import newest_version, push


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"index")
    return folder


def test_newest_version_counts_what_a_server_can_load(tmp_path: Path) -> None:
    base = tmp_path / "goodseed_age"
    assert newest_version(base) is None
    for name in ("9", "10", "11", "012", "٣٣", "9" * 19, ".pushing-1", "latest"):
        (base / name).mkdir(parents=True)
        if name != "11":
            (base / name / "saved_model.pb").touch()
    (base / "13").symlink_to("10")
    assert newest_version(base) == 10


def test_a_link_is_not_pushed(model: Path, tmp_path: Path) -> None:
    (model / "variables" / "more").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match="more is a symbolic link"):
        push(model, tmp_path / "goodseed_age")
    assert not (tmp_path / "goodseed_age").exists()


def test_push_makes_the_newest_version(model: Path, tmp_path: Path) -> None:
    base = tmp_path / "root" / "goodseed_age"
    first = push(model, base)
    (model / "saved_model.pb").write_bytes(b"better")
    second = push(model, base)
    assert second > first
    assert newest_version(base) == second
    assert (base / str(second) / "variables" / "variables.index").read_bytes() == b"index"
    assert sorted(p.name for p in base.iterdir()) == [str(first), str(second)]


def test_the_live_model_is_not_pushed_again(model: Path, tmp_path: Path) -> None:
    base = tmp_path / "goodseed_age"
    assert push(model, base) == push(model, base)
    assert len(list(base.iterdir())) == 1


def test_push_exceeds_a_version_from_the_future(model: Path, tmp_path: Path) -> None:
    base = tmp_path / "goodseed_age"
    (base / "99999999999").mkdir(parents=True)
    (base / "99999999999" / "saved_model.pb").touch()
    assert push(model, base) == 100_000_000_000


def test_push_exceeds_what_cannot_be_loaded(model: Path, tmp_path: Path) -> None:
    """A server looks at the highest number, whatever is in its folder."""
    base = tmp_path / "goodseed_age"
    (base / "99999999999").mkdir(parents=True)
    (base / "99999999998").mkdir()
    (base / "99999999999" / "notes.txt").touch()
    assert push(model, base) == 100_000_000_000


def test_pushes_at_the_same_time_get_numbers_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushes = 8
    base, copied, copytree = tmp_path / "goodseed_age", Barrier(pushes), shutil.copytree

    def copy_and_wait(source: Path, target: Path) -> None:
        copytree(source, target)
        copied.wait()

    def push_another(number: int) -> int:
        model = tmp_path / f"model-{number}"
        model.mkdir()
        (model / "saved_model.pb").write_text(f"{number}")
        return push(model, base)

    monkeypatch.setattr(time, "time", lambda: 1000.0)
    monkeypatch.setattr(shutil, "copytree", copy_and_wait)
    with ThreadPoolExecutor(pushes) as threads:
        versions = list(threads.map(push_another, range(pushes)))
    assert sorted(versions) == list(range(1000, 1000 + pushes))
    for number, version in enumerate(versions):
        assert (base / str(version) / "saved_model.pb").read_text() == f"{number}"
    assert len(list(base.iterdir())) == pushes


def test_the_second_of_two_machines_gets_the_next_number(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, rename = tmp_path / "goodseed_age", os.rename
    taken: list[int] = []

    def rename_too_late(source: Path, target: Path) -> None:
        if not taken:
            taken.append(int(target.name))
            target.mkdir()
            (target / "saved_model.pb").write_bytes(b"of the other machine")
        rename(source, target)

    monkeypatch.setattr(os, "rename", rename_too_late)
    version = push(model, base)
    assert version > taken[0]
    assert (base / str(taken[0]) / "saved_model.pb").read_bytes() == b"of the other machine"
    assert (base / str(version) / "saved_model.pb").read_bytes() == b"graph"


def test_a_failed_push_leaves_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(source: Path, target: Path) -> None:
        target.mkdir()
        (target / "saved_model.pb").touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full_disk)
    with pytest.raises(OSError, match="No space left"):
        push(model, tmp_path / "goodseed_age")
    assert list((tmp_path / "goodseed_age").iterdir()) == []

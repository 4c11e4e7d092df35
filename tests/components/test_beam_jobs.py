"""Beam in the process of a step, and on a job service: Beam's own, in this process too."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import pytest

from components import beam_jobs
from components.beam_jobs import ARGUMENTS, check
from components.errors import UserError, one_line
from pipeline.config import Beam
from tests.job_service import job_service
from tests.ports import free_port


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[None]:
    """Lets Beam's jobs go to a job service."""
    with job_service(tmp_path / "staging") as where:
        before = beam_jobs.settings.set(where)
        yield
        beam_jobs.settings.reset(before)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of photos and one of a run."""
    photos, work = tmp_path / "photos", tmp_path / "run"
    photos.mkdir()
    work.mkdir()
    (photos / "labels.csv").touch()
    return photos, work


def write(folder: Path, *lines: str, fails: bool = False) -> None:
    """A job that writes lines to folder/Split-train, as Transform does."""

    def line(text: str) -> str:
        # As a worker leaves it that dies.
        (folder / "Split-train" / "beam-temp-data-1").mkdir(exist_ok=True)
        if fails:
            raise ValueError(f"{text} is bad")
        return text

    with beam.Pipeline(argv=ARGUMENTS) as pipeline:
        _ = (
            pipeline
            | beam.Create(lines)
            | beam.Map(line)
            | beam.io.WriteToText(str(folder / "Split-train" / "data"))
        )


def written(folder: Path) -> list[str]:
    files = sorted((folder / "Split-train").iterdir())
    return sorted(line for file in files for line in file.read_text().split())


def test_it_works_in_the_process(tmp_path: Path) -> None:
    write(tmp_path, "a", "b")
    shutil.rmtree(tmp_path / "Split-train" / "beam-temp-data-1")
    assert written(tmp_path) == ["a", "b"]


@pytest.mark.usefixtures("cluster")
def test_a_job_on_a_cluster_leaves_finished_files_only(tmp_path: Path) -> None:
    write(tmp_path, "a", "b")
    assert written(tmp_path) == ["a", "b"]


@pytest.mark.usefixtures("cluster")
def test_a_failed_job_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as failed:
        write(tmp_path, "a", fails=True)
    assert "ValueError: a is bad" in one_line(failed.value)
    assert written(tmp_path) == []


@pytest.mark.usefixtures("cluster")
def test_the_workers_see_the_files(folders: tuple[Path, Path]) -> None:
    check(*folders)
    assert os.listdir(folders[1]) == []


@pytest.mark.usefixtures("cluster")
def test_the_workers_do_not_see_the_files(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "exists", lambda path: "photos" not in str(path))
    with pytest.raises(UserError, match=r"workers there do not see the photos .*/photos: mount"):
        check(*folders)
    monkeypatch.setattr(os.path, "exists", lambda _: False)
    with pytest.raises(UserError, match=r"they do not see the run folder .*/run: mount the same"):
        check(*folders)


@pytest.mark.usefixtures("cluster")
def test_the_workers_may_not_write(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match=r"workers there may not write to .*/run: give them the"):
        check(*folders)


@pytest.mark.usefixtures("cluster")
def test_the_workers_run_other_code(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    revisions = iter(["new", *["old"] * 8])
    monkeypatch.setattr(beam_jobs, "_revision", lambda: next(revisions))
    with pytest.raises(UserError, match=r"workers there run revision old, not new: give them"):
        check(*folders)


def test_nothing_is_checked_without_a_cluster(tmp_path: Path) -> None:
    check(tmp_path / "absent", tmp_path / "absent")


def test_no_job_server(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beam_jobs, "_PATIENCE", 0.5)
    where = Beam(runner="portable", endpoint=f"127.0.0.1:{free_port()}")
    before = beam_jobs.settings.set(where)
    with pytest.raises(UserError, match=f"beam.endpoint {where.endpoint}: no job server answers"):
        check(*folders)
    beam_jobs.settings.reset(before)
    assert os.listdir(folders[1]) == []

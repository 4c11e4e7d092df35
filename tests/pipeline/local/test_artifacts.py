"""No run writes beside files that its store does not know, or reads them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2

from components.errors import UserError
from pipeline.local import artifacts
from pipeline.local.store import metadata_store

COMPLETE = metadata_store_pb2.Execution.COMPLETE
FAILED = metadata_store_pb2.Execution.FAILED
GEN, TRAINER = "PhotoExampleGen", "Trainer"


def step(run_dir: Path, node: str, key: str, state: int = COMPLETE, shard: str = "shard") -> Path:
    """Writes the files of a step and registers it, as TFX does; returns the artifact's folder."""
    run_dir.mkdir(exist_ok=True)
    store = metadata_store(run_dir / "metadata.db")
    execution, artifact = metadata_store_pb2.Execution(), metadata_store_pb2.Artifact()
    execution.type_id = store.put_execution_type(metadata_store_pb2.ExecutionType(name=node))
    artifact.type_id = store.put_artifact_type(metadata_store_pb2.ArtifactType(name=key))
    execution.last_known_state = state  # type: ignore[assignment]
    (execution.id,) = store.put_executions([execution])
    folder = run_dir / "artifacts" / node / key / str(execution.id)
    (folder / "Split-train").mkdir(parents=True, exist_ok=True)
    (folder / "Split-train" / shard).write_text(shard)
    (run_dir / "artifacts" / node / ".system" / "executor_execution" / str(execution.id)).mkdir(
        parents=True
    )
    if state == COMPLETE:
        artifact.uri = str(folder)
        event = metadata_store_pb2.Event(execution_id=execution.id)
        event.type = metadata_store_pb2.Event.OUTPUT
        event.path.steps.add().key = key
        store.put_execution(execution, [(artifact, event)], [])
    return folder


def remove_unknown(run_dir: Path) -> int:
    return artifacts.remove_unknown(run_dir, [GEN, TRAINER])


def test_what_complete_steps_wrote_stays(tmp_path: Path) -> None:
    folders = [step(tmp_path, GEN, "examples"), step(tmp_path, TRAINER, "model")]
    assert remove_unknown(tmp_path) == 0
    assert all((folder / "Split-train" / "shard").exists() for folder in folders)
    assert not (tmp_path / "artifacts" / GEN / ".system").exists()


def test_leftovers_of_a_killed_step_are_deleted(tmp_path: Path) -> None:
    folder = step(tmp_path, GEN, "examples", FAILED)
    assert remove_unknown(tmp_path) == 0  # nothing that is worth a word
    assert not folder.exists()


def test_a_store_that_is_gone_knows_nothing(tmp_path: Path) -> None:
    stale = step(tmp_path, GEN, "examples", shard="stale")
    (tmp_path / "metadata.db").unlink()
    assert remove_unknown(tmp_path) == 1
    assert step(tmp_path, GEN, "examples", shard="new") == stale
    assert [file.name for file in stale.rglob("*") if file.is_file()] == ["new"]


def test_an_older_store_knows_the_older_runs(tmp_path: Path) -> None:
    older = step(tmp_path, GEN, "examples")
    shutil.copy(tmp_path / "metadata.db", tmp_path / "backup")
    stale = step(tmp_path, GEN, "examples")
    shutil.move(tmp_path / "backup", tmp_path / "metadata.db")
    assert remove_unknown(tmp_path) == 1
    assert older.exists() and not stale.exists()


def test_another_steps_number_is_unknown(tmp_path: Path) -> None:
    step(tmp_path, GEN, "examples")
    stale = tmp_path / "artifacts" / TRAINER / "model" / "1"
    stale.mkdir(parents=True)
    remove_unknown(tmp_path)
    assert not stale.exists()


def test_a_moved_folder_keeps_its_artifacts(tmp_path: Path) -> None:
    folder = step(tmp_path / "before", GEN, "examples")
    shutil.move(tmp_path / "before", tmp_path / "after")
    assert remove_unknown(tmp_path / "after") == 0
    assert (tmp_path / "after" / folder.relative_to(tmp_path / "before")).exists()


def test_folders_of_other_programs_stay(tmp_path: Path) -> None:
    others = [tmp_path / "artifacts" / "models" / "resnet" / "2024", tmp_path / "2024"]
    for folder in others:
        folder.mkdir(parents=True)
    assert remove_unknown(tmp_path) == 0
    assert all(folder.exists() for folder in others)


def test_run_folders_copied_over_each_other_are_refused(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    kept = step(one, GEN, "examples", shard="one")
    step(other, GEN, "examples", shard="other")
    artifacts.record(one, [GEN])
    artifacts.check(one)
    shutil.copytree(other / "artifacts", one / "artifacts", dirs_exist_ok=True)
    with pytest.raises(UserError, match=r"examples/1: these are not the files.*new --run-dir"):
        artifacts.check(one)
    (one / "metadata.db").unlink()  # as the message says
    artifacts.check(one)
    assert remove_unknown(one) == 1
    assert not kept.exists()


@pytest.mark.parametrize("change", ["grown", "missing"])
def test_a_file_that_changed_is_refused(change: str, tmp_path: Path) -> None:
    folder = step(tmp_path, GEN, "examples")
    artifacts.record(tmp_path, [GEN])
    file = folder / "Split-train" / "shard"
    file.write_text("a longer shard") if change == "grown" else file.unlink()
    artifacts.record(tmp_path, [GEN])  # the first record counts
    with pytest.raises(UserError, match="not the files"):
        artifacts.check(tmp_path)


def test_what_no_step_reads_may_change(tmp_path: Path) -> None:
    """Reviewers write to the page's folder, desktops to any. A step without files runs again."""
    gone, page, seen = (step(tmp_path, node, "key") for node in (GEN, "Review", TRAINER))
    artifacts.record(tmp_path, [GEN, TRAINER])
    shutil.rmtree(gone)
    (page / "notes.txt").touch()
    (seen / ".DS_Store").touch()
    artifacts.check(tmp_path)


@pytest.mark.parametrize("content", [b"not a store", b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_store_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "metadata.db").write_bytes(content)
    with pytest.raises(UserError, match=r"metadata.db: [a-z ]+; restore it"):
        artifacts.check(tmp_path)

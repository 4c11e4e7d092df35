"""ServedModel copies the live model, and says if there is none."""

from __future__ import annotations

from pathlib import Path

from tfx.types.standard_artifacts import Model

from components.served_model import ServedModel, is_live
from pipeline.graph import NEVER_CACHED


def served(base: Path, folder: Path) -> Model:
    model = Model()
    model.uri = str(folder)
    executor = ServedModel.EXECUTOR_SPEC.executor_class()
    executor.Do({}, {"model": [model]}, {"serving_base": str(base)})
    return model


def test_no_model_is_live(tmp_path: Path) -> None:
    model = served(tmp_path / "none", tmp_path / "artifact")
    assert not is_live(model)
    assert not (tmp_path / "artifact").exists()


def test_the_newest_version_is_copied(tmp_path: Path) -> None:
    for version in (3, 20):
        folder = tmp_path / "base" / str(version)
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").write_text(f"version {version}")
    model = served(tmp_path / "base", tmp_path / "artifact")
    assert is_live(model)
    assert model.get_int_custom_property("served_version") == 20
    copied = tmp_path / "artifact" / "Format-Serving" / "saved_model.pb"
    assert copied.read_text() == "version 20"


def test_served_model_and_pusher_are_never_cached() -> None:
    assert {"ServedModel", "Pusher"} < NEVER_CACHED

"""Every knob can be set, and a wrong one is one clear line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import UserError
from pipeline.config import Config, load, profiles
from tests.conftest import ROOT


def loaded(*overrides: str, profile: str = "demo") -> Config:
    return load(profile=profile, photos="photos", run_dir="runs/x", overrides=overrides)


@pytest.mark.parametrize("profile", ["demo", "cpu", "gpu"])
def test_profiles_load(profile: str) -> None:
    assert profile in profiles()
    assert loaded(profile=profile).transform.image_size >= 32


def test_overrides_win_over_the_profile() -> None:
    config = loaded("trainer.epochs=3", "evaluator.max_mae=7.5", "data.age_column=years")
    assert config.trainer.epochs == 3
    assert config.evaluator.max_mae == 7.5
    assert config.data.age_column == "years"
    assert config.trainer.initial_weights == "none"  # the profile's, untouched


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.h5").touch()
    config = loaded("trainer.initial_weights=w.h5", "serving.root=live")
    assert config.run_dir == str(tmp_path / "runs/x")
    assert config.data.photos == str(tmp_path / "photos")
    assert config.trainer.initial_weights == str(tmp_path / "w.h5")
    assert config.serving_base == tmp_path / "live" / "goodseed_age"


def test_serving_root_is_in_the_run_folder_by_default() -> None:
    config = loaded()
    assert config.serving_base == Path(config.run_dir) / "serving" / "goodseed_age"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.epoch=3", "trainer.epoch: no such option"),
        ("trainr.epochs=3", "section one of"),
        ("trainer.epochs", "write section.key=value"),
        ("run_dir.x=3", "section one of"),
        ("trainer.epochs=many", "trainer.epochs"),
        ("trainer.epochs=0", "trainer.epochs"),
        ("trainer.epochs={", "not YAML"),
        ("trainer.precision=int4", "trainer.precision"),
        ("trainer.initial_weights=/no/such.h5", "no file /no/such.h5"),
        ("data.eval_share=0.4", "test split"),
        ("transform.image_size=8", "transform.image_size"),
        ("serving.model_name=a/b", "serving.model_name"),
        ("data.photos=/elsewhere", "--photos alone"),
    ],
)
def test_mistakes_are_one_line(override: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        loaded(override)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["run[1]", "run*", "what?", "back\\slash", "a[b/run"])
def test_a_folder_that_is_a_pattern_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"--run-dir .*TensorFlow can't work in a folder with ."):
        load(profile="demo", photos="photos", run_dir=name)
    with pytest.raises(UserError, match=r"serving.root .*TensorFlow can't work"):
        loaded(f"serving.root={name}")


def test_other_names_are_taken() -> None:
    run = "run ,:%#{}$&;'\"@=+!~] é"
    assert load(profile="demo", photos="[photos] *?\\", run_dir=run).run_dir.endswith(run)


@pytest.mark.parametrize("encoding", ["iso8859-1", "ascii"])
def test_tensorflow_and_python_mean_the_same_folder(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: encoding)
    with pytest.raises(UserError, match="folder with é in its path"):
        load(profile="demo", photos="é", run_dir="é")
    load(profile="demo", photos="é", run_dir="e")


@pytest.mark.parametrize("option", ["photos", "run_dir", "exclude"])
def test_a_path_that_is_not_utf8_is_refused(option: str) -> None:
    paths: dict[str, Any] = {"photos": "photos", "run_dir": "run"}
    paths[option] = os.fsdecode(b"caf\xe9")
    with pytest.raises(UserError, match=r"--.* 'caf\\udce9': the name is not in utf-8"):
        load(profile="demo", **paths)


def test_exclude_is_given_once(tmp_path: Path) -> None:
    def excluded(exclude: str | None, *overrides: str) -> str | None:
        config = load(
            profile="demo", photos="photos", run_dir="run", exclude=exclude, overrides=overrides
        )
        return config.data.exclude

    listed = str(tmp_path / "suspects.csv")
    assert excluded(listed) == excluded(None, f"data.exclude={listed}") == listed
    assert excluded(None) is None
    with pytest.raises(UserError, match=r"data\.exclude.*--exclude alone"):
        excluded(listed, "data.exclude=others.csv")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["beam.runner=flink"], "the runner flink needs beam.endpoint=HOST:PORT"),
        (["beam.endpoint=flink:8099"], "an endpoint needs beam.runner=flink, or portable"),
        (["beam.runner=flink", "beam.endpoint=http://flink"], "beam.endpoint: String should match"),
        (["beam.runner=FlinkRunner"], "beam.runner: Input should be 'direct', 'flink' or"),
    ],
)
def test_where_beam_works_is_whole(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        loaded(*overrides)
    assert loaded("beam.runner=flink", "beam.endpoint=flink:8099").beam.parallelism == 2


def test_unknown_profile() -> None:
    with pytest.raises(UserError, match="choose one of cpu, demo, gpu"):
        loaded(profile="tpu")


@given(st.text(max_size=40))
def test_any_override_is_taken_or_refused(text: str) -> None:
    try:
        loaded(text)
    except UserError as error:
        assert "\n" not in str(error)


def test_it_imports_no_component_and_nothing_heavy() -> None:
    """The components import their sections from it, so it can't import them."""
    program = (
        "import sys, pipeline.config; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & set(sys.argv[1:])),"
        " [name for name in sys.modules if name.startswith('components.')])"
    )
    heavy = ["tensorflow", "tfx", "apache_beam", "kfp", "rich", "numpy"]
    command = [sys.executable, "-c", program, *heavy]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[] ['components.errors']\n"

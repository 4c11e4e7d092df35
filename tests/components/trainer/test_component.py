"""The step as TFX calls it: what it writes, what it refuses, and where it resumes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from components.certificate import read
from components.errors import UserError
from components.trainer import component, model
from components.trainer.fit import SaveEpochs
from pipeline.config import Policy
from schemas import features
from tests.components.trainer import tiny
from tests.components.trainer.conftest import Transformed
from tests.conftest import ROOT


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_trunk", tiny.trunk)


pytestmark = pytest.mark.usefixtures("_small")


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> list[list[np.ndarray]]:
    """Collects the weights of each exported network; no SavedModel is written, to save time."""
    found: list[list[np.ndarray]] = []

    def keep(network: keras.Model, *_: Any, **__: Any) -> None:
        found.append(network.get_weights())

    monkeypatch.setattr(model, "export", keep)
    return found


def arguments(folder: Path, transformed: Transformed, **changes: Any) -> SimpleNamespace:
    """The part of TFX's FnArgs that `run_fn` uses, as plain values."""
    return SimpleNamespace(
        train_files=transformed.files(features.TRAIN),
        eval_files=transformed.files(features.EVAL),
        transform_graph_path=str(transformed.graph),
        serving_model_dir=str(folder / "model" / "Format-Serving"),
        model_run_dir=str(folder / "model_run"),
        custom_config={
            "settings": tiny.settings(**changes).model_dump(),
            "preprocessing": tiny.PREPROCESSING.model_dump(),
            "max_refused": 0.0,
            "policy": Policy().model_dump(),
            "max_pixels": 1_000_000,
            "max_batch_size": 4,
            "resume_root": str(folder / "resume"),
        },
    )


def history(args: SimpleNamespace) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(args.model_run_dir, "history.json").read_text())
    for entry in found["epochs"]:
        del entry["seconds"]
    return found


def serve(args: SimpleNamespace, transformed: Transformed) -> np.ndarray:
    servable = tf.saved_model.load(args.serving_model_dir)
    records = tf.constant(tiny.read(transformed.raw / f"Split-{features.TEST}"))
    ages: np.ndarray = servable.signatures["examples"](examples=records)["age"].numpy()
    return ages


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return {
        tag: {e.step: float(tf.make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)}
        for tag in events.Tags()["tensors"]
    }


def test_it_writes_a_servable_a_history_and_tensorboard_logs(
    transformed: Transformed, tmp_path: Path
) -> None:
    args = arguments(tmp_path, transformed, epochs=3)
    component.run_fn(args)

    ages = serve(args, transformed)
    assert ages.shape == (8,)
    assert np.isfinite(ages).all()
    assert Path(args.model_run_dir, "left_out.csv").read_text() == "file_name,split,objection\n"
    certificate = read(Path(args.serving_model_dir, "assets", "certificate.json"))
    assert certificate.challenge_age is None  # eval has only 8 photos

    told = history(args)
    epochs = told["epochs"]
    assert [entry["epoch"] for entry in epochs] == [1, 2, 3]
    best = min(epochs, key=lambda entry: entry["val_mae"])
    assert told["best_epoch"] == best["epoch"]
    assert (told["stopped"], told["precision"]) == ("epochs", "float32")
    assert told["parameters"] > 0

    train = scalars(Path(args.model_run_dir, "train"))
    validation = scalars(Path(args.model_run_dir, "validation"))
    for name, run, key in (
        ("epoch_loss", train, "loss"),
        ("epoch_mae", train, "mae"),
        ("epoch_learning_rate", train, "learning_rate"),
        ("epoch_loss", validation, "val_loss"),
        ("epoch_mae", validation, "val_mae"),
    ):
        expected = {entry["epoch"] - 1: entry[key] for entry in epochs}  # Keras counts from 0
        assert run[name] == pytest.approx(expected, rel=1e-5), (name, key)

    assert list(Path(tmp_path, "resume").iterdir()) == []


def test_what_is_served_has_the_best_weights_in_float32(
    transformed: Transformed, tmp_path: Path
) -> None:
    """It trains in bfloat16. The served model's eval MAE is near that of the best epoch."""
    args = arguments(tmp_path, transformed, precision="bfloat16", learning_rate=0.02)
    component.run_fn(args)
    servable = tf.saved_model.load(args.serving_model_dir)
    records = tiny.read(transformed.raw / f"Split-{features.EVAL}")
    ages = servable.signatures["examples"](examples=tf.constant(records))["age"].numpy()
    mae = np.abs(ages - [tiny.parse(record)[2] for record in records]).mean()
    best = min(entry["val_mae"] for entry in history(args)["epochs"])
    assert mae == pytest.approx(best, abs=0.3)
    assert "DT_BFLOAT16" not in str(servable.signatures["examples"].graph.as_graph_def())


def test_it_starts_at_the_ages_of_the_train_photos(
    transformed: Transformed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    weights: list[list[np.ndarray]],
) -> None:
    asked: dict[str, Any] = {}
    build = model.build

    def watch(*args: Any, **more: Any) -> keras.Model:
        asked.setdefault("ages", more["ages"])
        return build(*args, **more)

    monkeypatch.setattr(model, "build", watch)
    component.run_fn(arguments(tmp_path, transformed, epochs=1))
    raw = tiny.read(transformed.raw / f"Split-{features.TRAIN}")
    assert sorted(asked["ages"]) == pytest.approx(sorted(tiny.parse(r)[2] for r in raw))


@pytest.mark.slow
def test_a_seed_has_one_history(
    transformed: Transformed, tmp_path: Path, weights: list[list[np.ndarray]]
) -> None:
    runs = {
        name: arguments(tmp_path / name, transformed, epochs=2, seed=seed)
        for name, seed in (("one", 1), ("again", 1), ("other", 2))
    }
    for args in runs.values():
        component.run_fn(args)
    one, again, other = (history(args) for args in runs.values())
    assert one == again
    assert one != other
    assert all(np.array_equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))


@pytest.mark.parametrize("split", ["train_files", "eval_files"])
def test_an_empty_split_is_the_users_mistake(
    transformed: Transformed, tmp_path: Path, split: str
) -> None:
    args = arguments(tmp_path, transformed)
    setattr(args, split, [tiny.write(tmp_path / "empty" / "none.gz", [])])
    with pytest.raises(UserError, match=r"no photo") as caught:
        component.run_fn(args)
    assert "\n" not in str(caught.value)
    assert not Path(args.serving_model_dir).exists()


def test_photos_with_an_objection_are_left_out_and_listed(
    transformed: Transformed, tmp_path: Path, weights: list[list[np.ndarray]]
) -> None:
    args = arguments(tmp_path, transformed, epochs=1)
    many = [float(age) for age in range(20)]
    args.train_files = [
        tiny.write_squares(tmp_path / "good.gz", many),
        tiny.write_squares(tmp_path / "none.gz", [99.0, 99.0], 90, features.NO_FACE),
    ]
    args.eval_files = [
        tiny.write_squares(tmp_path / "eval.gz", many, 30),
        tiny.write_squares(tmp_path / "small.gz", [99.0], 92, features.SMALL_FACE),
    ]
    component.run_fn(args)
    assert Path(args.model_run_dir, "left_out.csv").read_text() == (
        "file_name,split,objection\n"
        "90.jpg,train,no_face\n91.jpg,train,no_face\n92.jpg,eval,small_face\n"
    )


def test_an_album_of_landscapes_is_the_users_mistake(
    transformed: Transformed, tmp_path: Path
) -> None:
    args = arguments(tmp_path, transformed)
    args.train_files = [
        tiny.write_squares(tmp_path / "good.gz", [20.0] * 30),
        tiny.write_squares(tmp_path / "none.gz", [30.0] * 9, 90, features.NO_FACE),
        tiny.write_squares(tmp_path / "cut.gz", [30.0], 80, features.CUT_FACE),
    ]
    with pytest.raises(
        UserError, match=r"^10 of 48 train and eval photos have no usable"
    ) as caught:
        component.run_fn(args)
    assert "(no_face 9, cut_face 1; the first is 80.jpg)" in str(caught.value)
    assert "transform.max_without_face" in str(caught.value)


def test_a_newborn_is_a_photo(
    transformed: Transformed, tmp_path: Path, weights: list[list[np.ndarray]]
) -> None:
    """An eval split whose first age is 0 is not empty."""
    args = arguments(tmp_path, transformed, epochs=1)
    args.eval_files = [tiny.write_squares(tmp_path / "newborn.gz", [0.0, 0.0])]
    component.run_fn(args)
    assert weights


def test_fewer_photos_than_a_batch(
    transformed: Transformed, tmp_path: Path, weights: list[list[np.ndarray]]
) -> None:
    args = arguments(tmp_path, transformed, epochs=1, batch_size=512)
    component.run_fn(args)
    assert len(history(args)["epochs"]) == 1


def test_the_resume_folder_tells_trainings_apart(transformed: Transformed, tmp_path: Path) -> None:
    base = arguments(tmp_path, transformed)
    others = [
        arguments(tmp_path, transformed, seed=1),
        arguments(tmp_path, transformed, learning_rate=0.5),
        arguments(tmp_path, transformed, initial_weights="imagenet"),
    ]
    (tmp_path / "other").symlink_to(transformed.examples)
    for split in ("train", "eval"):
        args = arguments(tmp_path, transformed)
        vars(args)[f"{split}_files"] = [f"{tmp_path}/other/Split-{split}/*"]
        others.append(args)
    args = arguments(tmp_path, transformed)
    args.custom_config["preprocessing"]["image_size"] = 64
    others.append(args)
    folders = [component._resume_folder(args, "float32") for args in [base, *others]]
    folders.append(component._resume_folder(base, "bfloat16"))  # what `auto` means elsewhere
    assert len(set(folders)) == len(folders)
    assert component._resume_folder(arguments(tmp_path, transformed), "float32") == folders[0]
    # A new run has new artifact folders; the weights do not depend on them.
    args = arguments(tmp_path, transformed)
    args.serving_model_dir = args.model_run_dir = "elsewhere"
    assert component._resume_folder(args, "float32") == folders[0]


@pytest.mark.parametrize("split", ["train", "eval"])
def test_other_photos_under_the_same_names_do_not_resume(
    split: str, transformed: Transformed, tmp_path: Path
) -> None:
    """A run folder without its metadata store gives the same numbers to new artifacts."""
    args = arguments(tmp_path, transformed)
    tiny.write_squares(tmp_path / "squares.gz", [20.0, 30.0])
    vars(args)[f"{split}_files"] = [str(tmp_path / "squares.gz")]
    before = component._resume_folder(args, "float32")
    tiny.write_squares(tmp_path / "squares.gz", [20.0, 40.0])
    assert component._resume_folder(args, "float32") != before


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fma avx512_bf16", "bfloat16"), ("amx_bf16", "bfloat16"), ("fma avx2", "float32")],
)
def test_auto_precision_is_what_the_cpu_multiplies(
    monkeypatch: pytest.MonkeyPatch, flags: str, expected: str
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: f"flags\t\t: {flags}\n")
    assert component.resolve_precision("auto") == expected
    assert component.resolve_precision("float16") == "float16"


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((8, 0), "bfloat16"), ((9, 0), "bfloat16"), ((7, 5), "float16"), ((6, 1), "float32")],
)
def test_auto_precision_is_what_the_gpu_multiplies(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str
) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    details = {"compute_capability": capability}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    assert component.resolve_precision("auto") == expected


SCRIPT = """
import json, os, signal, sys
from types import SimpleNamespace
import tensorflow as tf
wanted = json.loads(sys.argv[1])
if wanted["devices"] > 1:
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * wanted["devices"],
    )
from components.trainer import component, model
from components.trainer.fit import SaveEpochs
from pipeline.config import Policy
from tests.components.trainer import tiny
model._trunk = tiny.trunk
save = SaveEpochs.on_epoch_end
def save_and_kill(self, epoch, logs):
    save(self, epoch, logs)
    if epoch + 1 == wanted["kill_after"]:
        os.kill(os.getpid(), signal.SIGKILL)
SaveEpochs.on_epoch_end = save_and_kill
component.run_fn(SimpleNamespace(**wanted["arguments"]))
print(type(component._strategy()).__name__, component._strategy().num_replicas_in_sync)
"""


def in_a_process(
    args: SimpleNamespace, devices: int = 1, kill_after: int = 0
) -> subprocess.CompletedProcess[str]:
    wanted = {"arguments": vars(args), "devices": devices, "kill_after": kill_after}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(wanted)],
        cwd=ROOT,
        env=None,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_several_devices_train_one_model(transformed: Transformed, tmp_path: Path) -> None:
    """MirroredStrategy trains on two logical CPU devices. It is killed, then resumed.

    Without dropout and with constant norms, several devices give the results of one device.
    """
    changes = {"initial_weights": "imagenet", "dropout": 0.0, "epochs": 2}
    args = arguments(tmp_path, transformed, **changes)
    killed = in_a_process(args, devices=2, kill_after=1)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert not Path(args.serving_model_dir).exists()
    done = in_a_process(args, devices=2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-2:] == ["MirroredStrategy", "2"]
    assert np.isfinite(serve(args, transformed)).all()
    alone = arguments(tmp_path / "alone", transformed, **changes)
    component.run_fn(alone)
    for one, other in zip(history(args)["epochs"], history(alone)["epochs"], strict=True):
        assert one.pop("phase") == other.pop("phase")
        assert one == pytest.approx(other, rel=0.01, abs=1e-9)


@pytest.mark.slow
def test_several_devices_scale_the_loss(transformed: Transformed, tmp_path: Path) -> None:
    args = arguments(tmp_path, transformed, precision="float16")
    done = in_a_process(args, devices=2)
    assert done.returncode == 0, done.stderr[-2000:]
    epochs = history(args)["epochs"]
    assert np.isfinite([entry["val_mae"] for entry in epochs]).all()
    assert epochs[-1]["mae"] != epochs[0]["mae"]


@pytest.mark.slow
def test_a_killed_step_goes_on_where_it_was(
    transformed: Transformed,
    tmp_path: Path,
    weights: list[list[np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Killed(Exception):
        pass

    save = SaveEpochs.on_epoch_end

    def save_and_kill(self: SaveEpochs, epoch: int, logs: dict[str, Any]) -> None:
        save(self, epoch, logs)
        if epoch + 1 == 2:
            raise Killed

    args = arguments(tmp_path / "killed", transformed, epochs=4)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(SaveEpochs, "on_epoch_end", save_and_kill)
        component.run_fn(args)
    # TFX gives the second run an artifact folder of its own; TensorBoard shows all epochs there.
    args.model_run_dir = str(tmp_path / "second" / "model_run")
    component.run_fn(args)
    whole = arguments(tmp_path / "whole", transformed, epochs=4)
    component.run_fn(whole)
    for one, other in zip(history(args)["epochs"], history(whole)["epochs"], strict=True):
        assert one.pop("phase") == other.pop("phase")
        assert one == pytest.approx(other, rel=1e-3)
    shown = scalars(Path(args.model_run_dir, "validation"))["epoch_mae"]
    assert list(shown) == [0, 1, 2, 3]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_the_component_asks_for_this_run_fn() -> None:
    from tfx.types import Channel, standard_artifacts

    step = component.trainer(
        Channel(type=standard_artifacts.Examples),
        Channel(type=standard_artifacts.TransformGraph),
        settings=tiny.settings(),
        preprocessing=tiny.PREPROCESSING,
        max_refused=0.02,
        policy=Policy(),
        max_pixels=1_000_000,
        max_batch_size=4,
        resume_root="resume",
    )
    assert step.exec_properties["run_fn"] == "components.trainer.component.run_fn"
    config = json.loads(step.exec_properties["custom_config"])
    assert config == {
        "settings": tiny.settings().model_dump(),
        "preprocessing": tiny.PREPROCESSING.model_dump(),
        "max_refused": 0.02,
        "policy": Policy().model_dump(),
        "max_pixels": 1_000_000,
        "max_batch_size": 4,
        "resume_root": "resume",
    }
    assert {"model", "model_run"} <= step.outputs.keys()

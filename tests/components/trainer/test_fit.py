"""The loop: phases, learning rate, early stopping, and resuming after a kill."""

from __future__ import annotations

import functools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.errors import UserError
from components.trainer import model
from components.trainer.fit import EPOCHS, HEAD, PATIENCE, WHOLE, State, Training, whole_optimizer
from components.trainer.heads import HEADS, LAYER
from components.upstream import without_autotune
from tests.components.trainer import tiny

STEPS, BATCH = 4, 8


class Killed(Exception):
    """Ends a training as a kill would."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_trunk", tiny.trunk)


def network(
    mean_age: float = 40.0,
    seed: int = 0,
    precision: str = "float32",
    initial_weights: str = "none",
) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return model.build(
        tiny.SIZE,
        initial_weights=initial_weights,
        head=HEADS[tiny.settings().head],
        ages=np.array([mean_age]),
        dropout=0.3,
        precision=precision,
    )


def batches(seed: int, steps: int = STEPS, age: float | None = None) -> tf.data.Dataset:
    """Photos whose brightness grows with their ages. With `age`, all have this age as the label."""
    random = np.random.default_rng(seed)
    ages = random.uniform(10, 80, steps * BATCH).astype(np.float32)
    noise = random.integers(0, 40, (len(ages), tiny.SIZE, tiny.SIZE, 3))
    images = (noise + ages[:, None, None, None] * 2.5).astype(np.uint8)
    years = ages if age is None else np.full_like(ages, age)
    slices = tf.data.Dataset.from_tensor_slices((images, years))
    return slices.batch(BATCH).with_options(without_autotune())


def epochs(numbers: range, age: float | None) -> tf.data.Dataset:
    """Like `data.train_batches`: one epoch after the other, each with batches of its own."""
    several = [batches(number, age=age) for number in numbers]
    return functools.reduce(tf.data.Dataset.concatenate, several)


class OnEpoch(keras.callbacks.Callback):
    """Calls a function with the number of each epoch that is over, from 1."""

    def __init__(self, call: Callable[[int], None]):
        super().__init__()
        self._call = call

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._call(epoch + 1)


def train(
    folder: Path,
    net: keras.Model,
    evaluation: tf.data.Dataset | None = None,
    on_epoch: Callable[[int], None] = lambda epoch: None,
    age: float | None = None,
    **changes: Any,
) -> State:
    return Training(net, tiny.settings(**changes), STEPS, folder).run(
        lambda numbers: epochs(numbers, age),
        evaluation or batches(99, steps=2),
        [OnEpoch(on_epoch)],
    )


def stop_after(last: int) -> Callable[[int], None]:
    def on_epoch(epoch: int) -> None:
        if epoch == last:
            raise Killed

    return on_epoch


def arrays(weights: list[Any]) -> list[np.ndarray]:
    return [np.array(weight.numpy()) for weight in weights]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def numbers(state: State) -> list[dict[str, Any]]:
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in state.history]


def assert_alike(one: State, other: State) -> None:
    assert len(one.history) == len(other.history)
    assert one.best_epoch == other.best_epoch
    for a, b in zip(numbers(one), numbers(other), strict=True):
        assert a.pop("phase") == b.pop("phase")
        assert a == pytest.approx(b, rel=1e-4)


def test_it_learns(tmp_path: Path) -> None:
    net = network()
    untrained = net_mae(net, batches(99, steps=2))
    state = train(tmp_path, net, epochs=12, learning_rate=0.05)
    assert state.best_mae < untrained / 2
    assert [entry["epoch"] for entry in state.history] == list(range(1, 13))
    assert state.stopped == EPOCHS


def net_mae(net: keras.Model, evaluation: tf.data.Dataset) -> float:
    age = HEADS[tiny.settings().head].age
    errors = [abs(age(net(images))[:, 0] - years).numpy() for images, years in evaluation]
    return float(np.concatenate(errors).mean())


def test_head_epochs_freeze_the_trunk(tmp_path: Path) -> None:
    net = network(initial_weights="imagenet")
    trunk, head = net.get_layer(model.TRUNK), net.get_layer(LAYER)
    seen: list[tuple[list[np.ndarray], list[np.ndarray]]] = [
        (arrays(trunk.weights), arrays(head.weights))
    ]

    def watch(epoch: int) -> None:
        seen.append((arrays(trunk.weights), arrays(head.weights)))

    state = train(
        tmp_path, net, on_epoch=watch, initial_weights="imagenet", head_epochs=2, epochs=1
    )
    assert [entry["phase"] for entry in state.history] == [HEAD, HEAD, WHOLE]
    start, first, second, third = seen
    assert same(start[0], first[0]) and same(first[0], second[0])
    assert not same(start[1], first[1])
    changed = [not np.array_equal(a, b) for a, b in zip(second[0], third[0], strict=True)]
    assert changed == [True, True, *[False] * 4]  # kernel and bias, but not the batch norm
    assert not same(second[1], third[1])


def test_random_weights_learn_their_batch_norms_too(tmp_path: Path) -> None:
    net = network()
    trunk = net.get_layer(model.TRUNK)
    before = arrays(trunk.weights)
    train(tmp_path, net, initial_weights="none", epochs=1)
    # Kernel, bias, scale, offset, mean and variance: each of them changes.
    assert not any(np.array_equal(a, b) for a, b in zip(before, arrays(trunk.weights), strict=True))


def test_loaded_weights_keep_their_batch_norms(tmp_path: Path) -> None:
    """Neither the scales nor the statistics change, and they are used in training too."""
    net = network(initial_weights="loaded")
    (norm,) = (
        layer
        for layer in net.get_layer(model.TRUNK).layers
        if isinstance(layer, keras.layers.BatchNormalization)
    )
    norm.set_weights([np.full(8, value, np.float32) for value in (1.5, 0.2, 3.0, 4.0)])
    before = arrays(norm.weights)
    train(tmp_path, net, initial_weights="loaded", head_epochs=1, epochs=2)
    assert same(before, arrays(norm.weights))
    pictures = np.random.default_rng(0).normal(size=(4, 7, 7, 8)).astype(np.float32)
    np.testing.assert_allclose(norm(pictures, training=True), norm(pictures, training=False))


def test_random_weights_have_no_head_phase(tmp_path: Path) -> None:
    state = train(tmp_path, network(), initial_weights="none", head_epochs=2, epochs=2)
    assert [entry["phase"] for entry in state.history] == [WHOLE, WHOLE]


def test_learning_rate_warms_up_and_decays(tmp_path: Path) -> None:
    peak, epochs = 1e-3, 8
    state = train(tmp_path, network(), epochs=epochs, learning_rate=peak, warmup_share=0.25)
    steps, warmup = STEPS * epochs, STEPS * epochs // 4
    for epoch, entry in enumerate(state.history, 1):
        step = epoch * STEPS
        if step <= warmup:
            expected = peak * step / warmup
        else:
            share = (step - warmup) / (steps - warmup)
            expected = peak * (1 + math.cos(math.pi * share)) / 2
        assert entry["learning_rate"] == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_head_has_its_own_learning_rate(tmp_path: Path) -> None:
    state = train(
        tmp_path,
        network(),
        initial_weights="imagenet",
        head_epochs=1,
        epochs=1,
        head_learning_rate=0.02,
    )
    assert state.history[0]["learning_rate"] == pytest.approx(0.02)
    assert state.history[1]["learning_rate"] == pytest.approx(0, abs=1e-9)


def test_it_stops_early_and_keeps_the_best_weights(tmp_path: Path) -> None:
    """It learns 80 years and is measured on 20, so each epoch is worse than the one before."""
    net = network(mean_age=20.0)
    evaluation = batches(99, steps=2, age=20.0)
    state = train(tmp_path, net, evaluation, age=80.0, epochs=10, patience=3, learning_rate=0.05)
    maes = [entry["val_mae"] for entry in state.history]
    assert len(maes) == 4
    assert maes == sorted(maes)
    assert (state.best_epoch, state.best_mae) == (1, maes[0])
    assert state.stopped == PATIENCE
    assert net_mae(net, evaluation) == pytest.approx(maes[0], rel=1e-4)
    # A saved epoch is large, so only the best one and the last are kept.
    assert {file.name for file in tmp_path.glob("epoch-*")} == {"epoch-1.npz", "epoch-4.npz"}


def test_a_worse_start_of_the_whole_phase_has_its_patience(tmp_path: Path) -> None:
    """The best epoch may be one of the head's; patience counts from the whole network's start."""
    state = train(
        tmp_path,
        network(mean_age=20.0),
        batches(99, steps=2, age=20.0),
        age=80.0,
        initial_weights="imagenet",
        head_epochs=3,
        head_learning_rate=1e-5,
        epochs=10,
        learning_rate=0.05,
        patience=2,
    )
    assert [entry["phase"] for entry in state.history] == [HEAD] * 3 + [WHOLE] * 2


def test_the_history_has_what_the_reviewers_page_shows(tmp_path: Path) -> None:
    state = train(tmp_path, network(), epochs=1)
    wanted = {"epoch", "phase", "loss", "mae", "val_loss", "val_mae", "learning_rate", "seconds"}
    assert state.history[0].keys() == wanted


def test_biases_and_norms_do_not_decay() -> None:
    net = network()
    optimizer = whole_optimizer(tiny.settings(), STEPS)
    optimizer.build(net.trainable_variables)
    decays = {v.path for v in net.trainable_variables if optimizer._use_weight_decay(v)}
    assert len(decays) == 2 and all(path.endswith("kernel") for path in decays)


PHASES: dict[str, Any] = {"initial_weights": "imagenet", "head_epochs": 2, "epochs": 2}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[State, list[np.ndarray]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "_trunk", tiny.trunk)
        net = network()
        state = train(tmp_path_factory.mktemp("whole"), net, **PHASES)
    return state, net.get_weights()


@pytest.mark.parametrize(
    "epoch", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)]
)
def test_a_killed_training_goes_on_as_if_it_had_not_been(
    tmp_path: Path, uninterrupted: tuple[State, list[np.ndarray]], epoch: int
) -> None:
    """Killed after a head epoch, the last head epoch or an epoch of the whole network."""
    with pytest.raises(Killed):
        train(tmp_path, network(), on_epoch=stop_after(epoch), **PHASES)
    trained: list[int] = []
    resumed = train(
        tmp_path,
        net := network(seed=5),  # everything must come from the folder
        on_epoch=trained.append,
        **PHASES,
    )
    assert trained == list(range(epoch + 1, 5))
    state, weights = uninterrupted
    assert_alike(state, resumed)
    for a, b in zip(weights, net.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_a_training_killed_after_its_last_epoch_has_nothing_left_to_do(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path, network(), on_epoch=stop_after(3))
    state = train(tmp_path, network(seed=5), age=1e6)  # the history would show it
    assert len(state.history) == 3
    assert all(entry["mae"] < 1e3 for entry in state.history)


@pytest.mark.slow
def test_early_stopping_outlives_a_kill(tmp_path: Path) -> None:
    def run(folder: str, **more: Any) -> State:
        return train(
            tmp_path / folder,
            network(mean_age=20.0),
            batches(99, steps=2, age=20.0),
            age=80.0,
            epochs=10,
            patience=3,
            **more,
        )

    whole = run("whole")
    with pytest.raises(Killed):
        run("killed", on_epoch=stop_after(3))
    assert_alike(whole, run("killed"))


@pytest.mark.slow
@pytest.mark.parametrize("at", ["variables", "state file"])
def test_a_kill_in_the_middle_of_saving_costs_one_epoch(
    tmp_path: Path,
    uninterrupted: tuple[State, list[np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
    at: str,
) -> None:
    """The training also resumes from a folder that has been moved."""
    with pytest.raises(Killed):
        train(tmp_path / "here", network(), on_epoch=stop_after(2), **PHASES)
    write_text, savez = Path.write_text, np.savez

    def half_of_the_state(self: Path, text: str, encoding: str) -> int:
        write_text(self, text[: len(text) // 2], encoding)
        raise Killed

    def half_of_the_variables(file: Path, *arrays: np.ndarray) -> None:
        savez(file, *arrays)
        file.write_bytes(file.read_bytes()[:100])
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        if at == "variables":
            patch.setattr(np, "savez", half_of_the_variables)
        else:
            patch.setattr(Path, "write_text", half_of_the_state)
        train(tmp_path / "here", network(seed=5), **PHASES)
    state_file = tmp_path / "here" / "state.json"
    assert len(json.loads(state_file.read_text())["history"]) == 2
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert_alike(uninterrupted[0], train(tmp_path / "there", network(seed=6), **PHASES))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_float16_alone_scales_its_loss(tmp_path: Path, precision: str) -> None:
    """In float16, small gradients are zeros unless the loss is scaled."""
    net = network(precision=precision)
    train(tmp_path, net, epochs=1)
    scales = isinstance(net.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scales == (precision == "float16")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "initial_weights"), [("float16", "none"), ("float32", "imagenet")]
)
def test_xla_compiles_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, initial_weights: str
) -> None:
    """On one GPU, Keras compiles the steps by XLA. Here the test asks for it."""
    compiled = functools.partialmethod(keras.Model.compile, jit_compile=True)
    monkeypatch.setattr(keras.Model, "compile", compiled)
    net = network(precision=precision, initial_weights=initial_weights)
    state = train(tmp_path, net, initial_weights=initial_weights, head_epochs=1, epochs=1)
    assert net.jit_compile
    assert all(math.isfinite(entry["val_mae"]) for entry in state.history)


def test_a_training_without_a_number_says_so(tmp_path: Path) -> None:
    """ReLU turns NaN into 0, so the eval MAE alone would look sound."""
    net = network()
    with pytest.raises(UserError, match="learning_rate"):
        train(tmp_path, net, age=math.nan, epochs=1)

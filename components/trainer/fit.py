"""The training: first the head, then the whole network; it can go on after a kill."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components.errors import UserError
from components.progress import report
from components.trainer.heads import HEADS
from components.trainer.model import TRUNK
from pipeline import config

HEAD, WHOLE = "head", "whole"
EPOCHS, PATIENCE = "epochs", "patience"  # why a training stopped: it used up one of the two
LOGS = "logs"  # TensorBoard's folder, beside the saved epochs


@dataclass
class State:
    """What is saved beside the variables after each whole epoch."""

    best_mae: float = math.inf  # years, on the eval split
    best_epoch: int = 0
    stopped: str = ""  # EPOCHS or PATIENCE, when the training has stopped
    history: list[dict[str, Any]] = field(default_factory=list)  # one entry for each epoch

    @property
    def epochs_done(self) -> int:
        """How many whole epochs there were."""
        return len(self.history)


class Training:
    """One training of one model.

    Args:
        model: as `model.build` returns it.
        settings: the `trainer` section of the configuration.
        steps: batches in an epoch.
        folder: keeps the state of the training after a kill, for the next run.
    """

    def __init__(self, model: keras.Model, settings: config.Trainer, steps: int, folder: Path):
        # With random weights, a head alone learns nothing. So all layers train from the start.
        head_epochs = 0 if settings.initial_weights == "none" else settings.head_epochs
        # The number of each phase's last epoch.
        self._last = {HEAD: head_epochs, WHOLE: head_epochs + settings.epochs}
        self._model = model
        self._settings = settings
        self._steps = steps
        self._folder = folder
        self._phase = ""

    def run(
        self,
        train: Callable[[range], tf.data.Dataset],
        evaluation: tf.data.Dataset,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> State:
        """Trains until the epochs or the patience are used up, and loads the best weights.

        Args:
            train: gives the batches of the epochs with the given numbers, from 0.
            evaluation: the batches of the eval split.
            callbacks: further callbacks; they are called after the epoch has been saved.

        Raises:
            UserError: the loss is no longer a number.
        """
        saves = SaveEpochs(self._folder, self._last, self._settings.patience)
        state = saves.state
        if state.epochs_done:
            self._load(saves, state.epochs_done)
        for phase, last in self._last.items():
            if state.epochs_done >= last or saves.out_of_patience:
                continue
            self._compile(phase)
            self._model.fit(
                train(range(state.epochs_done, last)),
                initial_epoch=state.epochs_done,
                epochs=last,
                steps_per_epoch=self._steps,
                validation_data=evaluation,
                shuffle=False,  # the dataset does it
                callbacks=[
                    keras.callbacks.TerminateOnNaN(),
                    keras.callbacks.TensorBoard(str(self._folder / LOGS), write_graph=False),
                    saves,
                    *callbacks,
                ],
                verbose=0,
            )
        state.stopped = EPOCHS if state.epochs_done >= self._last[WHOLE] else PATIENCE
        if state.best_epoch != state.epochs_done:
            self._load(saves, state.best_epoch)
        return state

    def _load(self, saves: SaveEpochs, epoch: int) -> None:
        self._compile(saves.state.history[epoch - 1]["phase"])
        saves.load(self._model, epoch)

    def _compile(self, phase: str) -> None:
        if phase == self._phase:
            return
        self._phase = phase
        trunk = self._model.get_layer(TRUNK)
        trunk.trainable = phase == WHOLE
        if self._settings.initial_weights != "none":
            freeze_batch_norms(trunk)
        if phase == HEAD:
            optimizer = keras.optimizers.Adam(self._settings.head_learning_rate)
        else:
            optimizer = whole_optimizer(self._settings, self._steps)
        if trunk.output.dtype == "float16":
            # Without it, small gradients become zero. Keras adds it by itself only if the policy of
            # the whole model is mixed_float16.
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        head = HEADS[self._settings.head]

        def mae(years: keras.KerasTensor, outputs: keras.KerasTensor) -> keras.KerasTensor:
            return keras.ops.abs(head.age(outputs)[:, 0] - keras.ops.reshape(years, (-1,)))

        self._model.compile(optimizer=optimizer, loss=head.loss, metrics=[mae])
        optimizer.build(self._model.trainable_variables)  # so that its variables can be loaded


def freeze_batch_norms(trunk: keras.Model) -> None:
    """Lets batch norms keep the statistics of the loaded weights, in training too.

    They were learned from far more photos than ours. The norms are not folded before training:
    Adam's steps are as large for the small kernels of a folded network as for others, and spoil
    them.
    """
    for layer in trunk.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def whole_optimizer(settings: config.Trainer, steps: int) -> keras.optimizers.Optimizer:
    """AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101) with linear warm-up and cosine decay.

    Args:
        settings: the `trainer` section of the configuration.
        steps: batches in an epoch.
    """
    steps *= settings.epochs
    warmup = int(steps * settings.warmup_share)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=max(steps - warmup, 1),
        warmup_target=settings.learning_rate,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=settings.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


class SaveEpochs(keras.callbacks.Callback):
    """Saves each whole epoch, keeps the best one, and stops when no better one comes.

    Keras' EarlyStopping forgets its best at each `fit`; BackupAndRestore deletes its backup after
    each. Here the state outlives both a `fit` and the process.

    Args:
        folder: of this training alone; its state is read from there.
        last: number of the last epoch of HEAD and of WHOLE, from 1.
        patience: epochs of the whole network without a better eval MAE before it stops.
    """

    def __init__(self, folder: Path, last: dict[str, int], patience: int):
        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._last = last
        self._patience = patience
        self._state_file = folder / "state.json"
        saved = json.loads(self._state_file.read_text("utf-8")) if self._state_file.exists() else {}
        self.state = State(**saved)

    @property
    def out_of_patience(self) -> bool:
        """Whether the last `patience` epochs of the whole network brought no better eval MAE."""
        since = max(self.state.best_epoch, self._last[HEAD])
        return self.state.epochs_done - since >= self._patience

    def load(self, model: keras.Model, epoch: int) -> None:
        """Sets all variables of a model and its optimizer as they were after an epoch, from 1."""
        with np.load(self._file(epoch)) as saved:
            for variable, value in zip(_variables(model), saved.values(), strict=True):
                variable.assign(value)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the phase and the time."""
        self._phase = HEAD if epoch < self._last[HEAD] else WHOLE
        self._started = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        """Reports the progress of the epoch."""
        epoch = f"epoch {self.state.epochs_done + 1}/{self._last[WHOLE]} ({self._phase})"
        report(batch + 1, self.params["steps"], f"steps of {epoch}, MAE {logs['mae']:.2f} years")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Saves the epoch. The state file is written last: it says which epochs count."""
        if not all(map(math.isfinite, logs.values())):  # TerminateOnNaN looks at the loss alone
            raise UserError(
                f"training diverged in epoch {epoch + 1}: lower trainer.learning_rate or "
                "trainer.head_learning_rate, or set trainer.precision=float32"
            )
        entry: dict[str, Any] = {
            "epoch": epoch + 1,
            "phase": self._phase,
            **{name: float(value) for name, value in logs.items()},
            "learning_rate": float(self.model.optimizer.learning_rate),
            "seconds": round(time.monotonic() - self._started, 1),
        }
        self.state.history.append(entry)
        if entry["val_mae"] < self.state.best_mae:
            self.state.best_mae, self.state.best_epoch = entry["val_mae"], entry["epoch"]
        # Not `save_weights`: it leaves out the state of dropout's random numbers.
        np.savez(self._file(epoch + 1), *[v.numpy() for v in _variables(self.model)])
        aside = self._folder / "next.json"
        aside.write_text(json.dumps(asdict(self.state)), "utf-8")
        os.replace(aside, self._state_file)
        keep = {self._file(self.state.best_epoch), self._file(self.state.epochs_done)}
        for file in set(self._folder.glob("epoch-*")) - keep:
            file.unlink()
        self.model.stop_training = self.out_of_patience

    def _file(self, epoch: int) -> Path:
        return self._folder / f"epoch-{epoch}.npz"


def _variables(model: keras.Model) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]

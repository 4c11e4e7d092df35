"""The training loop: head first, then all; stops early, keeps the best, resumes when killed."""

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
import tensorflow as tf

from components.errors import UserError
from components.progress import report
from components.trainer.model import TRUNK

HEAD, WHOLE = "head", "whole"
EPOCHS, PATIENCE = "epochs", "patience"  # why a training stopped: the one over, or the other


@dataclass
class State:
    """What a killed training needs, beside the weights, to go on after its last whole epoch."""

    best_mae: float = math.inf  # years, on the eval split
    best_epoch: int = 0
    stopped: str = ""  # EPOCHS or PATIENCE, once it has
    history: list[dict[str, Any]] = field(default_factory=list)  # one entry an epoch

    @property
    def epochs_done(self) -> int:
        """How many epochs are behind it."""
        return len(self.history)


class AdamW(keras.optimizers.AdamW):
    """Keras' with TensorFlow's own kernel for a step, and what all variables share made once.

    Keras makes 25 operations a variable, and for each that decays the learning rate anew. The
    training step is traced and started in 6 s instead of 12 (two cores, ResNet50).
    """

    def _apply_weight_decay(self, variables: Sequence[keras.Variable]) -> None:
        """Comes with `update_step`, which is given the learning rate."""

    def _distributed_tf_update_step(
        self, distribution: tf.distribute.Strategy, grads_and_vars: Any, learning_rate: Any
    ) -> None:
        # Not the decay: between several devices, the learning rate is one for each.
        step = tf.cast(self.iterations.value, tf.float32) + 1
        shared = learning_rate, tf.pow(self.beta_1, step), tf.pow(self.beta_2, step)
        super()._distributed_tf_update_step(distribution, grads_and_vars, shared)

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, shared: tuple[tf.Tensor, ...]
    ) -> None:
        """Lets one variable decay and moves it, and its two moments, by its gradient."""
        learning_rate, beta1_power, beta2_power = shared
        if self._use_weight_decay(variable):
            variable.assign_sub(variable * (self.weight_decay * learning_rate))
        at = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[at].value.handle,
            v=self._velocities[at].value.handle,
            beta1_power=beta1_power,
            beta2_power=beta2_power,
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


class Training:
    """One training of one model.

    Args:
        model: as `model.build` returns it.
        settings: the `trainer` section of the configuration.
        steps: batches an epoch.
        folder: where its state is kept between a kill and the next run.
    """

    def __init__(self, model: keras.Model, settings: dict[str, Any], steps: int, folder: Path):
        self._model = model
        self._settings = settings
        self._steps = steps
        self._folder = folder
        self._state = State()
        self._phase = ""
        # Random weights must learn together: a head on random features learns nothing.
        self._head_epochs = 0 if settings["initial_weights"] == "none" else settings["head_epochs"]

    def run(
        self,
        train: Callable[[int], tf.data.Dataset],
        evaluation: tf.data.Dataset,
        on_epoch: Callable[[dict[str, Any]], None],
    ) -> State:
        """Trains until the epochs are over or the eval MAE gets no better; loads the best weights.

        Args:
            train: the batches of the epoch with a given number, from 0.
            evaluation: the batches of the eval split.
            on_epoch: told each epoch's entry of the history.

        Raises:
            UserError: the loss is no longer a number.
        """
        self._resume()
        for entry in self._state.history:
            on_epoch(entry)
        last = self._head_epochs + self._settings["epochs"]
        while self._state.epochs_done < last and not self._stale():
            epoch = self._state.epochs_done
            self._enter(HEAD if epoch < self._head_epochs else WHOLE)
            entry = self._epoch(epoch, last, train(epoch), evaluation)
            if not math.isfinite(entry["loss"]):  # and never will be again
                raise UserError(
                    f"training diverged in epoch {epoch + 1}: lower trainer.learning_rate or "
                    "trainer.head_learning_rate, or set trainer.precision=float32"
                )
            self._save(entry)
            on_epoch(entry)
        self._state.stopped = EPOCHS if self._state.epochs_done >= last else PATIENCE
        if self._state.best_epoch != self._state.epochs_done:
            best = tf.train.Checkpoint(variables=self._variables())  # the optimizer may be another
            best.read(self._file(self._state.best_epoch)).expect_partial()
        return self._state

    def _epoch(
        self, epoch: int, last: int, train: tf.data.Dataset, evaluation: tf.data.Dataset
    ) -> dict[str, Any]:
        def show(step: int, logs: dict[str, float]) -> None:
            unit = f"steps of epoch {epoch + 1}/{last} ({self._phase}), MAE {logs['mae']:.2f} years"
            report(step + 1, self._steps, unit)

        started = time.monotonic()
        history = self._model.fit(
            train,
            # Else Keras learns the end by asking for one batch more, and what of that step needs no
            # batch still happens: the learning rate moves on, weights decay.
            steps_per_epoch=self._steps,
            validation_data=evaluation,
            shuffle=False,  # the dataset does it
            callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=show)],
            verbose=0,
        ).history
        return {
            "epoch": epoch + 1,
            "phase": self._phase,
            **{name: float(values[0]) for name, values in history.items()},
            "learning_rate": float(self._model.optimizer.learning_rate),
            "seconds": round(time.monotonic() - started, 1),
        }

    def _stale(self) -> bool:
        since = self._state.epochs_done - max(self._state.best_epoch, self._head_epochs)
        return since >= self._settings["patience"]

    def _enter(self, phase: str) -> None:
        if phase == self._phase:
            return
        self._phase = phase
        trunk = self._model.get_layer(TRUNK)
        trunk.trainable = phase == WHOLE
        optimizer = self._whole_optimizer() if phase == WHOLE else self._head_optimizer()
        if trunk.compute_dtype == "float16":
            # Else small gradients are zeros. Keras does so itself only where the whole model is so.
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        self._model.compile(optimizer=optimizer, loss="mse", metrics=["mae"])
        # Variables made while Keras traces the training step would make it trace twice.
        optimizer.build(self._model.trainable_variables)
        self._model.compute_metrics(None, tf.zeros((1, 1)), tf.zeros((1, 1)))

    def _head_optimizer(self) -> keras.optimizers.Optimizer:
        return keras.optimizers.Adam(self._settings["head_learning_rate"])

    def _whole_optimizer(self) -> keras.optimizers.Optimizer:
        """AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101), linear warm-up, cosine decay."""
        steps = self._steps * self._settings["epochs"]
        warmup = int(steps * self._settings["warmup_share"])
        rate = keras.optimizers.schedules.CosineDecay(
            0.0,
            decay_steps=max(steps - warmup, 1),
            warmup_target=self._settings["learning_rate"],
            warmup_steps=warmup,
        )
        optimizer = AdamW(rate, weight_decay=self._settings["weight_decay"])
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        return optimizer

    @property
    def _state_file(self) -> Path:
        return self._folder / "state.json"

    def _file(self, epoch: int) -> str:
        return str(self._folder / f"epoch-{epoch}")

    def _variables(self) -> list[tf.Variable]:
        # One by one: Keras 3 keeps the state of dropout's random numbers from tf.train.Checkpoint.
        return [variable.value for variable in self._model.variables]

    def _checkpoint(self) -> tf.train.Checkpoint:
        return tf.train.Checkpoint(variables=self._variables(), optimizer=self._model.optimizer)

    def _resume(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._state_file.exists():
            return
        self._state = State(**json.loads(self._state_file.read_text()))
        self._enter(self._state.history[-1]["phase"])
        self._checkpoint().read(self._file(self._state.epochs_done)).expect_partial()

    def _save(self, entry: dict[str, Any]) -> None:
        """The state file goes last and whole: it says which epochs' checkpoints count."""
        self._state.history.append(entry)
        if entry["val_mae"] < self._state.best_mae:
            self._state.best_mae, self._state.best_epoch = entry["val_mae"], entry["epoch"]
        self._checkpoint().write(self._file(self._state.epochs_done))
        aside = self._folder / "next.json"
        aside.write_text(json.dumps(asdict(self._state)))
        os.replace(aside, self._state_file)
        keep = {self._state.best_epoch, self._state.epochs_done}
        for file in self._folder.glob("epoch-*"):
            if int(file.name.split(".")[0].removeprefix("epoch-")) not in keep:
                file.unlink()

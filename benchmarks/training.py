"""How fast the Trainer trains compared with a bare compiled training step.

    python -m benchmarks.training --photos DIR [--count N] [--image-size 96] [--rounds 3]
        [--initial-weights FILE]

The Trainer's side is whole epochs of `Training` on the batches of `data.train_batches`, so it
reads, decodes, mirrors and shuffles. The reference is one tf.function with a gradient tape and the
same optimizer. It trains an equal network of the same precision on one batch that stays in memory.

The first epoch warms up. Then an epoch of the Trainer and as many bare steps take turns; value and
reference are medians, the ratio is the median of the turns' ratios. The checkpoint after each epoch
does not count; its time is recorded too.

It appends to results/training.csv and ends with a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.photo_example_gen import make_photos, peak_mib
from benchmarks.results import record
from benchmarks.transform import make_examples, run_transform
from components.trainer import component, data, model
from components.trainer.fit import Training, freeze_batch_norms, whole_optimizer
from components.trainer.heads import HEADS, Head
from pipeline import config
from schemas import features


class BareStep:
    """The smallest possible training step: loss, gradients, update."""

    def __init__(
        self,
        network: keras.Model,
        head: Head,
        optimizer: keras.optimizers.Optimizer,
        batch: tuple[Any, Any],
    ):
        self._images, self._years = batch
        optimizer.build(network.trainable_variables)

        @tf.function
        def step(images: tf.Tensor, years: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(head.loss(years, network(images, training=True)))
            gradients = tape.gradient(loss, network.trainable_variables)
            optimizer.apply(gradients, network.trainable_variables)
            return loss

        self._step = step

    def seconds(self, steps: int) -> float:
        """How long so many steps take."""
        started = time.perf_counter()
        for _ in range(steps):
            loss = self._step(self._images, self._years)
        float(loss)  # waits for the last
        return time.perf_counter() - started


class Turns(keras.callbacks.Callback):
    """Runs as many bare steps after each epoch of the Trainer, and keeps the seconds of both."""

    def __init__(self, bare: BareStep, steps: int):
        super().__init__()
        self._bare = bare
        self._steps = steps
        self.epochs: list[float] = []  # with the saving
        self.reference: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        self.epochs.append(time.perf_counter() - self._started)
        self.reference.append(self._bare.seconds(self._steps))


def compare(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Images/s of the Trainer's epochs and of the bare step."""
    make_photos(options.photos, options.count, folder / "photos")
    make_examples(folder / "photos", folder / "raw")
    run_transform(folder / "raw", options.image_size, folder / "transformed")
    examples = folder / "transformed" / "examples"
    train = [f"{examples}/Split-{features.TRAIN}/*"]
    evaluation = [f"{examples}/Split-{features.EVAL}/*"]

    batch = options.batch_size
    settings = config.Trainer(
        initial_weights=options.initial_weights,
        batch_size=batch,
        head_epochs=0,
        epochs=1 + options.rounds,
        precision="auto",
    )
    precision = component.resolve_precision(settings.precision)
    ages = [label.age for label in data.labels(train) if not label.objection]
    steps = 2 * len(ages) // batch

    def build() -> keras.Model:
        keras.utils.set_random_seed(0)
        network = model.build(
            options.image_size,
            initial_weights=settings.initial_weights,
            head=HEADS[settings.head],
            ages=np.array(ages),
            dropout=settings.dropout,
            precision=precision,
        )
        if settings.initial_weights != "none":
            freeze_batch_norms(network.get_layer(model.TRUNK))
        return network

    def batches(epochs: range) -> tf.data.Dataset:
        return data.train_batches(train, options.image_size, batch, settings.seed, epochs, True)

    training = Training(build(), settings, steps, folder / "resume")
    head, first = HEADS[settings.head], next(iter(batches(range(1))))
    bare = BareStep(build(), head, whole_optimizer(settings, steps), first)
    turns = Turns(bare, steps)
    # One photo is enough for the evaluation, whose time does not count here.
    one = data.eval_batches(evaluation, options.image_size, 1).take(1)
    history = training.run(batches, one, [turns]).history
    ours, reference = [entry["seconds"] for entry in history[1:]], turns.reference[1:]
    saving = [whole - bare for whole, bare in zip(turns.epochs[1:], ours, strict=True)]
    images = steps * batch
    rate, bare_rate = images / statistics.median(ours), images / statistics.median(reference)
    ratio = statistics.median(b / a for a, b in zip(ours, reference, strict=True))
    print(f"Trainer {rate:.1f} images/s, bare step {bare_rate:.1f} images/s, in {precision}")
    name = "trained from no weights; reference: a bare compiled step"
    if settings.initial_weights != "none":
        name = "trained from loaded weights; reference: a bare compiled step"
    return [
        record(name, rate, "images/s", bare_rate, ratio),
        record("the checkpoint after an epoch", statistics.median(saving), "s"),
        record("peak memory of the Trainer and the bare step", peak_mib(), "MiB"),
    ]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder with labels.csv")
    parser.add_argument("--count", type=int, default=600, help="photos in all splits")
    parser.add_argument("--image-size", type=int, default=96, help="pixels")
    parser.add_argument("--batch-size", type=int, default=64, help="images a step")
    parser.add_argument("--initial-weights", default="none", metavar="FILE", help="of ResNet50")
    parser.add_argument("--rounds", type=int, default=3, help="epochs that are measured")
    options = parser.parse_args()
    # TFX gives the command line to Beam, which would read our options as its own.
    del sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        figures = compare(options, Path(folder))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

"""How fast the Trainer trains beside a bare compiled training step.

    python -m benchmarks.training --photos DIR [--count N] [--image-size 96] [--rounds 3]
        [--initial-weights FILE]

The Trainer's side is whole epochs of `Training` on the batches of `data.train_batches`: reading,
decoding, mirroring and shuffling included. The reference is one tf.function of a gradient tape and
the same optimizer, on an equal network of the same precision, on one batch that stays in memory.
After an epoch to warm up, an epoch of the one and as many steps of the other run in turn; medians
count. The checkpoint after each epoch is not in `ratio`; `seconds_saving` is what it takes. Ends
with JSON.
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
import tensorflow as tf

from benchmarks.photo_example_gen import make_photos, peak_mib
from benchmarks.transform import make_examples, run_transform
from components.trainer import component, data, model
from components.trainer.fit import Training, whole_optimizer
from pipeline import config
from schemas import features


class BareStep:
    """The least that a training step can be: loss, gradients, update."""

    def __init__(
        self, network: keras.Model, optimizer: keras.optimizers.Optimizer, batch: tuple[Any, Any]
    ):
        self._images, self._years = batch
        optimizer.build(network.trainable_variables)

        @tf.function
        def step(images: tf.Tensor, years: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                ages = tf.squeeze(network(images, training=True), axis=1)
                loss = tf.reduce_mean(tf.square(ages - years))
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
    """After each epoch of the Trainer, as many bare steps; notes the seconds of both."""

    def __init__(self, bare: BareStep, steps: int):
        super().__init__()
        self._bare = bare
        self._steps = steps
        self.epochs: list[float] = []  # saving included
        self.reference: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        self.epochs.append(time.perf_counter() - self._started)
        self.reference.append(self._bare.seconds(self._steps))


def compare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
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
    ages = list(data.ages(train).as_numpy_iterator())
    steps = 2 * len(ages) // batch

    def build() -> keras.Model:
        keras.utils.set_random_seed(0)
        return model.build(
            options.image_size,
            initial_weights=settings.initial_weights,
            mean_age=float(sum(ages) / len(ages)),
            dropout=settings.dropout,
            precision=precision,
        )

    def batches(epochs: range) -> tf.data.Dataset:
        return data.train_batches(train, options.image_size, batch, settings.seed, epochs)

    training = Training(build(), settings, steps, folder / "resume")
    bare = BareStep(build(), whole_optimizer(settings, steps), next(iter(batches(range(1)))))
    turns = Turns(bare, steps)
    # One photo is enough to go through evaluation, whose time is not what this is about.
    one = data.eval_batches(evaluation, options.image_size, 1).take(1)
    history = training.run(batches, one, [turns]).history
    ours, reference = [entry["seconds"] for entry in history[1:]], turns.reference[1:]
    saving = [whole - bare for whole, bare in zip(turns.epochs[1:], ours, strict=True)]
    images = steps * batch
    figures = {
        "ours": images / statistics.median(ours),
        "reference": images / statistics.median(reference),
        "ratio": statistics.median(b / a for a, b in zip(ours, reference, strict=True)),
        "seconds_saving": statistics.median(saving),
    }
    print(f"Trainer {figures['ours']:.1f} images/s, bare step {figures['reference']:.1f} images/s")
    return {name: round(value, 3) for name, value in figures.items()} | {
        "images": images,
        "precision": precision,
    }


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder with labels.csv")
    parser.add_argument("--count", type=int, default=600, help="photos in all splits")
    parser.add_argument("--image-size", type=int, default=96, help="pixels")
    parser.add_argument("--batch-size", type=int, default=64, help="images a step")
    parser.add_argument("--initial-weights", default="none", metavar="FILE", help="of ResNet50")
    parser.add_argument("--rounds", type=int, default=3, help="epochs that are measured")
    options = parser.parse_args()
    # TFX hands the command line on to Beam.
    del sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        figures = compare(options, Path(folder))
    print(json.dumps(figures | {"peak_mib": round(peak_mib())}))


if __name__ == "__main__":
    main()

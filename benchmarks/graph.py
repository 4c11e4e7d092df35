"""How much time the whole graph adds to the work itself.

    python -m benchmarks.graph --photos DIR [--count 240] [--epochs 2]

It runs `goodseed run --profile demo` in a fresh run folder, and then the work alone in another
process. The work is this: decode, resize and encode each photo twice (once to check it, once to cut
the square), run the training steps, and predict the eval split after each epoch and the test split
once. Each part is a bare loop that is already warm.

What the graph adds is the run's wall time minus the time of the work. It includes what any script
needs before it can start: to import TensorFlow, to build the network and to trace its functions.
That part is also shown alone.

It appends to results/graph.csv and ends with a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.photo_example_gen import make_photos, run_loop
from benchmarks.results import record
from schemas import features


def run_graph(photos: Path, run_dir: Path, overrides: list[str]) -> tuple[float, dict[str, Any]]:
    """Wall time of the command, and its summary."""
    command = [sys.executable, "-m", "pipeline.cli", "run", "--profile", "demo"]
    command += ["--photos", str(photos), "--run-dir", str(run_dir)]
    for override in overrides:
        command += ["--set", override]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    took = time.perf_counter() - started
    summary: dict[str, Any] = json.loads((run_dir / "summary.json").read_text("utf-8"))
    if summary["failure"] or not summary["pushed_version"]:
        sys.exit(f"the run failed: {summary['failure']}\n{done.stderr[-2000:]}")
    return took, summary


def run_work(photos: Path, counts: dict[str, int], overrides: list[str]) -> dict[str, float]:
    """Seconds of each part of the work. Everything that it needs is warmed up first."""
    import numpy as np
    import tensorflow as tf

    from benchmarks.training import BareStep
    from components.trainer import component, model
    from components.trainer.fit import whole_optimizer
    from components.trainer.heads import HEADS
    from pipeline import config

    loaded = config.load(profile="demo", photos=str(photos), run_dir="unused", overrides=overrides)
    settings, size = loaded.trainer, loaded.transform.image_size
    batch, epochs = settings.batch_size, settings.epochs
    head = HEADS[settings.head]
    network = model.build(
        size,
        initial_weights="none",
        head=head,
        ages=np.array([40.0]),
        dropout=settings.dropout,
        precision=component.resolve_precision(settings.precision),
    )
    steps = 2 * counts[features.TRAIN] // batch
    optimizer = whole_optimizer(settings, steps)
    images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
    bare = BareStep(network, head, optimizer, (tf.constant(images), tf.fill([batch], 40.0)))
    infer = tf.function(lambda pixels: network(pixels, training=False))
    bare.seconds(1)
    infer(tf.constant(images)).numpy()

    seconds: dict[str, float] = {}
    last = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds[name] = round(now - last, 2)
        last = now

    run_loop(photos)
    lap("first decoding")
    run_loop(photos)
    lap("second decoding")

    def inference(count: int) -> None:
        for _ in range(-(-count // batch)):
            infer(tf.constant(images)).numpy()

    bare.seconds(steps * epochs)
    lap("training")
    for _ in range(epochs):
        inference(counts[features.EVAL])
    lap("inference of the eval split")
    inference(counts[features.TEST])
    lap("inference of the test split")
    return seconds


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder with labels.csv")
    parser.add_argument("--count", type=int, default=240, help="photos")
    parser.add_argument("--epochs", type=int, default=2, help="epochs of training")
    parser.add_argument("--work", help="run only the work; JSON of photos by split")
    options = parser.parse_args()
    # The gate does not matter here, so every model may pass.
    overrides = [f"trainer.epochs={options.epochs}", "evaluator.max_mae=120"]
    overrides += ["evaluator.min_test_photos=1"]
    if options.work:
        print(json.dumps(run_work(options.photos, json.loads(options.work), overrides)))
        return
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder, "photos")
        make_photos(options.photos, options.count, photos)
        took, summary = run_graph(photos, Path(folder, "run"), overrides)
        counts = {split: summary["examples"][split] for split in features.SPLITS}
        command = [sys.executable, "-m", __spec__.name, "--photos", str(photos)]
        command += ["--epochs", str(options.epochs), "--work", json.dumps(counts)]
        started = time.perf_counter()
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        alone = time.perf_counter() - started
    parts: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    work = sum(parts.values())
    steps: dict[str, float] = summary["seconds"]
    for title, table in (
        ("the run", steps | {"before and after the steps": round(took - steps["total"], 1)}),
        ("the work alone", parts),
    ):
        print(f"{title}:")
        for name, value in table.items():
            print(f"  {value:6.1f} s  {name}")
    figures = [
        record("what the graph adds to the work", took - work, "s"),
        record("of which any script needs to start", alone - work, "s"),
        record("the whole run; reference: the work alone", took, "s", work),
    ]
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

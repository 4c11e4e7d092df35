"""The step: from transformed examples to a servable, with TFX's Trainer."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tfx.components
from tfx.components.trainer import executor
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.dsl.components.base import executor_spec
from tfx.proto import trainer_pb2
from tfx.types import BaseChannel

from components.errors import UserError
from components.trainer import data, model
from components.trainer.fit import State, Training
from serving.heap import give_back

HISTORY_FILE = "history.json"  # in the ModelRun artifact


class Executor(executor.GenericExecutor):
    """TFX's; the steps after it, in the same process, do not stand on what the training freed."""

    def Do(self, *arguments: Any) -> None:
        """Runs the executor."""
        super().Do(*arguments)
        give_back()


class Trainer(tfx.components.Trainer):
    """TFX's Trainer with the executor above."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)


def trainer(
    examples: BaseChannel,
    transform_graph: BaseChannel,
    *,
    settings: dict[str, Any],
    image_size: int,
    max_pixels: int,
    max_batch_size: int,
    resume_root: str,
) -> Trainer:
    """TFX's Trainer with this module's `run_fn`.

    Args:
        examples: transformed examples.
        transform_graph: Transform's.
        settings: the `trainer` section of the configuration.
        image_size: side of the transformed photos, pixels.
        max_pixels: the servable takes no photo with more.
        max_batch_size: the largest batch that a server makes of the servable's photos.
        resume_root: folder that outlives a killed run, for what it needs to go on.
    """
    return Trainer(
        run_fn=f"{__name__}.{run_fn.__name__}",
        examples=examples,
        transform_graph=transform_graph,
        train_args=trainer_pb2.TrainArgs(),
        eval_args=trainer_pb2.EvalArgs(),
        custom_config={
            "settings": settings,
            "image_size": image_size,
            "max_pixels": max_pixels,
            "max_batch_size": max_batch_size,
            "resume_root": resume_root,
        },
    )


def run_fn(fn_args: FnArgs) -> None:
    """Trains and exports; TensorBoard's logs and history.json go to the ModelRun artifact.

    Raises:
        UserError: a split has too few photos, or the initial weights do not load.
    """
    settings, size = fn_args.custom_config["settings"], fn_args.custom_config["image_size"]
    keras.utils.set_random_seed(settings["seed"])
    ages = np.fromiter(data.ages(fn_args.train_files).as_numpy_iterator(), np.float32)
    if not len(ages) or not len(list(data.ages(fn_args.eval_files).take(1))):
        raise UserError("the train or the eval split has no photo: give more photos")
    batch_size = min(settings["batch_size"], 2 * len(ages))

    folder = _resume_folder(fn_args)
    precision = _precision(settings["precision"])
    with _strategy().scope():
        network = model.build(
            size,
            initial_weights=settings["initial_weights"],
            mean_age=float(ages.mean()),
            dropout=settings["dropout"],
            precision=precision,
        )
        training = Training(network, settings, 2 * len(ages) // batch_size, folder)
        state = training.run(
            lambda epoch: data.train_batches(
                fn_args.train_files, size, batch_size, settings["seed"] + epoch
            ),
            data.eval_batches(fn_args.eval_files, size, batch_size),
            _TensorBoard(fn_args.model_run_dir),
        )
    _write_history(state, network, precision, fn_args.model_run_dir)
    model.export(
        model.served(network),
        fn_args.transform_graph_path,
        fn_args.serving_model_dir,
        image_size=size,
        max_pixels=fn_args.custom_config["max_pixels"],
        max_batch_size=fn_args.custom_config["max_batch_size"],
    )
    shutil.rmtree(folder)


def _resume_folder(fn_args: FnArgs) -> Path:
    """One folder for each training, told apart by all that decides about its weights."""
    identity = [fn_args.custom_config, fn_args.train_files, fn_args.eval_files]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return Path(fn_args.custom_config["resume_root"]) / digest[:16]


def _strategy() -> tf.distribute.Strategy:
    """Every GPU; or every logical CPU device, of which there is one unless a test makes more."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) > 1:
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def _precision(wanted: str) -> str:
    """What `auto` means here: the narrowest type that this hardware multiplies natively."""
    if wanted != "auto":
        return wanted
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        capability = details.get("compute_capability", (0, 0))
        return (
            "bfloat16" if capability >= (8, 0) else "float16" if capability >= (7, 0) else "float32"
        )
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text() if cpu.exists() else ""
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


class _TensorBoard:
    """Scalars of each epoch, in the `train` and `validation` runs that Keras' users expect."""

    def __init__(self, folder: str):
        self._writers = {
            prefix: tf.summary.create_file_writer(f"{folder}/{run}")
            for prefix, run in (("", "train"), ("val_", "validation"))
        }

    def __call__(self, entry: dict[str, Any]) -> None:
        for prefix, writer in self._writers.items():
            with writer.as_default(step=entry["epoch"]):
                for name in ("loss", "mae"):
                    tf.summary.scalar(f"epoch_{name}", entry[prefix + name])
        with self._writers[""].as_default(step=entry["epoch"]):
            tf.summary.scalar("epoch_learning_rate", entry["learning_rate"])


def _write_history(state: State, network: keras.Model, precision: str, folder: str) -> None:
    document = {
        "parameters": network.count_params(),
        "precision": precision,
        "stopped": state.stopped,
        "best_epoch": state.best_epoch,
        "epochs": state.history,
    }
    (Path(folder) / HISTORY_FILE).write_text(json.dumps(document, indent=1))

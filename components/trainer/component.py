"""The step: TFX's Trainer with a `run_fn` that turns transformed examples into a servable."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tfx.components import Trainer
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.proto import trainer_pb2
from tfx.types import BaseChannel

from components.errors import UserError
from components.trainer import data, model
from components.trainer.fit import LOGS, State, Training
from pipeline import config

HISTORY_FILE = "history.json"  # in the ModelRun artifact


def trainer(
    examples: BaseChannel,
    transform_graph: BaseChannel,
    *,
    settings: config.Trainer,
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
        resume_root: folder that survives a killed run; the next run continues from it.
    """
    return Trainer(
        run_fn=f"{__name__}.{run_fn.__name__}",
        examples=examples,
        transform_graph=transform_graph,
        train_args=trainer_pb2.TrainArgs(),
        eval_args=trainer_pb2.EvalArgs(),
        custom_config={
            "settings": settings.model_dump(),
            "image_size": image_size,
            "max_pixels": max_pixels,
            "max_batch_size": max_batch_size,
            "resume_root": resume_root,
        },
    )


def run_fn(fn_args: FnArgs) -> None:
    """Trains and exports; TensorBoard's logs and history.json go to the ModelRun artifact.

    Raises:
        UserError: a split has no photos, the initial weights do not load, or training diverges.
    """
    settings = config.Trainer(**fn_args.custom_config["settings"])
    size = fn_args.custom_config["image_size"]
    keras.utils.set_random_seed(settings.seed)
    ages = np.fromiter(data.ages(fn_args.train_files).as_numpy_iterator(), np.float32)
    if not len(ages) or not len(list(data.ages(fn_args.eval_files).take(1))):
        raise UserError("the train or the eval split has no photo: give more photos")
    batch_size = min(settings.batch_size, 2 * len(ages))

    precision = resolve_precision(settings.precision)
    folder = _resume_folder(fn_args, precision)
    with _strategy().scope():
        network = model.build(
            size,
            initial_weights=settings.initial_weights,
            mean_age=float(ages.mean()),
            dropout=settings.dropout,
            precision=precision,
        )
        training = Training(network, settings, 2 * len(ages) // batch_size, folder)
        state = training.run(
            lambda epochs: data.train_batches(
                fn_args.train_files, size, batch_size, settings.seed, epochs
            ),
            data.eval_batches(fn_args.eval_files, size, batch_size),
        )
    shutil.copytree(folder / LOGS, fn_args.model_run_dir, dirs_exist_ok=True)
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


def _resume_folder(fn_args: FnArgs, precision: str) -> Path:
    """The folder of this training. Its name depends on everything that the weights depend on."""
    identity = [fn_args.custom_config, fn_args.train_files, fn_args.eval_files, precision]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return Path(fn_args.custom_config["resume_root"]) / digest[:16]


def _strategy() -> tf.distribute.Strategy:
    """All GPUs; without any, all logical CPU devices (only tests make more than one)."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) > 1:
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def resolve_precision(wanted: str) -> str:
    """The number type for this machine; `auto`: the smallest type that it multiplies fast."""
    if wanted != "auto":
        return wanted
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        capability = details.get("compute_capability", (0, 0))
        if capability >= (8, 0):
            return "bfloat16"
        return "float16" if capability >= (7, 0) else "float32"
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text() if cpu.exists() else ""
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def _write_history(state: State, network: keras.Model, precision: str, folder: str) -> None:
    document = {
        "parameters": network.count_params(),
        "precision": precision,
        "stopped": state.stopped,
        "best_epoch": state.best_epoch,
        "epochs": state.history,
    }
    (Path(folder) / HISTORY_FILE).write_text(json.dumps(document, indent=1))

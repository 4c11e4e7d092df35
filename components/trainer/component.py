"""The step: TFX's Trainer with a `run_fn` that turns transformed examples into a servable."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tfx.components import Trainer
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.proto import trainer_pb2
from tfx.types import BaseChannel

from components import confusion
from components.certificate import certify
from components.errors import UserError
from components.trainer import calibration, data, guard, model
from components.trainer.fit import LOGS, State, Training
from components.trainer.heads import HEADS
from pipeline import config
from schemas import features

# In the ModelRun artifact.
HISTORY_FILE = "history.json"
LEFT_OUT_FILE = "left_out.csv"  # the train and eval photos with an objection
LEFT_OUT_COLUMNS = (features.FILE_NAME, "split", features.OBJECTION)

Labels = Mapping[str, Sequence[data.Label]]  # by split


def trainer(
    examples: BaseChannel,
    transform_graph: BaseChannel,
    *,
    settings: config.Trainer,
    preprocessing: config.Transform,
    max_refused: float,
    policy: config.Policy,
    max_pixels: int,
    max_batch_size: int,
    resume_root: str,
) -> Trainer:
    """TFX's Trainer with this module's `run_fn`.

    Args:
        examples: transformed examples.
        transform_graph: Transform's.
        settings: the `trainer` section of the configuration.
        preprocessing: the `transform` section.
        max_refused: the share of the eval photos that the guard refuses, 0 to 1.
        policy: the `policy` section.
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
            "preprocessing": preprocessing.model_dump(),
            "max_refused": max_refused,
            "policy": policy.model_dump(),
            "max_pixels": max_pixels,
            "max_batch_size": max_batch_size,
            "resume_root": resume_root,
        },
    )


def run_fn(fn_args: FnArgs) -> None:
    """Trains and exports.

    TensorBoard's logs, HISTORY_FILE and LEFT_OUT_FILE go to the ModelRun artifact.

    Raises:
        UserError: a split has no photos, too many photos have an objection, the initial weights do
            not load, or training diverges.
    """
    settings = config.Trainer(**fn_args.custom_config["settings"])
    preprocessing = config.Transform(**fn_args.custom_config["preprocessing"])
    size = preprocessing.image_size
    keras.utils.set_random_seed(settings.seed)
    files = {features.TRAIN: fn_args.train_files, features.EVAL: fn_args.eval_files}
    labels = {split: data.labels(patterns) for split, patterns in files.items()}
    _write_left_out(labels, fn_args.model_run_dir)
    _check(labels, preprocessing.max_without_face)
    ages = [label.age for label in labels[features.TRAIN] if not label.objection]
    images = len(ages) * (2 if preprocessing.mirror else 1)
    batch_size = min(settings.batch_size, images)

    precision = resolve_precision(settings.precision)
    folder = _resume_folder(fn_args, precision)
    with _strategy().scope():
        network = model.build(
            size,
            initial_weights=settings.initial_weights,
            head=HEADS[settings.head],
            ages=np.array(ages),
            dropout=settings.dropout,
            precision=precision,
        )
        training = Training(network, settings, images // batch_size, folder)
        state = training.run(
            lambda epochs: data.train_batches(
                fn_args.train_files, size, batch_size, settings.seed, epochs, preprocessing.mirror
            ),
            data.eval_batches(fn_args.eval_files, size, batch_size),
        )
    shutil.copytree(folder / LOGS, fn_args.model_run_dir, dirs_exist_ok=True)
    _write_history(state, network, precision, fn_args.model_run_dir)
    usable = [label.age for label in labels[features.EVAL] if not label.objection]
    _export(fn_args, network, np.array(usable), batch_size)
    shutil.rmtree(folder)


def _export(fn_args: FnArgs, network: keras.Model, ages: np.ndarray, batch_size: int) -> None:
    """Fits to the eval split what is to be said beside an age, and writes the servable.

    Args:
        fn_args: TFX's.
        network: as it was trained.
        ages: real ages of the eval photos without an objection, years, in the order of the files.
        batch_size: photos in a batch.
    """
    given = fn_args.custom_config
    settings, policy = config.Trainer(**given["settings"]), config.Policy(**given["policy"])
    size = config.Transform(**given["preprocessing"]).image_size
    served = model.served(network, HEADS[settings.head], policy.legal_age)
    train, evaluation = (
        model.predict(served, data.eval_batches(patterns, size, batch_size))
        for patterns in (fn_args.train_files, fn_args.eval_files)
    )
    limits = guard.fit(train[model.POOLED], evaluation[model.POOLED], given["max_refused"])
    accepted = limits.distances(tf.constant(evaluation[model.POOLED])).numpy() <= limits.limit
    said = (evaluation[name] for name in (features.AGE, model.SPREAD, model.SCORE))
    ages, estimates, spreads, scores = (values[accepted] for values in (ages, *said))
    calibrated = calibration.fit(ages, estimates, spreads, scores, policy.legal_age)
    p_minor = calibrated.outputs(estimates, spreads, scores)[features.P_MINOR].numpy()
    certificate = certify(ages, estimates, p_minor, policy)
    logging.info("who passes without ID: %s", " ".join(certificate.sentences()))
    model.export(
        served,
        limits,
        calibrated,
        certificate,
        confusion.count(ages, estimates),
        fn_args.transform_graph_path,
        fn_args.serving_model_dir,
        image_size=size,
        max_pixels=given["max_pixels"],
        max_batch_size=given["max_batch_size"],
    )


def _write_left_out(labels: Labels, folder: str) -> None:
    path = Path(folder, LEFT_OUT_FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(LEFT_OUT_COLUMNS)
        for split, photos in labels.items():
            writer.writerows((p.file_name, split, p.objection) for p in photos if p.objection)


def _check(labels: Labels, max_without_face: float) -> None:
    """Checks that there are enough photos without objection.

    Raises:
        UserError: there are not.
    """
    photos = [label for split in labels.values() for label in split]
    objected = [label for label in photos if label.objection]
    if len(objected) > max_without_face * len(photos):
        counts = Counter(label.objection for label in objected).most_common()
        raise UserError(
            f"{len(objected):,} of {len(photos):,} train and eval photos have no usable face "
            f"({', '.join(f'{name} {count:,}' for name, count in counts)}; the first is "
            f"{objected[0].file_name}): remove such photos, raise transform.max_without_face, or "
            "set transform.face=as_is if the photos are cropped already"
        )
    if any(all(label.objection for label in split) for split in labels.values()):
        raise UserError(
            "the train or the eval split has no photo that can be used: give more photos"
        )


def _resume_folder(fn_args: FnArgs, precision: str) -> Path:
    """The folder of this training. Its name depends on everything that the weights depend on.

    The names of the files do not tell the photos: a run folder that has lost its metadata store
    numbers its artifacts anew.
    """
    splits = [fn_args.train_files, fn_args.eval_files]
    identity = [fn_args.custom_config, splits, list(map(data.digest, splits)), precision]
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
    flags = cpu.read_text("utf-8") if cpu.exists() else ""
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def _write_history(state: State, network: keras.Model, precision: str, folder: str) -> None:
    document = {
        "parameters": network.count_params(),
        "precision": precision,
        "stopped": state.stopped,
        "best_epoch": state.best_epoch,
        "epochs": state.history,
    }
    (Path(folder) / HISTORY_FILE).write_text(json.dumps(document, indent=1), "utf-8")

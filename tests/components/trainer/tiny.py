"""A small network that trains in seconds, and photos for it. It replaces ResNet50 in tests."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from components.trainer import model
from pipeline import config
from schemas import features

SIZE = 32  # pixels, of transformed photos
PREPROCESSING = config.Transform(image_size=SIZE, face="as_is")  # its photos show no faces

_SETTINGS: dict[str, Any] = {
    "initial_weights": "none",
    "batch_size": 8,
    "head_epochs": 0,
    "epochs": 3,
    "head_learning_rate": 1e-2,
    "learning_rate": 1e-3,
    "warmup_share": 0.1,
    "weight_decay": 1e-4,
    "dropout": 0.3,
    "patience": 10,
    "precision": "float32",
    "seed": 0,
}


def settings(**changes: Any) -> config.Trainer:
    """The section `trainer` for a training that takes seconds; `changes` replace knobs."""
    return config.Trainer(**_SETTINGS | changes)


def trunk(image_size: int, initial_weights: str) -> keras.Model:
    """Replaces `model._trunk`: one convolution and its batch norm."""
    photo = keras.Input((image_size, image_size, 3))
    x = keras.layers.Conv2D(8, 3, strides=4)(photo)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    return keras.Model(photo, x, name=model.TRUNK)


def photo(shape: tuple[int, int], age: float, seed: int) -> bytes:
    """A JPEG of (height, width) pixels. It is lighter for a higher age; left and right differ."""
    noise = np.random.default_rng(seed).integers(-20, 20, (*shape, 3))
    pixels = noise + 20 + int(age * 2)
    pixels[:, : shape[1] // 3, 0] += 60
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=95)
    return file.getvalue()


def example(jpeg: bytes, age: float, photo_id: str, objection: str = "") -> bytes:
    """A serialized transformed example; it also has all features of raw ones that are needed."""
    texts = {
        features.IMAGE: jpeg,
        features.FILE_NAME: f"{photo_id}.jpg".encode(),
        features.PHOTO_ID: photo_id.encode(),
        features.OBJECTION: objection.encode(),
    }
    values = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))
        for name, text in texts.items()
    }
    values[features.AGE] = tf.train.Feature(float_list=tf.train.FloatList(value=[age]))
    return tf.train.Example(features=tf.train.Features(feature=values)).SerializeToString()


def parse(record: bytes) -> tuple[str, bytes, float]:
    """An example's photo_id, image and age."""
    found = tf.train.Example.FromString(record).features.feature
    return (
        found[features.PHOTO_ID].bytes_list.value[0].decode(),
        found[features.IMAGE].bytes_list.value[0],
        found[features.AGE].float_list.value[0],
    )


def write(path: Path, records: Iterable[bytes]) -> str:
    """Writes records as TFX does; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for record in records:
            writer.write(record)
    return str(path)


def write_squares(path: Path, ages: Sequence[float], first: int = 0, objection: str = "") -> str:
    """Writes transformed examples of the given ages; photo_ids count from `first`."""
    return write(
        path,
        (
            example(photo((SIZE, SIZE), age, first + i), age, f"{first + i}", objection)
            for i, age in enumerate(ages)
        ),
    )


def read(folder: Path) -> list[bytes]:
    """The records of all files in a folder."""
    files = sorted(str(file) for file in folder.iterdir())
    return list(tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator())

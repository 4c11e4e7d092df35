"""Folders of tiny photos, and a run of the step on a folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.types import standard_artifacts

from components.photo_example_gen import Executor, PhotoExampleGen
from pipeline.config import Data
from tests.components.photo_example_gen.pictures import noise
from tests.pictures import encoded


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a photos folder: pictures by name, and a CSV of rows."""

    def make(
        rows: Iterable[tuple[Any, ...]],
        pictures: dict[str, bytes],
        name: str = "photos",
        csv_name: str = "labels.csv",
        folder: str = "final_files",
        header: tuple[str, ...] = ("file_name", "real_age"),
    ) -> Path:
        root = tmp_path / name
        (root / folder).mkdir(parents=True, exist_ok=True)
        for file_name, data in pictures.items():
            (root / folder / file_name).write_bytes(data)
        with (root / csv_name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return root

    return make


@pytest.fixture
def make_faces(make_folder: Callable[..., Path]) -> Callable[..., Path]:
    """Makes a photos folder with `count` good JPEGs, of ages 0 to 79, and further rows."""

    def make(
        count: int = 60,
        more_rows: Iterable[tuple[Any, ...]] = (),
        more_pictures: dict[str, bytes] | None = None,
        seed: int = 0,
        **layout: Any,
    ) -> Path:
        pictures = {f"{i}.jpg": encoded(noise(seed + i)) for i in range(count)}
        rows = [(f"{i}.jpg", i % 80) for i in range(count)]
        return make_folder([*rows, *more_rows], pictures | (more_pictures or {}), **layout)

    return make


@dataclass
class Output:
    """The output of the step."""

    artifact: standard_artifacts.Examples
    records: dict[str, list[bytes]]  # by split: serialized examples
    rejects: list[dict[str, str]]

    def examples(self, *splits: str) -> list[dict[str, Any]]:
        """The examples of the named splits, or of all: each maps features to values or None."""
        return [
            {name: _value(feature) for name, feature in example.features.feature.items()}
            for split in splits or self.records
            for example in map(tf.train.Example.FromString, self.records[split])
        ]

    def property(self, name: str) -> Any:
        """A custom property that is JSON."""
        return json.loads(self.artifact.get_string_custom_property(name))

    def reasons(self) -> dict[str, str]:
        """Reason by file name."""
        return {reject["file_name"]: reject["reason"] for reject in self.rejects}


def _value(feature: tf.train.Feature) -> Any:
    kind = feature.WhichOneof("kind")
    return getattr(feature, kind).value[0] if kind else None


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Output]:
    """Runs the step's executor on a photos folder."""
    runs = 0

    def run(photos: Path, beam_args: tuple[str, ...] = (), **knobs: Any) -> Output:
        nonlocal runs
        runs += 1
        artifact = standard_artifacts.Examples()
        artifact.uri = str(tmp_path / f"examples-{runs}")
        # The container image is not used. Without it, TFX packs itself for remote workers.
        args = ["--runner=FnApiRunner", "--sdk_container_image=none", *beam_args]
        executor = Executor(BaseBeamExecutor.Context(beam_pipeline_args=args))
        step = PhotoExampleGen(Data(photos=str(photos), **knobs))
        executor.Do({}, {"examples": [artifact]}, step.exec_properties)
        records = {}
        for split in ("train", "eval", "test"):
            files = sorted(Path(artifact.uri, f"Split-{split}").iterdir())
            dataset = tf.data.TFRecordDataset([str(file) for file in files], "GZIP")
            records[split] = list(dataset.as_numpy_iterator())
        with Path(artifact.uri, "rejects.csv").open(encoding="utf-8", newline="") as file:
            return Output(artifact, records, list(csv.DictReader(file)))

    return run

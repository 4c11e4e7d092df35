"""The TFX component: from a folder of photos to raw examples in three splits.

Each picture is decoded once. Pictures do not pass through Beam's own storage, because that would
hold all of them in memory. A scratch folder holds three files for each chunk of rows: the rows, the
examples and the notes.

1. `_Inspect` reads each picture of a chunk, writes its example and notes the outcome.
2. `assign_splits` reads the notes and decides which examples stay, and in which split.
3. `_write` copies these examples, unchanged, into the shards of their split.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import pickle
import tempfile
import uuid
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple

import apache_beam as beam
import tensorflow as tf
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.dsl.components.base import base_driver as component_driver
from tfx.orchestration import metadata
from tfx.orchestration.portable import base_driver, data_types
from tfx.proto import example_gen_pb2
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import Artifact, Channel, artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.errors import UserError
from components.photo_example_gen import bands, labels, photos, rejects
from components.photo_example_gen.labels import Labels, Row
from components.photo_example_gen.rejects import Reason, Reject, Rejected
from components.progress import watching
from pipeline.config import Data
from schemas import features

DATA = "data"  # execution property: the configuration's section
FINGERPRINT = "fingerprint"  # execution property that the driver adds
EXAMPLES = "examples"  # output key
REJECTS_FILE = "rejects.csv"  # at the root of the Examples artifact

_ROWS, _EXAMPLES, _NOTES = ".rows", ".tfrecord", ".notes"  # a chunk's scratch files
_CHUNKS = 128  # at most, because the files of all chunks are open at the same time
_MIN_CHUNK = 32  # rows
_SHARD_BYTES = 2**24
_MIN_SHARDS = 8  # if a split has enough photos, so that several workers can share them
_MIN_SHARD = 32  # photos
_FRAME_BYTES = 16  # TFRecord adds to a record its length and two checksums


class Picture(NamedTuple):
    """The place of a picture's example: a TFRecord frame in a scratch file."""

    photo_id: str
    file: str
    offset: int  # bytes
    length: int  # bytes


class PhotoExampleGenSpec(ComponentSpec):
    """PhotoExampleGen's interface."""

    INPUTS: ClassVar[dict[str, ChannelParameter]] = {}
    OUTPUTS: ClassVar[dict[str, ChannelParameter]] = {
        EXAMPLES: ChannelParameter(type=standard_artifacts.Examples)
    }
    PARAMETERS: ClassVar[dict[str, ExecutionParameter]] = {
        DATA: ExecutionParameter(type=str)  # JSON
    }


class Driver(component_driver.BaseDriver, base_driver.BaseDriver):
    """Adds the fingerprint of the photos to the execution properties, for TFX's cache.

    A component must name a driver of TFX's older class; its launcher calls `run` of the newer one.
    """

    def __init__(self, mlmd: metadata.Metadata) -> None:
        component_driver.BaseDriver.__init__(self, mlmd)
        base_driver.BaseDriver.__init__(self, mlmd)

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        """Runs before the lookup in the cache; raises what `fingerprint` raises."""
        data = Data.model_validate_json(execution_info.exec_properties[DATA])
        output = driver_output_pb2.DriverOutput()
        output.exec_properties[FINGERPRINT].string_value = labels.fingerprint(data)
        return output


class Executor(base_beam_executor.BaseBeamExecutor):
    """Reads, checks, splits and writes."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the Examples artifact, its rejects.csv and its custom properties.

        Raises:
            UserError: what `labels` raises; too many rows are rejected; a split has no photo.
        """
        data = Data.model_validate_json(exec_properties[DATA])
        artifact = artifact_utils.get_single_instance(output_dict[EXAMPLES])
        root = Path(artifact.uri)
        root.mkdir(parents=True, exist_ok=True)
        found = bands.cut(labels.read(data))
        with tempfile.TemporaryDirectory(prefix=".", dir=root) as scratch:
            outcomes = self._inspect(found.rows, data, scratch)
            splits, rejected = assign_splits(found.rows, outcomes, data)
            rejected = sorted([*found.rejects, *rejected])
            rows = len(found.rows) + len(found.rejects)
            rejects.check_share(rejected, rows, data.max_rejected)
            _check_splits(splits)
            _write(splits, root)
        rejects.write(rejected, root / REJECTS_FILE)
        _describe(artifact, found, splits, rejected)
        artifact.set_string_custom_property(FINGERPRINT, exec_properties.get(FINGERPRINT, ""))

    def _inspect(
        self, rows: Sequence[Row], data: Data, scratch: str
    ) -> dict[str, Picture | Rejected]:
        """The outcome of each picture, by path; its example is in a file of the scratch folder."""
        unique = list({row.path: row for row in reversed(rows)}.values())[::-1]
        size = max(_MIN_CHUNK, -(-len(unique) // _CHUNKS))
        chunks = [os.path.join(scratch, f"{i:03d}") for i in range(-(-len(unique) // size))]
        for i, chunk in enumerate(chunks):
            # As files, because Beam pickles and compresses its elements several times.
            Path(chunk + _ROWS).write_bytes(pickle.dumps(unique[i * size : (i + 1) * size]))

        def count() -> tuple[int, int, str]:
            done = sum(name.endswith(_NOTES) for name in os.listdir(scratch))
            return min(done * size, len(unique)), len(unique), "photos"

        # TFX's executors on Beam have no public way to get a pipeline with the run's options.
        with watching(count), self._make_beam_pipeline() as pipeline:
            inspect = _Inspect(data.photos, data.max_pixels)
            _ = pipeline | "Chunks" >> beam.Create(chunks) | "Inspect" >> beam.ParDo(inspect)
        outcomes: dict[str, Picture | Rejected] = {}
        for chunk in chunks:
            outcomes.update(pickle.loads(Path(chunk + _NOTES).read_bytes()))
        return outcomes


class PhotoExampleGen(base_beam_component.BaseBeamComponent):
    """Joins photos with their labels, checks them, makes them upright and splits them."""

    SPEC_CLASS = PhotoExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(self, data: Data) -> None:
        """Output `examples`: raw examples in the splits train, eval and test, and a rejects.csv.

        The artifact's custom properties: `examples` (JSON, split → number of photos), `rejects`
        (JSON, reason → number of rows), `extra_columns` (JSON, names of the string features beyond
        RAW_FEATURES; an example lacks the feature if its cell was empty), `extra_values` (JSON,
        the number of different values of each extra column, numbers as bands), `span` (the newest
        one that was read), FINGERPRINT, and for APPA-REAL's release `appa_crops` (`full` or
        `faces`).

        Args:
            data: which photos are read, and how they are split.
        """
        super().__init__(
            PhotoExampleGenSpec(
                data=data.model_dump_json(), examples=Channel(type=standard_artifacts.Examples)
            )
        )


class _Inspect(beam.DoFn):
    """Reads the rows of a chunk; writes its examples and notes."""

    def __init__(self, folder: str, max_pixels: int) -> None:
        self._folder = folder
        self._max_pixels = max_pixels

    def process(self, chunk: str) -> None:
        outcomes: dict[str, Picture | Rejected] = {}
        offset = 0
        file = chunk + _EXAMPLES
        # A cluster may start a chunk again while a lost worker still writes. So both files of a
        # chunk appear whole, each of them under its name only at the end.
        aside = f"{chunk}.{uuid.uuid4().hex}"
        with tf.io.TFRecordWriter(aside) as writer:
            for row in pickle.loads(Path(chunk + _ROWS).read_bytes()):
                try:
                    photo = self._read(row)
                except Rejected as rejection:
                    outcomes[row.path] = rejection
                    continue
                record = _example(row, photo).SerializeToString(deterministic=True)
                writer.write(record)
                length = len(record) + _FRAME_BYTES
                outcomes[row.path] = Picture(photo.photo_id, file, offset, length)
                offset += length
        os.replace(aside, file)
        Path(aside).write_bytes(pickle.dumps(outcomes))
        os.replace(aside, chunk + _NOTES)

    def _read(self, row: Row) -> photos.Photo:
        return photos.read(os.path.join(self._folder, row.path), self._max_pixels)


def assign_splits(
    rows: Sequence[Row], outcomes: Mapping[str, Picture | Rejected], data: Data
) -> tuple[dict[str, list[Picture]], list[Reject]]:
    """Which pictures stay, by split and in the order of photo_id, and which rows are rejected.

    Several rows may have the same picture, under one name or several. One of them stays: the first
    row of the last split, in the order train, eval, test. So a published test split stays complete.
    If the ages differ by more than `data.conflict_years`, nobody knows the right one, and no row
    stays.

    Args:
        rows: in the order of the CSVs.
        outcomes: of each picture, by its path.
        data: `train_share`, `eval_share` and `conflict_years` are used.
    """
    splits: dict[str, list[Picture]] = {split: [] for split in features.SPLITS}
    rejected: list[Reject] = []
    same: defaultdict[str, list[Row]] = defaultdict(list)
    unreadable: dict[str, Row] = {}
    for row in rows:
        outcome = outcomes[row.path]
        if isinstance(outcome, Picture):
            same[outcome.photo_id].append(row)
        elif row.path in unreadable:
            rejected.append(_duplicate(row, unreadable[row.path]))
        else:
            unreadable[row.path] = row
            rejected.append(row.reject(outcome.reason, outcome.detail))

    for photo_id in sorted(same):
        group = same[photo_id]
        youngest, oldest = min(row.age for row in group), max(row.age for row in group)
        if oldest - youngest > data.conflict_years:
            detail = f"one picture, ages from {youngest:g} to {oldest:g}"
            rejected += [row.reject(Reason.CONFLICT, detail) for row in group]
            continue
        hashed = _hashed_split(photo_id, data.train_share, data.eval_share)
        ranked = [(features.SPLITS.index(row.table.split or hashed), row) for row in group]
        split, kept = max(ranked, key=lambda pair: pair[0])
        picture = outcomes[kept.path]
        assert isinstance(picture, Picture)
        splits[features.SPLITS[split]].append(picture)
        rejected += [_duplicate(row, kept) for row in group if row is not kept]
    return splits, rejected


def _duplicate(row: Row, kept: Row) -> Reject:
    reason = Reason.DUPLICATE_ROW if row.path == kept.path else Reason.DUPLICATE_PICTURE
    return row.reject(reason, f"same as {kept.table.csv} row {kept.line}")


def _hashed_split(photo_id: str, train_share: float, eval_share: float) -> str:
    """The split of a picture. It does not depend on the other pictures."""
    place = int(photo_id[:13], 16) / 16**13  # uniform between 0 and 1
    if place < train_share:
        return features.TRAIN
    return features.EVAL if place < train_share + eval_share else features.TEST


def _describe(
    artifact: Artifact,
    found: Labels,
    splits: Mapping[str, Sequence[Picture]],
    rejected: Sequence[Reject],
) -> None:
    """Sets the artifact's properties."""
    artifact.split_names = artifact_utils.encode_split_names(list(splits))
    artifact.span = found.span
    artifact.set_int_custom_property("span", found.span)
    if found.appa_crops:
        artifact.set_string_custom_property("appa_crops", found.appa_crops)
    examples_utils.set_payload_format(artifact, example_gen_pb2.FORMAT_TF_EXAMPLE)
    examples_utils.set_file_format(artifact, "tfrecords_gzip")
    reasons = Counter(reject.reason for reject in rejected).most_common()
    for name, value in {
        "examples": {split: len(pictures) for split, pictures in splits.items()},
        "rejects": dict(reasons),
        "extra_columns": found.extra_columns,
        "extra_values": bands.counts(found),
    }.items():
        artifact.set_string_custom_property(name, json.dumps(value))


def _check_splits(splits: Mapping[str, Sequence[Picture]]) -> None:
    empty = [split for split, pictures in splits.items() if not pictures]
    if empty:
        kept = sum(map(len, splits.values()))
        raise UserError(
            f"{kept} photos are too few: none is left for {' and '.join(empty)}; add photos"
        )


def _write(splits: Mapping[str, Sequence[Picture]], root: Path) -> None:
    """Writes the examples of each split to shards in root/Split-<name>/."""
    with contextlib.ExitStack() as stack:
        sources = {
            file: stack.enter_context(open(file, "rb", buffering=0))
            for file in {picture.file for pictures in splits.values() for picture in pictures}
        }
        for split, pictures in splits.items():
            folder = root / f"Split-{split}"
            folder.mkdir(exist_ok=True)
            shards = _shard_count(pictures)
            for shard in range(shards):
                path = folder / f"data_tfrecord-{shard:05d}-of-{shards:05d}.gz"
                _write_shard(pictures[shard::shards], sources, path)


def _shard_count(pictures: Sequence[Picture]) -> int:
    size = sum(picture.length for picture in pictures)
    return max(1, min(_MIN_SHARDS, len(pictures) // _MIN_SHARD), -(-size // _SHARD_BYTES))


def _write_shard(pictures: Sequence[Picture], sources: Mapping[str, IO[bytes]], path: Path) -> None:
    # TFX's readers expect gzip. Level 0 only stores: JPEGs do not get smaller.
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=0, fileobj=file, mtime=0) as zipped,
    ):
        for picture in pictures:
            source = sources[picture.file].fileno()
            zipped.write(os.pread(source, picture.length, picture.offset))


def _example(row: Row, photo: photos.Photo) -> tf.train.Example:
    """The raw example; see schemas/features.py."""
    values: dict[str, bytes | int | float] = {
        features.IMAGE: photo.jpeg,
        features.AGE: row.age,
        features.AGE_BAND: _utf8(features.age_band(row.age)),
        features.FILE_NAME: _utf8(row.path),
        features.PHOTO_ID: _utf8(photo.photo_id),
        features.WIDTH: photo.width,
        features.HEIGHT: photo.height,
        features.SQUARENESS: min(photo.width, photo.height) / max(photo.width, photo.height),
        features.FORMAT: _utf8(photo.format),
        features.MODE: _utf8(photo.mode),
        features.BRIGHTNESS: photo.brightness,
        features.SHARPNESS: photo.sharpness,
        **{name: _utf8(value) for name, value in row.extra.items()},
    }
    example = tf.train.Example()
    for name, value in values.items():
        feature = example.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        elif isinstance(value, int):
            feature.int64_list.value.append(value)
        else:
            feature.float_list.value.append(value)
    return example


def _utf8(text: str) -> bytes:
    return text.encode()

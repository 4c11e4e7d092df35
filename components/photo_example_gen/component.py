"""The TFX component: from a folder of photos to raw examples in three splits.

Pictures are decoded once and never pass through Beam's own storage, which would hold them all in
memory. Rows, examples and notes are files in a scratch folder, one of each for a chunk of rows:

1. `_Inspect`, on all cores, reads each picture of a chunk, writes its example and notes what came
   of it;
2. `settle` decides from the notes which examples stay, and in which split;
3. `_write` copies those, as they are, into the shards of their split.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import pickle
import tempfile
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

from components.beam_step import BeamStep
from components.errors import UserError
from components.photo_example_gen import labels, photos, rejects
from components.photo_example_gen.labels import Labels, Row
from components.photo_example_gen.rejects import Reason, Reject, Rejected
from components.progress import report
from schemas import features

EXAMPLES = "examples"  # the output's key
FINGERPRINT = "fingerprint"  # the execution property that the driver adds
REJECTS_FILE = "rejects.csv"  # at the root of the Examples artifact

_ROWS, _EXAMPLES, _NOTES = ".rows", ".tfrecord", ".notes"  # a chunk's scratch files
_CHUNKS = 128  # at most: their files are open at the same time
_MIN_CHUNK = 32  # rows
_SHARD_BYTES = 2**24
_MIN_SHARDS = 8  # of a split that has photos enough, so that later steps find work for all cores
_MIN_SHARD = 32  # photos
_FRAME_BYTES = 16  # that TFRecord adds to a record: its length and two checksums


class Picture(NamedTuple):
    """Where the example of a readable picture is: a TFRecord frame in a scratch file."""

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
        "photos": ExecutionParameter(type=str),
        "labels_file": ExecutionParameter(type=str),
        "file_column": ExecutionParameter(type=str),
        "age_column": ExecutionParameter(type=str),
        "span_window": ExecutionParameter(type=int),
        "train_share": ExecutionParameter(type=float),
        "eval_share": ExecutionParameter(type=float),
        "max_rejected": ExecutionParameter(type=float),
        "max_pixels": ExecutionParameter(type=int),
        "conflict_years": ExecutionParameter(type=float),
        "exclude": ExecutionParameter(type=str, optional=True),
    }


class Driver(component_driver.BaseDriver, base_driver.BaseDriver):
    """Adds the photos' fingerprint to the execution properties, so that TFX's cache sees it."""

    def __init__(self, mlmd: metadata.Metadata) -> None:
        component_driver.BaseDriver.__init__(self, mlmd)
        base_driver.BaseDriver.__init__(self, mlmd)

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        """Runs before the cache is asked; raises what `fingerprint` raises."""
        has = execution_info.exec_properties
        output = driver_output_pb2.DriverOutput()
        output.exec_properties[FINGERPRINT].string_value = labels.fingerprint(
            has["photos"], has["labels_file"], has["span_window"], has.get("exclude")
        )
        return output


class Executor(BeamStep, base_beam_executor.BaseBeamExecutor):
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
        has = exec_properties
        artifact = artifact_utils.get_single_instance(output_dict[EXAMPLES])
        root = Path(artifact.uri)
        root.mkdir(parents=True, exist_ok=True)
        tables = labels.find(has["photos"], has["labels_file"], has["span_window"])
        found = labels.read(has["photos"], tables, has["file_column"], has["age_column"])
        if exclude := has.get("exclude"):
            found = labels.leave_out(found, exclude, has["photos"])
        with tempfile.TemporaryDirectory(prefix=".", dir=root) as scratch:
            outcomes = self._inspect(found.rows, has["photos"], has["max_pixels"], scratch)
            splits, rejected = settle(
                found.rows,
                outcomes,
                train_share=has["train_share"],
                eval_share=has["eval_share"],
                conflict_years=has["conflict_years"],
            )
            rejected = sorted([*found.rejects, *rejected])
            rows = len(found.rows) + len(found.rejects)
            rejects.check_share(rejected, rows, has["max_rejected"])
            _check_splits(splits)
            _write(splits, root)
        rejects.write(rejected, root / REJECTS_FILE)
        _describe(artifact, found, splits, rejected)
        artifact.set_string_custom_property(FINGERPRINT, has.get(FINGERPRINT, ""))

    def _inspect(
        self, rows: Sequence[Row], folder: str, max_pixels: int, scratch: str
    ) -> dict[str, Picture | Rejected]:
        """What came of each picture, by path; its example is in a file of the scratch folder."""
        unique = list({row.path: row for row in reversed(rows)}.values())[::-1]
        size = max(_MIN_CHUNK, -(-len(unique) // _CHUNKS))
        chunks = [os.path.join(scratch, f"{i:03d}") for i in range(-(-len(unique) // size))]
        for i, chunk in enumerate(chunks):
            # Not as elements: Beam would pickle and compress them all, several times.
            Path(chunk + _ROWS).write_bytes(pickle.dumps(unique[i * size : (i + 1) * size]))
        with self._make_beam_pipeline() as pipeline:
            inspect = _Inspect(folder, max_pixels, size, len(unique))
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

    def __init__(
        self,
        photos: str,
        labels_file: str = "labels.csv",
        file_column: str = "file_name",
        age_column: str = "real_age",
        span_window: int = 0,
        train_share: float = 0.70,
        eval_share: float = 0.15,
        max_rejected: float = 0.05,
        max_pixels: int = 50_000_000,
        conflict_years: float = 3.0,
        exclude: str | None = None,
    ) -> None:
        """Output `examples`: raw examples in the splits train, eval and test, and a rejects.csv.

        The artifact's custom properties: `examples` (JSON, split → photos), `rejects` (JSON,
        reason → rows), `passengers` (JSON, names of the string features beyond RAW_FEATURES; an
        example whose cell was empty lacks that feature), `span` (the newest that was read),
        FINGERPRINT.

        Args:
            photos: folder with the CSV and the pictures, or with span-N folders of these.
            labels_file: name of the CSV beside final_files/.
            file_column: CSV column with the picture's file name.
            age_column: CSV column with the age in years.
            span_window: how many of the newest spans are read; 0: all.
            train_share: share of photos that train, 0 to 1.
            eval_share: share of photos in the eval split, 0 to 1; test gets the rest.
            max_rejected: share of rows that may be rejected before the step fails, 0 to 1.
            max_pixels: width × height of the largest picture that is decoded.
            conflict_years: how far apart, in years, the ages of one picture may be.
            exclude: a CSV with the pictures to leave out, see `labels.leave_out`.
        """
        super().__init__(
            PhotoExampleGenSpec(
                photos=photos,
                labels_file=labels_file,
                file_column=file_column,
                age_column=age_column,
                span_window=span_window,
                train_share=float(train_share),
                eval_share=float(eval_share),
                max_rejected=float(max_rejected),
                max_pixels=max_pixels,
                conflict_years=float(conflict_years),
                exclude=exclude,
                examples=Channel(type=standard_artifacts.Examples),
            )
        )


class _Inspect(beam.DoFn):
    """Chunk's rows → its examples and notes."""

    def __init__(self, folder: str, max_pixels: int, size: int, total: int) -> None:
        self._folder = folder
        self._max_pixels = max_pixels
        self._size = size  # rows in a chunk; the last may have fewer
        self._total = total  # rows in all chunks

    def process(self, chunk: str) -> None:
        outcomes: dict[str, Picture | Rejected] = {}
        offset = 0
        file = chunk + _EXAMPLES
        with tf.io.TFRecordWriter(file) as writer:
            for row in pickle.loads(Path(chunk + _ROWS).read_bytes()):
                try:
                    photo = self._read(row)
                except Rejected as no:
                    outcomes[row.path] = no
                    continue
                record = _example(row, photo).SerializeToString(deterministic=True)
                writer.write(record)
                length = len(record) + _FRAME_BYTES
                outcomes[row.path] = Picture(photo.photo_id, file, offset, length)
                offset += length
        Path(chunk + _NOTES).write_bytes(pickle.dumps(outcomes))
        done = sum(name.endswith(_NOTES) for name in os.listdir(os.path.dirname(chunk)))
        report(min(done * self._size, self._total), self._total, "photos")

    def _read(self, row: Row) -> photos.Photo:
        folder = photos.real_folder(os.path.join(self._folder, row.table.folder))
        return photos.read(os.path.join(self._folder, row.path), folder, self._max_pixels)


def settle(
    rows: Sequence[Row],
    outcomes: Mapping[str, Picture | Rejected],
    *,
    train_share: float,
    eval_share: float,
    conflict_years: float,
) -> tuple[dict[str, list[Picture]], list[Reject]]:
    """Which pictures stay, by split and in the order of photo_id, and which rows are rejected.

    A picture that is there several times, under one name or several, stays once: in test rather
    than in eval, in eval rather than in train where the layout says the split (what is measured on
    stays what was published), and of the rows in one split the first. Where its ages differ by more
    than `conflict_years`, nobody knows which is right, and none stays.
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
        if oldest - youngest > conflict_years:
            detail = f"one picture, ages from {youngest:g} to {oldest:g}"
            rejected += [row.reject(Reason.CONFLICT, detail) for row in group]
            continue
        hashed = _hashed_split(photo_id, train_share, eval_share)
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
    """The split of a picture: always the same one, whatever other pictures there are."""
    place = int(photo_id[:13], 16) / 16**13  # evenly spread over 0 to 1
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
    examples_utils.set_payload_format(artifact, example_gen_pb2.FORMAT_TF_EXAMPLE)
    examples_utils.set_file_format(artifact, "tfrecords_gzip")
    reasons = Counter(reject.reason for reject in rejected).most_common()
    for name, value in {
        "examples": {split: len(pictures) for split, pictures in splits.items()},
        "rejects": dict(reasons),
        "passengers": found.passengers,
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
    """Writes each split's pictures to the shards in Split-<name>/ below root."""
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
    # TFX's readers expect gzip; level 0 stores, since JPEGs do not get smaller.
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
        **{name: _utf8(value) for name, value in row.passengers.items()},
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

"""Ages for purchase analytics: a folder or CSV of photos in, a CSV or Parquet table out."""

from __future__ import annotations

import csv
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from goodseed_client import wire
from goodseed_client.advice import Failure, Reason
from goodseed_client.client import AgeClient
from goodseed_client.photo import prepare
from schemas.features import AGE, FILE_NAME, age_band

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")  # of photos in a folder

# What is added to the columns of the input; where there is no age, the reason says why.
AGE_GROUP, MODEL_VERSION, REASON = "age_group", "model_version", "reason"
ADDED = (AGE, AGE_GROUP, MODEL_VERSION, REASON)

_TIMEOUT = 30.0  # seconds for one request
_PATIENCE = 60.0  # seconds for which a server that is away or too slow is asked again
_IN_FLIGHT = 4  # requests

_PARQUET_TYPES = {AGE: "float32", MODEL_VERSION: "int64"}  # of the columns that are no strings
_ROW_GROUP = 10_000  # rows

Row = dict[str, Any]


class Photos(NamedTuple):
    """The rows of a table of photos, not yet looked at."""

    columns: list[str]
    rows: list[Row]
    column: str  # the one with the photos' paths
    folder: Path  # which relative paths start from


def find(source: str | Path, column: str = FILE_NAME) -> Photos:
    """The photos of a folder and its subfolders, or of a CSV whose further columns ride along.

    Raises:
        ValueError: there are none, or the CSV can't be used; the text says what to put right.
    """
    path = Path(source)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        photos = Photos([column], [{column: str(p.relative_to(path))} for p in found], column, path)
    else:
        photos = _read_csv(path, column)
    if not photos.rows:
        raise ValueError(f"{path}: no photos there")
    if not any(os.path.isfile(photos.folder / row[column]) for row in photos.rows):
        first = photos.folder / photos.rows[0][column]
        raise ValueError(f"{path}: none of its photos is there, not even {first}")
    return photos


def _read_csv(path: Path, column: str) -> Photos:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or ())
            if columns.count(column) != 1:
                header = ", ".join(columns) or "nothing"
                raise ValueError(f"{path} has no one column {column}; its header says: {header}")
            if taken := [name for name in ADDED if name in columns]:
                raise ValueError(f"{path} has a column {taken[0]}, which is to be added: rename it")
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(f"{path} line {reader.line_num}: not {len(columns)} cells")
                rows.append(row)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no CSV in UTF-8: {error}") from None
    return Photos(columns, rows, column, path.parent)


def write_ages(
    client: AgeClient,
    photos: Photos,
    output: str | Path,
    batch_size: int = 32,
    report: Callable[[int], None] = lambda done: None,
) -> int:
    """Writes the photos' rows with ADDED: age in years, its group, model version, or the reason.

    The file appears when all rows are there, or not at all.

    Args:
        client: whom to ask.
        photos: what `find` found.
        output: a .csv or .parquet file (the latter takes pyarrow).
        batch_size: photos in a request, at most as many as the server takes at once.
        report: is told how many rows are done, after each batch.

    Returns:
        How many photos have an age.

    Raises:
        Failure: the server refuses, or has been away for a minute.
        OSError: the output can't be written.
    """
    output = Path(output)
    aside = output.with_name(f".{output.name}.{os.getpid()}")
    table = _Parquet if output.suffix == ".parquet" else _Csv
    aged = done = 0
    try:
        with (
            closing(table(aside, [*photos.columns, *ADDED])) as out,
            closing(_answered(client, photos, batch_size)) as batches,
        ):
            for rows in batches:
                out.write(rows)
                aged += sum(row[AGE] is not None for row in rows)
                done += len(rows)
                report(done)
        os.replace(aside, output)
    finally:
        aside.unlink(missing_ok=True)
    return aged


def _answered(client: AgeClient, photos: Photos, size: int) -> Generator[list[Row]]:
    """The rows with ADDED, in order, a request's at a time; a few requests are under way."""
    pool = ThreadPoolExecutor(_IN_FLIGHT)
    under_way: deque[Future[list[Row]]] = deque()
    try:
        for start in range(0, len(photos.rows), size):
            rows = photos.rows[start : start + size]
            under_way.append(pool.submit(_answer, client, photos, rows))
            if len(under_way) > 2 * _IN_FLIGHT:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        # What is under way ends with the client's connection.
        pool.shutdown(wait=False, cancel_futures=True)


def _answer(client: AgeClient, photos: Photos, rows: Sequence[Row]) -> list[Row]:
    jpegs: list[bytes] = []
    answers: list[Row] = []
    for row in rows:
        try:
            jpegs.append(prepare(photos.folder / row[photos.column]))
            reason = None
        except Failure as failure:
            reason = failure.reason
        answers.append({**row, AGE: None, AGE_GROUP: None, MODEL_VERSION: None, REASON: reason})
    if not jpegs:
        return answers
    predictions, version = _predict(client, jpegs)
    usable = (answer for answer in answers if answer[REASON] is None)
    for answer, prediction in zip(usable, predictions, strict=True):
        answer[MODEL_VERSION] = version
        try:
            prediction.check()
        except Failure as failure:
            answer[REASON] = failure.reason
        else:
            answer[AGE] = prediction.age
            answer[AGE_GROUP] = age_band(prediction.age)
    return answers


def _predict(client: AgeClient, jpegs: Sequence[bytes]) -> tuple[list[wire.Prediction], int | None]:
    give_up = time.monotonic() + _PATIENCE
    while True:
        try:
            return client.predict(jpegs, _TIMEOUT)
        except Failure as failure:
            passing = failure.reason in (Reason.NO_SERVER, Reason.TIMEOUT)
            if not passing or time.monotonic() > give_up:
                raise
            time.sleep(1)


class _Csv:
    def __init__(self, path: Path, columns: Sequence[str]):
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, columns)
        self._writer.writeheader()

    def write(self, rows: Sequence[Row]) -> None:
        self._writer.writerows(
            {**row, AGE: None if row[AGE] is None else f"{row[AGE]:.2f}"} for row in rows
        )

    def close(self) -> None:
        self._file.close()


class _Parquet:
    def __init__(self, path: Path, columns: Sequence[str]):
        import pyarrow as pa
        from pyarrow import parquet

        fields = [(name, _PARQUET_TYPES.get(name, "string")) for name in columns]
        self._schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in fields])
        self._from_rows = pa.Table.from_pylist
        self._writer = parquet.ParquetWriter(path, self._schema)
        self._rows: list[Row] = []

    def write(self, rows: Sequence[Row]) -> None:
        self._rows += rows
        if len(self._rows) >= _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(self._from_rows(self._rows, self._schema))
        self._rows = []

    def close(self) -> None:
        self._flush()
        self._writer.close()

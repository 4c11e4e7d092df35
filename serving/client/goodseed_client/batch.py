"""Ages for purchase analytics: reads a folder or CSV of photos, writes a CSV or Parquet table."""

from __future__ import annotations

import csv
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from goodseed_client import tables, wire
from goodseed_client.advice import Failure, Reason
from goodseed_client.ages import AGE_GROUPS, AgeGroups
from goodseed_client.client import AgeClient
from goodseed_client.photo import SUFFIXES, prepare
from goodseed_client.tables import normal

FILE_NAME = "file_name"  # the usual column of the photos' paths

# The columns that are added to those of the input. Rows without an age have a reason. Rows with an
# objection of the model have no age group, so that they do not count in shares.
AGE, AGE_GROUP, MODEL_VERSION = "age", "age_group", "model_version"
OBJECTION, REASON = "objection", "reason"
ADDED = (AGE, AGE_GROUP, MODEL_VERSION, OBJECTION, REASON)

_TIMEOUT = 30.0  # seconds for one request
_PATIENCE = 60.0  # seconds for which a lost or slow server is asked again
_IN_FLIGHT = 4  # requests at a time

_PARQUET_TYPES = {AGE: "float32", MODEL_VERSION: "int64"}  # other columns are strings
_ROW_GROUP = 10_000  # rows

Row = dict[str, Any]


class Photos(NamedTuple):
    """A table of photos. The photos are not opened yet."""

    columns: list[str]
    rows: list[Row]
    column: str  # the column of the photos' paths
    folder: Path  # relative paths start here


class Written(NamedTuple):
    """What a table says about its photos."""

    aged: int  # photos with an age
    objected: int  # photos with an objection
    groups: dict[str, int]  # photos in each age group
    others: int  # photos with an age, without an objection, and in no group
    versions: set[int | None]  # of the models that answered; None: the server did not say it


def find(source: str | Path, column: str = FILE_NAME) -> Photos:
    """The photos of a folder and its subfolders, or of a CSV, whose other columns are kept.

    Hidden files are left out: some systems put `._x.jpg` beside `x.jpg`.

    Raises:
        ValueError: there are no photos, or the CSV can't be used; the text says what to correct.
    """
    path = Path(source)
    photos = _list(path, column) if path.is_dir() else _read_csv(path, column)
    if taken := [name for name in photos.columns if normal(name) in ADDED]:
        raise ValueError(f"{path} has a column {taken[0]}, which the output needs: rename it")
    if not photos.rows:
        raise ValueError(f"{path} holds no photos")
    if not any(os.path.isfile(photos.folder / row[photos.column]) for row in photos.rows):
        first = photos.folder / photos.rows[0][photos.column]
        raise ValueError(f"{path}: none of its photos exists; the first is {first}")
    return photos


def _list(folder: Path, column: str) -> Photos:
    found = sorted(
        file.relative_to(folder)
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )
    return Photos([column], [{column: str(file)} for file in found], column, folder)


def _read_csv(path: Path, column: str) -> Photos:
    """The rows of a CSV, without its columns that have no name."""
    table = tables.read(path, [normal(column)])
    columns = [name for name in table.columns if name]
    if len(set(columns)) < len(columns):
        raise ValueError(f"{path} has two columns of one name: rename one")
    named = table.columns[table.position(normal(column))]
    rows = []
    for line, cells in table.records:
        if len(cells) != len(table.columns):
            raise ValueError(
                f"{path} row {line} should have {len(table.columns)} cells, not {len(cells)}"
            )
        row = {name: cell for name, cell in zip(table.columns, cells, strict=True) if name}
        rows.append({**row, named: row[named].strip()})
    return Photos(columns, rows, named, path.parent)


def write_ages(
    client: AgeClient,
    photos: Photos,
    output: str | Path,
    batch_size: int = 32,
    report: Callable[[int], None] = lambda done: None,
    groups: AgeGroups = AGE_GROUPS,
) -> Written:
    """Writes the photos' rows with the columns ADDED.

    These are the age in years, the age group, the model's version, the model's objection to the
    photo, and the reason why there is no age. A model without a guard has no objections.

    The file appears only when it is complete.

    Args:
        client: asks the server.
        photos: what `find` returned.
        output: a .csv or .parquet file; .parquet needs pyarrow (the extra `analytics`).
        batch_size: photos per request; the server may limit them.
        report: is called after each batch with the number of rows that are done.
        groups: the age groups.

    Returns:
        How many photos have an age, have an objection, and are in each group; and who answered.

    Raises:
        Failure: the server refuses, or was away for a minute.
        ModuleNotFoundError: .parquet without pyarrow.
        OSError: the output can't be written.
    """
    output = Path(output)
    aside = output.with_name(f".{output.name}.{os.getpid()}")
    table = _Parquet if output.suffix == ".parquet" else _Csv
    aged = objected = counted = done = 0
    counts = Counter(dict.fromkeys(groups.names, 0))
    versions: set[int | None] = set()
    try:
        with (
            closing(table(aside, [*photos.columns, *ADDED])) as out,
            closing(_answered(client, photos, batch_size, groups)) as batches,
        ):
            for rows in batches:
                out.write(rows)
                aged += sum(row[AGE] is not None for row in rows)
                objected += sum(bool(row[OBJECTION]) for row in rows)
                counts.update(row[AGE_GROUP] for row in rows if row[AGE_GROUP])
                counted += sum(row[AGE] is not None and not row[OBJECTION] for row in rows)
                versions.update(row[MODEL_VERSION] for row in rows if row[AGE] is not None)
                done += len(rows)
                report(done)
        os.replace(aside, output)
    finally:
        aside.unlink(missing_ok=True)
    return Written(aged, objected, dict(counts), counted - counts.total(), versions)


def _answered(
    client: AgeClient, photos: Photos, size: int, groups: AgeGroups
) -> Generator[list[Row]]:
    """The rows with the columns ADDED, in order: those of one request at a time.

    A few requests run at the same time.
    """
    pool = ThreadPoolExecutor(_IN_FLIGHT)
    running: deque[Future[list[Row]]] = deque()
    try:
        for start in range(0, len(photos.rows), size):
            rows = photos.rows[start : start + size]
            running.append(pool.submit(_answer, client, photos, rows, groups))
            if len(running) > 2 * _IN_FLIGHT:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        # Requests that still run end when the client is closed.
        pool.shutdown(wait=False, cancel_futures=True)


def _answer(client: AgeClient, photos: Photos, rows: Sequence[Row], groups: AgeGroups) -> list[Row]:
    """The rows of one request with the columns ADDED."""
    jpegs: list[bytes] = []
    answers: list[Row] = []
    for row in rows:
        try:
            jpegs.append(prepare(photos.folder / row[photos.column]))
            reason = None
        except Failure as failure:
            reason = failure.reason
        answers.append({**row, **dict.fromkeys(ADDED), REASON: reason})
    if not jpegs:
        return answers
    predictions, version = _predict(client, jpegs)
    usable = (answer for answer in answers if answer[REASON] is None)
    for answer, prediction in zip(usable, predictions, strict=True):
        answer[MODEL_VERSION] = version
        answer[OBJECTION] = prediction.objection or None
        try:
            prediction.check()
        except Failure as failure:
            answer[REASON] = failure.reason
        else:
            answer[AGE] = prediction.age
            if not prediction.objection:
                answer[AGE_GROUP] = groups.of(prediction.age)
    return answers


def _predict(client: AgeClient, jpegs: Sequence[bytes]) -> tuple[list[wire.Prediction], int | None]:
    give_up = time.monotonic() + _PATIENCE
    while True:
        try:
            return client.predict(jpegs, _TIMEOUT)
        except Failure as failure:
            temporary = failure.reason in (Reason.NO_SERVER, Reason.TIMEOUT)
            if not temporary or time.monotonic() > give_up:
                raise
            time.sleep(1)


class _Csv:
    def __init__(self, path: Path, columns: Sequence[str]):
        # A file name may hold bytes that are not UTF-8.
        self._file = path.open("w", newline="", encoding="utf-8", errors="backslashreplace")
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
        rows = [{name: _utf8(value) for name, value in row.items()} for row in self._rows]
        self._writer.write_table(self._from_rows(rows, self._schema))
        self._rows = []

    def close(self) -> None:
        self._flush()
        self._writer.close()


def _utf8(value: Any) -> Any:
    """A file name may hold bytes that are not UTF-8; Parquet takes UTF-8 only."""
    is_text = isinstance(value, str)
    return value.encode("utf-8", "backslashreplace").decode() if is_text else value

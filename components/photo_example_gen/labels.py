"""The known layouts of a photos folder, and the rows of their CSVs."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from components.errors import UserError
from components.photo_example_gen.rejects import Reason, Reject, Rejected
from pipeline.config import Data
from schemas import features

PICTURES = "final_files"  # the folder of pictures beside a labels.csv
APPA_REAL = {  # APPA-REAL's own release: CSV → folder of pictures, split
    "gt_avg_train.csv": ("train", features.TRAIN),
    "gt_avg_valid.csv": ("valid", features.EVAL),
    "gt_avg_test.csv": ("test", features.TEST),
}

_SPAN = re.compile(r"span-(\d+)")
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_TAKEN = frozenset(features.RAW_FEATURES) | {features.SPAN}


@dataclass(frozen=True)
class Table:
    """A CSV and its folder of pictures, as paths inside the photos folder."""

    csv: str
    folder: str
    split: str | None  # that the layout gives; None: it depends on the picture
    span: int | None  # None if the photos folder has no spans


class Row(NamedTuple):
    """A row that becomes an example if its picture can be read."""

    table: Table
    line: int  # of the CSV, where the row starts; the first line is 1
    file_name: str  # as in the CSV
    path: str  # of the picture inside the photos folder, '/'-separated
    age: float  # years
    extra: dict[str, str]  # the extra columns without empty cells, and the span if there is one

    def reject(self, reason: Reason, detail: str) -> Reject:
        """This row's line of rejects.csv."""
        return Reject(self.table.csv, self.line, self.file_name, reason, detail)


@dataclass(frozen=True)
class Labels:
    """All rows of all tables."""

    rows: list[Row]
    rejects: list[Reject]
    extra_columns: list[str]  # their names in the order of the CSVs, and SPAN
    span: int  # the newest; 0 if there are none


def find(data: Data) -> list[Table]:
    """The tables of a photos folder: of the newest `data.span_window` spans, the oldest first.

    Raises:
        UserError: the folder has no known layout, or only a part of one.
    """
    root = Path(data.photos)
    if not root.is_dir():
        raise UserError(f"no folder {root}: name the folder with the photos and their CSV")
    here = _layout(root, "", data.labels_file, span=None)
    spans = sorted(
        (int(match[1]), entry.name)
        for entry in root.iterdir()
        if (match := _SPAN.fullmatch(entry.name)) and entry.is_dir()
    )
    if here and spans:
        raise UserError(
            f"{root} holds {here[0].csv} and {spans[0][1]}: move the CSV and its pictures into a"
            " span folder"
        )
    if not here and not spans:
        raise UserError(
            f"no photos in {root}: expected {data.labels_file} and {PICTURES}/,"
            f" or {', '.join(APPA_REAL)} and their folders, or span-N folders of these"
        )
    for span, name in spans[-data.span_window :]:
        tables = _layout(root, name, data.labels_file, span)
        if not tables:
            raise UserError(f"{root / name} holds neither {data.labels_file} nor {min(APPA_REAL)}")
        here += tables
    return here


def _layout(root: Path, inside: str, labels_file: str, span: int | None) -> list[Table]:
    """The tables in one folder; an empty list if there is no CSV."""
    folder = root / inside
    if (folder / labels_file).is_file():
        layout: dict[str, tuple[str, str | None]] = {labels_file: (PICTURES, None)}
    elif any((folder / name).is_file() for name in APPA_REAL):
        layout = dict(APPA_REAL)
    else:
        return []
    for csv_name, (pictures, _) in layout.items():
        if not (folder / csv_name).is_file():
            raise UserError(f"{folder} lacks {csv_name}: {', '.join(layout)} belong together")
        if not (folder / pictures).is_dir():
            raise UserError(f"{folder} lacks the folder {pictures}/, the pictures of {csv_name}")
    return [
        Table(posixpath.join(inside, csv_name), posixpath.join(inside, pictures), split, span)
        for csv_name, (pictures, split) in layout.items()
    ]


def fingerprint(data: Data) -> str:
    """SHA-256, in hex, of what `read` would read: it changes if a photo or a CSV changes.

    It covers the bytes of the CSVs, and the name, size and time of change of the pictures: reading
    all pictures would take as long as using them. So it misses a photo that changed but kept its
    size and its time.

    Raises:
        UserError: as `find`; the CSV `data.exclude` can't be read.
    """
    digest = hashlib.sha256()
    if data.exclude:
        digest.update(hashlib.sha256(_read_bytes(Path(data.exclude))).digest())
    for table in find(data):
        digest.update(f"{table}\n".encode())
        digest.update(hashlib.sha256(_read_bytes(Path(data.photos, table.csv))).digest())
        pictures = Path(data.photos, table.folder)
        for name, size, changed in sorted(_files(pictures, "")):
            digest.update(f"{name}\n{size}\n{changed}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _files(folder: Path, inside: str) -> Iterator[tuple[str, int, int]]:
    """Path, size in bytes and time of change in nanoseconds of each file below a folder."""
    with os.scandir(folder / inside) as entries:
        for entry in entries:
            name = posixpath.join(inside, entry.name)
            if entry.is_dir(follow_symlinks=False):
                yield from _files(folder, name)
            elif entry.is_file():
                status = entry.stat()
                yield name, status.st_size, status.st_mtime_ns


def read(data: Data) -> Labels:
    """The rows of all tables of a photos folder, in order, without those of `data.exclude`.

    Raises:
        UserError: as `find` and `leave_out`; a CSV cannot be read, lacks a column, has a column
            twice or one that is named like a feature; or the CSVs together have no rows.
    """
    photos, tables = data.photos, find(data)
    renamed = {
        _normal(data.file_column): features.FILE_NAME,
        _normal(data.age_column): features.AGE,
    }
    rows: list[Row] = []
    rejects: list[Reject] = []
    extra: dict[str, None] = {}  # an ordered set
    for table in tables:
        path = Path(photos, table.csv)
        columns, records = _parse(path, renamed)
        _check_extra_columns(path, columns)
        extra |= dict.fromkeys(name for name in columns if name and name not in _TAKEN)
        if table.span is not None:
            extra |= {features.SPAN: None}
        for line, cells in records:
            record = dict(zip(columns, cells, strict=False))
            try:
                rows.append(_row(table, line, record))
            except Rejected as rejection:
                name = record.get(features.FILE_NAME, "")
                rejects.append(Reject(table.csv, line, name, rejection.reason, rejection.detail))
    if not rows and not rejects:
        raise UserError(f"{Path(photos, tables[0].csv)} has no rows below its header: add photos")
    found = Labels(rows, rejects, list(extra), tables[-1].span or 0)
    return leave_out(found, data.exclude, photos) if data.exclude else found


def leave_out(found: Labels, exclude: str, photos: str) -> Labels:
    """The same labels without the pictures that a CSV lists: the reviewers' suspects.csv is one.

    Args:
        found: the rows of the tables.
        exclude: the CSV; its column file_name has the pictures' paths inside the photos folder.
        photos: that folder.

    Raises:
        UserError: the CSV can't be read, lacks the column, or names a file that is not in the
            folder.
    """
    path = Path(exclude)
    columns, records = _parse(path, {features.FILE_NAME: features.FILE_NAME})
    at = columns.index(features.FILE_NAME)
    listed = {cells[at].strip(): line for line, cells in records if len(cells) > at}
    known = {row.path for row in found.rows}
    for name, line in listed.items():
        # The picture may be in a span that is not read.
        if name not in known and not _is_file(Path(photos, name)):
            raise UserError(
                f"{path} row {line}: no photo {name[:80]!r} in {photos}: correct the row"
            )
    rejects = [
        row.reject(Reason.EXCLUDED, f"row {listed[row.path]} of {path.name}")
        for row in found.rows
        if row.path in listed
    ]
    rows = [row for row in found.rows if row.path not in listed]
    return replace(found, rows=rows, rejects=found.rejects + rejects)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # the name is too long, or contains NUL
        return False


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def _parse(
    path: Path, renamed: Mapping[str, str]
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """A CSV's columns and its records, each with the line where it starts.

    Required columns are renamed to the features' names. A column without a name is "".
    """
    text = _decode(_read_bytes(path))
    records = _records(path, text, _delimiter(text, renamed.keys()))
    header = [_normal(cell) for cell in next(records, (1, []))[1]]
    for column in renamed:
        if header.count(column) != 1:
            problem = "has twice" if column in header else "lacks"
            found = ", ".join(filter(None, header)) or "nothing"
            raise UserError(f"{path} {problem} the column {column}; its header says: {found}")
    return [renamed.get(name, name) for name in header], records


def _check_extra_columns(path: Path, columns: Sequence[str]) -> None:
    for name in filter(None, columns):
        own = name in (features.FILE_NAME, features.AGE)
        if columns.count(name) > 1 or (name in _TAKEN and not own):
            raise UserError(
                f"{path} has a column {name}, but another column or a feature has this name too:"
                " rename it"
            )


def _delimiter(text: str, wanted: Set[str]) -> str:
    """Comma, semicolon or tab: the one that finds most of the wanted columns in the header."""
    header = next((line for line in text.splitlines() if line.strip()), "")

    def found(delimiter: str) -> int:
        return len(wanted & {_normal(cell.strip(' "')) for cell in header.split(delimiter)})

    return max(",;\t", key=found)


def _decode(data: bytes) -> str:
    """Decodes UTF-8 with or without a BOM, or Windows-1251; each line by itself."""

    def line(raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw.decode("cp1251", "replace")

    return "".join(map(line, data.removeprefix(codecs.BOM_UTF8).splitlines(keepends=True)))


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each record that is not empty, and the line where it starts."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    line = 1
    try:
        for cells in reader:
            if any(map(str.strip, cells)):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:  # without `strict`, an open quote would hide all rows after it
        raise UserError(f"{path} row {line} is not CSV ({error}): correct its quotes") from None


def _normal(column: str) -> str:
    """A column's name in lower case, without spaces around it, and with _ for spaces inside."""
    return "_".join(column.lower().split())


def _row(table: Table, line: int, record: dict[str, str]) -> Row:
    file_name = record.get(features.FILE_NAME, "").strip()
    span = {} if table.span is None else {features.SPAN: str(table.span)}
    return Row(
        table=table,
        line=line,
        file_name=file_name,
        path=_path(table.folder, file_name),
        age=_age(record.get(features.AGE, "").strip()),
        extra={
            name: value.strip()
            for name, value in record.items()
            if name and name not in _TAKEN and value.strip()
        }
        | span,
    )


def _path(folder: str, file_name: str) -> str:
    """The picture's path inside the photos folder; a backslash separates folders too."""
    if not file_name:
        raise Rejected(Reason.NO_FILE_NAME)
    inside = posixpath.normpath(file_name.replace("\\", "/"))
    if PureWindowsPath(file_name).anchor or inside.split("/")[0] == "..":
        raise Rejected(Reason.OUTSIDE)
    return posixpath.join(folder, inside)


def _age(text: str) -> float:
    """An age in years, written with a decimal point or comma."""
    if not text:
        raise Rejected(Reason.AGE_MISSING)
    if not _NUMBER.fullmatch(text):
        raise Rejected(Reason.AGE_NOT_A_NUMBER, text[:80])
    age = float(text.replace(",", "."))
    if not 0 <= age <= features.MAX_AGE:
        raise Rejected(Reason.AGE_OUT_OF_RANGE, text[:80])
    return age

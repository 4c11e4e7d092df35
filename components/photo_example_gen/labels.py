"""The known layouts of a photos folder, and the rows of their CSVs."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from goodseed_client import tables
from goodseed_client.tables import normal

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

# Beside each picture, that release has the face cut out of it, upright.
APPA_CROPS = {"full": "", "faces": "_face.jpg"}  # data.appa_crops → what is added to a file's name

_SPAN = re.compile(r"span-(\d+)")
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_PREFIX = "csv_"  # of a column that has a name of ours


@dataclass(frozen=True)
class Table:
    """A CSV and its folder of pictures, as paths inside the photos folder."""

    csv: str
    folder: str
    split: str | None  # that the layout gives; None: it depends on the picture
    span: int | None  # None if the photos folder has no spans
    crops: str | None = None  # which of APPA-REAL's pictures; None if it is another layout


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
    appa_crops: str | None  # which of APPA-REAL's pictures; None if none of the tables is its own


def find(data: Data) -> list[Table]:
    """The tables of a photos folder: of the newest `data.span_window` spans, the oldest first.

    Raises:
        UserError: the folder has no known layout, or only a part of one.
    """
    root = Path(data.photos)
    if not root.is_dir():
        raise UserError(f"no folder {root}: name the folder with the photos and their CSV")
    here = _layout(data, "", span=None)
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
        tables = _layout(data, name, span)
        if not tables:
            raise UserError(f"{root / name} holds neither {data.labels_file} nor {min(APPA_REAL)}")
        here += tables
    return here


def _layout(data: Data, inside: str, span: int | None) -> list[Table]:
    """The tables in one folder; an empty list if there is no CSV."""
    folder, crops = Path(data.photos, inside), None
    if (folder / data.labels_file).is_file():
        layout: dict[str, tuple[str, str | None]] = {data.labels_file: (PICTURES, None)}
    elif any((folder / name).is_file() for name in APPA_REAL):
        layout, crops = dict(APPA_REAL), data.appa_crops or "full"
    else:
        return []
    for csv_name, (pictures, _) in layout.items():
        if not (folder / csv_name).is_file():
            raise UserError(f"{folder} lacks {csv_name}: {', '.join(layout)} belong together")
        if not (folder / pictures).is_dir():
            raise UserError(f"{folder} lacks the folder {pictures}/, the pictures of {csv_name}")
    return [
        Table(
            posixpath.join(inside, csv_name), posixpath.join(inside, pictures), split, span, crops
        )
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
        facts = ((name, entry.stat()) for name, entry in _files(pictures, ""))
        for name, size, changed in sorted((n, s.st_size, s.st_mtime_ns) for n, s in facts):
            digest.update(f"{name}\n{size}\n{changed}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _files(
    folder: Path, inside: str, above: frozenset[str] = frozenset()
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Each file below a folder, with its path inside the folder.

    Links are followed, except back to a folder `above`: data farms link photos from elsewhere.
    """
    real = os.path.realpath(folder / inside)
    if real in above:
        return
    with os.scandir(real) as entries:
        for entry in entries:
            name = posixpath.join(inside, entry.name)
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:  # a link to itself
                continue
            if is_folder:
                yield from _files(folder, name, above | {real})
            elif is_file:
                yield name, entry


def read(data: Data) -> Labels:
    """The rows of all tables of a photos folder, in order, without those of `data.exclude`.

    Raises:
        UserError: as `find` and `leave_out`; a CSV can't be read, lacks a column or has one twice;
            or the CSVs together have no rows.
    """
    photos, found_tables = data.photos, find(data)
    renamed = {
        normal(data.file_column): features.FILE_NAME,
        normal(data.age_column): features.AGE,
    }
    rows: list[Row] = []
    rejects: list[Reject] = []
    extra: dict[str, None] = {}  # an ordered set
    for table in found_tables:
        path = Path(photos, table.csv)
        columns, records = _parse(path, renamed)
        names = _feature_names(path, columns, renamed)
        extra |= dict.fromkeys(name for name in names if name and name not in renamed.values())
        if table.span is not None:
            extra |= {features.SPAN: None}
        pictures = _Pictures(photos, table.folder)
        for line, cells in records:
            try:
                rows.append(_row(table, pictures, line, names, cells))
            except Rejected as rejection:
                name = dict(zip(names, cells, strict=False)).get(features.FILE_NAME, "")
                rejects.append(Reject(table.csv, line, name, rejection.reason, rejection.detail))
    if not rows and not rejects:
        csv_file = Path(photos, found_tables[0].csv)
        raise UserError(f"{csv_file} has no rows below its header: add photos")
    crops = next((table.crops for table in found_tables if table.crops), None)
    found = Labels(rows, rejects, list(extra), found_tables[-1].span or 0, crops)
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
    table = _parse(path, [features.FILE_NAME])
    at = table.position(features.FILE_NAME)
    listed = {cells[at].strip(): line for line, cells in table.records if len(cells) > at}
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


def _parse(path: Path, wanted: Collection[str]) -> tables.Table:
    try:
        return tables.read(path, wanted)
    except ValueError as error:
        raise UserError(str(error)) from None


def _feature_names(path: Path, columns: list[str], renamed: Mapping[str, str]) -> list[str]:
    """The features' names of a CSV's columns.

    Required columns have the names of their features. Another column that has a name of ours gets
    a prefix. A column without a name is "".
    """
    names = [
        renamed.get(name) or (f"{_PREFIX}{name}" if name in features.OUR_NAMES else name)
        for name in map(normal, columns)
    ]
    twice = [name for name, count in Counter(filter(None, names)).items() if count > 1]
    if twice:
        raise UserError(f"{path} has two columns {twice[0]}: rename one")
    return names


class _Pictures:
    """Finds the files of a folder of pictures, also by names that are written a bit differently."""

    def __init__(self, photos: str, folder: str):
        self._folder = folder
        self._names = {name for name, _ in _files(Path(photos, folder), "")}

    def path(self, name: str) -> str:
        """The path inside the photos folder of the file with a name in this folder.

        Other case, another Unicode normalization and the folder's name in front are understood, if
        only one file fits. A name that fits nothing is returned as it is.

        Raises:
            Rejected: AMBIGUOUS.
        """
        folders = (f"{self._folder}/", f"{posixpath.basename(self._folder)}/")
        for tried in (name, *(name.removeprefix(one) for one in folders if name.startswith(one))):
            alike = [tried] if tried in self._names else self._alike[_key(tried)]
            if len(alike) > 1:
                raise Rejected(Reason.AMBIGUOUS, f"it may be {alike[0]} or {alike[1]}")
            if alike:
                return posixpath.join(self._folder, alike[0])
        return posixpath.join(self._folder, name)

    @cached_property
    def _alike(self) -> defaultdict[str, list[str]]:
        alike = defaultdict(list)
        for name in sorted(self._names):
            alike[_key(name)].append(name)
        return alike


def _key(name: str) -> str:
    """What names have in common that differ in case or in their Unicode normalization only."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _row(table: Table, pictures: _Pictures, line: int, names: list[str], cells: list[str]) -> Row:
    """The row of a record, whose columns have these names.

    Raises:
        Rejected: it can't become an example.
    """
    if len(cells) != len(names):
        raise Rejected(Reason.CELLS, f"{len(cells)} instead of {len(names)}")
    record = {name: cell.strip() for name, cell in zip(names, cells, strict=True) if name}
    file_name, age = record.pop(features.FILE_NAME), record.pop(features.AGE)
    span = {features.SPAN: str(table.span)} if table.span is not None else {}
    suffix = APPA_CROPS[table.crops] if table.crops else ""
    return Row(
        table=table,
        line=line,
        file_name=file_name,
        path=pictures.path(_inside(file_name) + suffix),
        age=_age(age),
        extra={name: value for name, value in record.items() if value} | span,
    )


def _inside(file_name: str) -> str:
    """The picture's path inside its folder; a backslash separates folders too."""
    if not file_name:
        raise Rejected(Reason.NO_FILE_NAME)
    inside = posixpath.normpath(file_name.replace("\\", "/"))
    if PureWindowsPath(file_name).anchor or inside.split("/")[0] == "..":
        raise Rejected(Reason.OUTSIDE)
    return inside


def _age(text: str) -> float:
    """An age in years."""
    if not text:
        raise Rejected(Reason.AGE_MISSING)
    age = number(text)
    if age is None:
        raise Rejected(Reason.AGE_NOT_A_NUMBER, text[:80])
    if not 0 <= age <= features.MAX_AGE:
        raise Rejected(Reason.AGE_OUT_OF_RANGE, text[:80])
    return age


def number(text: str) -> float | None:
    """A number, written with a decimal point or comma; None if the text is none."""
    return float(text.replace(",", ".")) if _NUMBER.fullmatch(text) else None

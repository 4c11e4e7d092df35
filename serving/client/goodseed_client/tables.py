"""Tables as people have them: CSV files of the usual dialects and encodings."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

# What is saved under the name of a CSV now and then, by its first bytes.
_FOREIGN = {
    b"PK\x03\x04": "a workbook (.xlsx or .ods)",
    b"\xd0\xcf\x11\xe0": "a workbook (.xls)",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a gzip file",
}
_SEPARATOR = re.compile(r'"?sep=(.)"?(?:\r\n|\r|\n)')  # a first line for spreadsheets
# Letters of which one at least is not ASCII; one such letter alone tells nothing.
_WORD = re.compile(rb"(?=[A-Za-z]*[\x80-\xff])[A-Za-z\x80-\xff]{2,}")
_ASCII_LETTER = re.compile(rb"[A-Za-z]")
_MAX_CELL = 2**31 - 1  # characters


class Record(NamedTuple):
    """A row that is not empty."""

    line: int  # of the file, where the record starts; the first line is 1
    cells: list[str]


class Table(NamedTuple):
    """A header and its records. A record may have too few or too many cells."""

    columns: list[str]  # as written, without spaces around them
    records: list[Record]

    def position(self, column: str) -> int:
        """The index of the column with this normal name."""
        return [normal(name) for name in self.columns].index(column)


def normal(column: str) -> str:
    """A column's name in lower case, without spaces around it, and with _ for spaces inside."""
    return "_".join(column.lower().split())


def read(path: Path, wanted: Collection[str]) -> Table:
    """Reads a CSV.

    It may be separated by commas, semicolons or tabs, or begin with `sep=` and its separator. It
    may be UTF-8, UTF-16 with a byte order mark, Windows-1251 or Windows-1252.

    Args:
        path: the file.
        wanted: the normal names of columns that the header must have, each once.

    Raises:
        ValueError: it can't be read, is not a CSV, or has other columns; the text is one line and
            names the file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    text = _decode(path, data)
    skipped, separator = 0, _SEPARATOR.match(text)
    if separator:
        skipped, text = 1, text[separator.end() :]
    delimiter = separator[1] if separator else _delimiter(text, wanted)
    records = _records(path, text, delimiter, skipped)
    columns = [cell.strip() for cell in next(records, Record(1, [])).cells]
    names = [normal(name) for name in columns]
    for column in wanted:
        if names.count(column) != 1:
            problem = "has twice" if column in names else "lacks"
            header = ", ".join(filter(None, names))[:200] or "nothing"
            shown = "".join(one if one.isprintable() else "?" for one in header)
            raise ValueError(f"{path} {problem} the column {column}; its header says: {shown}")
    return Table(columns, [_without_padding(record, len(columns)) for record in records])


def _decode(path: Path, data: bytes) -> str:
    for start, kind in _FOREIGN.items():
        if data.startswith(start):
            raise ValueError(f"{path} is {kind}, not a CSV: save it as CSV in UTF-8")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError:
            raise ValueError(f"{path} is damaged UTF-16: save it as CSV in UTF-8") from None
    if b"\0" in data.partition(b"\n")[0]:  # UTF-16 without a mark, or no text at all
        raise ValueError(f"{path} is not text: save it as CSV in UTF-8")
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _decode_lines(path, data.splitlines(keepends=True))


def _decode_lines(path: Path, lines: list[bytes]) -> str:
    """Decodes each line by itself: programs that append to a table may use another encoding."""
    decoded: list[str | bytes] = []
    for line in lines:
        try:
            decoded.append(line.decode())
        except UnicodeDecodeError:
            decoded.append(line)
    encoding = _windows(path, b"".join(line for line in decoded if isinstance(line, bytes)))
    return "".join(
        line if isinstance(line, str) else line.decode(encoding, "replace") for line in decoded
    )


def _windows(path: Path, data: bytes) -> str:
    """Windows-1251 or 1252: Cyrillic words have no ASCII letters, and words with accents do."""
    mixed = {bool(_ASCII_LETTER.search(word)) for word in _WORD.findall(data)}
    if len(mixed) > 1:
        raise ValueError(
            f"{path} is neither UTF-8 nor clearly Windows-1251 or 1252: save it as CSV in UTF-8"
        )
    return "cp1252" if mixed == {True} else "cp1251"


def _delimiter(text: str, wanted: Collection[str]) -> str:
    """The one that finds most of the wanted columns in the header."""
    header = next((line for line in text.splitlines() if line.strip()), "")

    def found(delimiter: str) -> int:
        return len({*wanted} & {normal(cell.strip(' "')) for cell in header.split(delimiter)})

    return max(",;\t", key=found)


def _records(path: Path, text: str, delimiter: str, skipped: int) -> Iterator[Record]:
    """The records that are not empty, the header too."""
    csv.field_size_limit(_MAX_CELL)  # a setting of the process; its default is 128 KB
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    line = skipped + 1
    try:
        for cells in reader:
            if any(map(str.strip, cells)):
                yield Record(line, cells)
            line = skipped + reader.line_num + 1
    except csv.Error as error:  # without `strict`, an open quote would hide all rows after it
        raise ValueError(f"{path} row {line} is not CSV ({error}): correct its quotes") from None


def _without_padding(record: Record, columns: int) -> Record:
    """Spreadsheets fill rows up with empty cells."""
    padded = not any(map(str.strip, record.cells[columns:]))
    return record._replace(cells=record.cells[:columns]) if padded else record

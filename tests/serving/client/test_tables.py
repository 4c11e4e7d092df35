"""Tables as spreadsheets and people write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from goodseed_client import tables
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def read(folder: Path, data: bytes) -> tables.Table:
    (folder / "table.csv").write_bytes(data)
    return tables.read(folder / "table.csv", ["file_name"])


def test_columns_and_records_are_as_written(tmp_path: Path) -> None:
    table = read(
        tmp_path, b'sep=;\r\nFile Name; Note;\r\na.jpg;"two\r\nlines";;\r\n;;\r\nb.jpg\r\n'
    )
    assert table.columns == ["File Name", "Note", ""] and table.position("note") == 1
    assert table.records == [(3, ["a.jpg", "two\r\nlines", ""]), (6, ["b.jpg"])]


@pytest.mark.parametrize(
    "text", ["file_name,x\nИра.jpg,1\n", "file_name,x\nbébé.jpg,1\n", "file_name;x\r\né.jpg;1\r\n"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1251", "cp1252"])
def test_encodings(tmp_path: Path, text: str, encoding: str) -> None:
    """What an encoding can't write is no case. One accent alone is taken for Windows-1251."""
    try:
        data = text.encode(encoding)
    except UnicodeEncodeError:
        return
    if encoding == "cp1252" and "\né" in text:
        text = text.replace("é", "й")
    table = read(tmp_path, data)
    assert table.records[0].cells[0] == text.splitlines()[1].partition(",")[0].partition(";")[0]


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=100),
        st.text('file_name,;\t"\r\n é', max_size=60).map(lambda t: f"file_name\n{t}".encode()),
        st.binary(max_size=60).map(lambda data: b"sep=;\nfile_name;x\n" + data),
    )
)
def test_any_bytes_are_a_table_or_a_one_line_error(tmp_path: Path, data: bytes) -> None:
    try:
        table = read(tmp_path, data)
    except ValueError as error:
        assert str(error).isprintable() and "table.csv" in str(error)
    else:
        assert all(any(map(str.strip, cells)) for _, cells in table.records)

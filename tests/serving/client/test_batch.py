"""Many photos become a table of ages; the file is complete or missing."""

from __future__ import annotations

import csv
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pyarrow.parquet as pq
import pytest
from goodseed_client import AgeClient, Failure, batch
from goodseed_client.batch import find, write_ages
from goodseed_client.photo import prepare
from goodseed_client.predict_pb2 import DT_BOOL, DT_FLOAT, DT_STRING, PredictRequest

from tests.pictures import encoded
from tests.ports import free_port
from tests.serving.client.photos import picture
from tests.serving.client.server import Answer, everybody_is, response, serving, start

ADDED = ["age", "age_group", "model_version", "objection", "reason"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten photos; the fourth is a broken one."""
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    for number in range(10):
        name = f"deeper/{number}.PNG" if number % 2 else f"{number}.jpg"
        data = encoded(picture(seed=number), "PNG" if number % 2 else "JPEG")
        (folder / name).write_bytes(b"broken" if number == 3 else data)
    (folder / "readme.txt").write_text("no photo")
    return folder


@pytest.fixture
def server() -> Iterator[str]:
    with serving(everybody_is(19.5)) as address:
        yield address


def rows(output: Path) -> list[dict[str, str]]:
    with output.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder(photos: Path, server: str, tmp_path: Path) -> None:
    done: list[int] = []
    output = tmp_path / "ages.csv"
    with AgeClient(server) as client:
        assert write_ages(client, find(photos), output, batch_size=4, report=done.append)[:2] == (
            9,
            0,
        )
    table = rows(output)
    assert list(table[0]) == ["file_name", *ADDED]
    assert [row["file_name"] for row in table] == [
        *(f"{n}.jpg" for n in (0, 2, 4, 6, 8)), *(f"deeper/{n}.PNG" for n in (1, 3, 5, 7, 9)),
    ]  # fmt: skip
    by_name = {row["file_name"]: [row[name] for name in ADDED] for row in table}
    assert by_name.pop("deeper/3.PNG") == ["", "", "", "", "bad_photo"]
    assert set(map(tuple, by_name.values())) == {("19.50", "18–20", "7", "", "")}
    assert done == [4, 8, 10]


def test_a_csv_keeps_its_columns(photos: Path, server: str, tmp_path: Path) -> None:
    (photos / "sales.csv").write_text(
        'sale,picture,basket\n1,0.jpg,"wine, bread"\n2,deeper/1.PNG,milk\n3,none.jpg,tea\n'
    )
    output = tmp_path / "ages.parquet"
    with AgeClient(server) as client:
        write_ages(client, find(photos / "sales.csv", "picture"), output)
    table = pq.read_table(output)
    assert table.column_names == ["sale", "picture", "basket", *ADDED]
    assert table["basket"].to_pylist() == ["wine, bread", "milk", "tea"]
    assert table["age"].to_pylist() == [19.5, 19.5, None]
    assert table["age_group"].to_pylist() == ["18–20", "18–20", None]
    assert table["reason"].to_pylist() == [None, None, "bad_photo"]
    assert table["model_version"].to_pylist() == [7, 7, None]


def test_an_age_with_an_objection_has_no_group(photos: Path, tmp_path: Path) -> None:
    """Also one that this client does not know, and one of a model that is not sure."""

    def answer(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        objections = [b"no_face", b"", b"asleep", b"no_photo"]
        challenge = [True, True, True, True]
        return response(
            age=(DT_FLOAT, [19.5, 19.5, 19.5, float("nan")]),
            valid=(DT_BOOL, [True, True, True, False]),
            objection=(DT_STRING, objections),
            challenge=(DT_BOOL, challenge),
        )

    (photos / "four.csv").write_text("file_name\n0.jpg\n2.jpg\n4.jpg\n6.jpg\n")
    output = tmp_path / "ages.parquet"
    with serving(answer) as server, AgeClient(server) as client:
        assert write_ages(client, find(photos / "four.csv"), output)[:2] == (3, 3)
    table = pq.read_table(output)
    assert table["age"].to_pylist() == [19.5, 19.5, 19.5, None]
    assert table["age_group"].to_pylist() == [None, "18–20", None, None]
    assert table["objection"].to_pylist() == ["no_face", None, "asleep", "no_photo"]
    assert table["reason"].to_pylist() == [None, None, None, "bad_photo"]


def test_photos_keep_their_ages_in_order(photos: Path, tmp_path: Path) -> None:
    """Each row gets the age of its photo, although the requests end in another order."""

    def answer(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        jpegs = request.inputs["image"].string_val
        time.sleep(len(jpegs[0]) % 5 / 50)
        ages = [len(jpeg) % 100 for jpeg in jpegs]
        valid = [len(jpeg) % 3 > 0 for jpeg in jpegs]
        return response(age=(DT_FLOAT, ages), valid=(DT_BOOL, valid))

    output = tmp_path / "ages.csv"
    expected = []
    for row in find(photos).rows:
        try:
            size = len(prepare(photos / row["file_name"]))
            expected.append(f"{size % 100:.2f}" if size % 3 else "")
        except Failure:
            expected.append("")
    with serving(answer) as server, AgeClient(server) as client:
        write_ages(client, find(photos), output, batch_size=1)
    assert [row["age"] for row in rows(output)] == expected


def test_a_server_that_starts_late(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "_TIMEOUT", 0.3)
    port = free_port()
    started = []

    def late() -> None:
        time.sleep(1)
        started.append(start(everybody_is(40), f"127.0.0.1:{port}")[0])

    threading.Thread(target=late).start()
    with AgeClient(f"127.0.0.1:{port}") as client:
        assert write_ages(client, find(photos), tmp_path / "ages.csv")[:2] == (9, 0)
    started[0].stop(0)


@pytest.mark.parametrize(
    "answer",
    [
        lambda request, context: context.abort(grpc.StatusCode.INVALID_ARGUMENT, "too many"),
        lambda request, context: b"garbage",
    ],
)
def test_a_server_that_refuses_leaves_nothing(photos: Path, tmp_path: Path, answer: Answer) -> None:
    with serving(answer) as server, AgeClient(server) as client, pytest.raises(Failure):
        write_ages(client, find(photos), tmp_path / "ages.csv", batch_size=2)
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "its header says: nothing"),
        ("picture,age\n0.jpg,4\n", "has a column age, which the output needs"),
        ("picture\n0.jpg,4\n", "row 2 should have 1 cells, not 2"),
        ("picture,x\n0.jpg\n", "row 2 should have 2 cells, not 1"),
        ("picture\n", "holds no photos"),
        ("picture\nno.jpg\n", "none of its photos exists; the first is .*/no.jpg$"),
        ('picture\n"0.jpg\n', "row 2 is not CSV"),
        ("picture\0\n", "is not text: save it as CSV in UTF-8"),
    ],
)
def test_a_bad_csv_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "sales.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=said):
        find(tmp_path / "sales.csv", "picture")


@pytest.mark.parametrize("output", ["ages.csv", "ages.parquet"])
def test_a_folder_as_people_have_it(photos: Path, server: str, tmp_path: Path, output: str) -> None:
    """What may be a photo is listed, also if nobody can decode it, and what hides is not."""
    jpeg = (photos / "0.jpg").read_bytes()
    names = [b"x.jfif", b"x.JPE", b"x.tif", b"x.heic", b"caf\xe9.jpg", b"._0.jpg", b"Thumbs.db"]
    for name in names:
        (photos / os.fsdecode(name)).write_bytes(b"heic" if name == b"x.heic" else jpeg)
    with AgeClient(server) as client:
        write_ages(client, find(photos), tmp_path / output)
    read = pq.read_table if output.endswith("parquet") else None
    table = read(tmp_path / output).to_pylist() if read else rows(tmp_path / output)
    reasons = {row["file_name"]: row["reason"] or "" for row in table}
    assert len(reasons) == 10 + 5
    assert reasons["x.heic"] == "bad_photo" and reasons["caf\\udce9.jpg"] == ""
    assert reasons["x.JPE"] == reasons["x.jfif"] == reasons["x.tif"] == ""


@pytest.mark.parametrize("column", ["age", "Reason"])
def test_a_column_of_ours_is_not_overwritten(photos: Path, column: str) -> None:
    (photos / "t.csv").write_text(f"file_name,{column}\n0.jpg,5\n")
    with pytest.raises(ValueError, match=f"a column {column}, which the output needs"):
        find(photos / "t.csv")
    with pytest.raises(ValueError, match="which the output needs"):
        find(photos, column)

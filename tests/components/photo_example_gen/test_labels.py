"""The CSV of the labels: its dialects, its rejected rows, and the layouts of the folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.errors import UserError
from components.photo_example_gen import fingerprint, labels
from components.photo_example_gen.labels import Labels
from components.photo_example_gen.rejects import Reason
from pipeline.config import Data
from schemas import features


@pytest.fixture
def read(tmp_path):
    """Reads a labels.csv with these bytes; its folder of pictures is empty."""
    (tmp_path / "final_files").mkdir()

    def read(data: bytes | str, **columns: str) -> Labels:
        data = data if isinstance(data, bytes) else data.encode()
        (tmp_path / "labels.csv").write_bytes(data)
        return labels.read(Data(photos=str(tmp_path), **columns))

    return read


def names_and_ages(found: Labels) -> list[tuple[str, float]]:
    return [(row.file_name, row.age) for row in found.rows]


TWO_ROWS = [("a.jpg", 23.0), ("b.jpg", 45.5)]


@pytest.mark.parametrize(
    "text",
    [
        "file_name,real_age\na.jpg,23\nb.jpg,45.5\n",
        "file_name,real_age\r\na.jpg,23\r\nb.jpg,45.5",
        "file_name,real_age\ra.jpg,23\rb.jpg,45.5\r",
        "\ufefffile_name,real_age\na.jpg,23\nb.jpg,45.5\n",
        "file_name;real_age\na.jpg;23\nb.jpg;45,5\n",
        "file_name\treal_age\na.jpg\t23\nb.jpg\t45.5\n",
        '"file_name","real_age"\n"a.jpg","23"\n"b.jpg","45,5"\n',
        '"file_name";"real_age"\n"a.jpg";"23"\n"b.jpg";"45.5"\n',
        " File_Name , REAL AGE \n a.jpg , 23 \n b.jpg , +4.55e1 \n",
        "\n\nreal_age,file_name\n\n23,a.jpg\n,\n45.5,b.jpg\n\n",
        'note,file_name,real_age\n"x, y; z",a.jpg,23,,\n"two\nlines",b.jpg,45.5\n',
        "sep=;\nfile_name;real_age\na.jpg;23\nb.jpg;45,5\n",
        '"sep=|"\r\nfile_name|real_age\r\na.jpg|23\r\nb.jpg|45,5\r\n',
    ],
)
def test_csv_dialects(read, text):
    found = read(text)
    assert names_and_ages(found) == TWO_ROWS
    assert not found.rejects


def test_windows_1251(read):
    found = read("file_name;real_age;Пол\nИра.jpg;23;жен\nb.jpg;45,5;муж\n".encode("cp1251"))
    assert names_and_ages(found) == [("Ира.jpg", 23.0), ("b.jpg", 45.5)]
    assert [row.extra for row in found.rows] == [{"пол": "жен"}, {"пол": "муж"}]


def test_a_line_that_is_not_utf8_does_not_change_the_others(read):
    found = read("file_name,real_age\nИра.jpg,23\n".encode() + b"caf\xe9\x81.jpg,30\n")
    assert [row.file_name for row in found.rows] == ["Ира.jpg", "café\ufffd.jpg"]


def test_row_numbers_are_line_numbers(read):
    text = (
        'note,file_name,real_age\n"two\nlines",a.jpg,23\n\nx,b.jpg,45.5\n"three\n\nlines",c.jpg,\n'
    )
    found = read(text)
    assert [row.line for row in found.rows] == [2, 5]
    assert [reject.row for reject in found.rejects] == [6]


def test_other_columns_are_extra_columns(read):
    found = read("file_name,real_age, Gender ,Store No,,group\na.jpg,23,female,,x,west\n")
    assert found.extra_columns == ["gender", "store_no", "group"]
    assert found.rows[0].extra == {"gender": "female", "group": "west"}


def test_columns_may_be_named(read):
    found = read("photo,years\na.jpg,23\n", file_column="Photo", age_column="years")
    assert names_and_ages(found) == [("a.jpg", 23.0)]
    assert found.extra_columns == []


@pytest.mark.parametrize(
    ("age", "reason"),
    [
        ("", Reason.AGE_MISSING),
        ("  ", Reason.AGE_MISSING),
        ("old", Reason.AGE_NOT_A_NUMBER),
        ("nan", Reason.AGE_NOT_A_NUMBER),
        ("inf", Reason.AGE_NOT_A_NUMBER),
        ("-Infinity", Reason.AGE_NOT_A_NUMBER),
        ("2_3", Reason.AGE_NOT_A_NUMBER),
        ("0x17", Reason.AGE_NOT_A_NUMBER),
        ("23 years", Reason.AGE_NOT_A_NUMBER),
        ("٢٣", Reason.AGE_NOT_A_NUMBER),
        ("-1", Reason.AGE_OUT_OF_RANGE),
        ("120.5", Reason.AGE_OUT_OF_RANGE),
        ("1e999", Reason.AGE_OUT_OF_RANGE),
    ],
)
def test_wrong_ages_are_rejected(read, age, reason):
    found = read(f'file_name,real_age\na.jpg,"{age}"\nb.jpg,0\nc.jpg,120\n')
    assert [(r.file_name, r.row, r.reason) for r in found.rejects] == [("a.jpg", 2, reason)]
    assert names_and_ages(found) == [("b.jpg", 0.0), ("c.jpg", 120.0)]


@pytest.mark.parametrize(
    ("row", "detail"), [("a.jpg,25,5,female", "4 instead of 3"), ("a.jpg,25", "2 instead of 3")]
)
def test_a_row_has_as_many_cells_as_the_header(read, row, detail):
    found = read(f"file_name,real_age,gender\n{row}\nb.jpg,30,male\n")
    (reject,) = found.rejects
    assert (reject.row, reject.file_name) == (2, "a.jpg")
    assert (reject.reason, reject.detail) == (Reason.CELLS, detail)
    assert names_and_ages(found) == [("b.jpg", 30.0)]


@pytest.mark.parametrize(
    "name",
    ["../a.jpg", "..", "a/../../b.jpg", "/etc/passwd", r"..\a.jpg", r"C:\a.jpg", r"\\host\a.jpg"],
)
def test_paths_outside_the_folder_are_rejected(read, name):
    assert [r.reason for r in read(f"file_name,real_age\n{name},23\n").rejects] == [Reason.OUTSIDE]


@pytest.mark.parametrize("name", ["sub/a.jpg", r"sub\a.jpg", "./sub/a.jpg", "x/../sub//a.jpg"])
def test_paths_inside_the_folder_are_accepted(read, name):
    (row,) = read(f"file_name,real_age\n{name},23\n").rows
    assert (row.file_name, row.path) == (name, "final_files/sub/a.jpg")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "lacks the column file_name; its header says: nothing"),
        ("file_name,age\na.jpg,23\n", "lacks the column real_age; its header says: file_name, age"),
        ("a.jpg,23\nb.jpg,45\n", "lacks the column file_name; its header says: a.jpg, 23"),
        ("file_name,real_age,Real Age\na.jpg,23,24\n", "has twice the column real_age"),
        ("file_name,real_age,x,X\na.jpg,23,1,2\n", "has two columns x: rename one"),
        ("file_name,real_age,Image,csv image\na.jpg,23,1,2\n", "has two columns csv_image"),
        ("file_name,real_age\n", "has no rows"),
        ("file_name,real_age\n\n,\n", "has no rows"),
        ('file_name,real_age\na.jpg,23\n"b.jpg,45\nc.jpg,3\n', "row 3 is not CSV"),
        (b"PK\x03\x04 and so on", "is a workbook (.xlsx or .ods), not a CSV: save it"),
        (b"\xff\xfefil", "is damaged UTF-16"),
        (b"file_name,real_\0age\na.jpg,3", "is not text"),
        (
            "file_name,real_age\nИра.jpg,3\n".encode("cp1251") + "bébé.jpg,3\n".encode("cp1252"),
            "is neither UTF-8 nor clearly Windows-1251 or 1252",
        ),
    ],
)
def test_an_unusable_csv_is_a_one_line_error(read, text, says):
    with pytest.raises(UserError) as info:
        read(text)
    assert says in str(info.value)
    assert "labels.csv" in str(info.value)
    assert "\n" not in str(info.value)


def test_a_long_cell_is_read(read):
    (row,) = read(f"file_name,real_age,note\na.jpg,23,{'x' * 200_000}\n").rows
    assert len(row.extra["note"]) == 200_000


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "cp1252", "cp1251"])
@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_encodings_of_spreadsheets(read, encoding, delimiter):
    name = "Ира.jpg" if encoding == "cp1251" else "bébé à la plage.jpg"
    text = f"File_Name;Real_Age;Place\r\n{name};23,5;x\r\n".replace(";", delimiter)
    mark = "" if encoding[-2:] not in ("le", "be") else "\ufeff"
    found = read(f"{mark}{text}".encode(encoding))
    assert names_and_ages(found) == [(name, 23.5)]


@pytest.mark.parametrize("name", sorted(features.OUR_NAMES))
def test_a_column_with_a_name_of_ours_is_carried_under_another(read, name):
    found = read(f"photo,years,{name.upper()}\na.jpg,23,x\n", file_column="photo",
                 age_column="years")  # fmt: skip
    assert found.extra_columns == [f"csv_{name}"]
    assert found.rows[0].extra == {f"csv_{name}": "x"} and found.rows[0].age == 23


@pytest.mark.parametrize(
    ("written", "on_disk"),
    [
        ("sub/a.jpg", "sub/a.jpg"),
        ("e\u0301.jpg", "\u00e9.jpg"),
        ("\u00e9.jpg", "e\u0301.jpg"),
        ("IMG_1.JPG", "img_1.jpg"),
        ("final_files/a.jpg", "a.jpg"),
        (r"final_files\sub\A.jpg", "sub/a.jpg"),
        ("final_files/a.jpg", "final_files/a.jpg"),
    ],
)
def test_names_that_are_written_a_bit_differently(read, tmp_path, written, on_disk):
    file = tmp_path / "final_files" / on_disk
    file.parent.mkdir(exist_ok=True)
    file.touch()
    (row,) = read(f"file_name,real_age\n{written},23\n").rows
    assert (row.file_name, row.path) == (written, f"final_files/{on_disk}")


def test_links_inside_the_folder_are_followed(read, tmp_path):
    pictures, cache = tmp_path / "final_files", tmp_path / "cache"
    cache.mkdir()
    (cache / "a.jpg").touch()
    (pictures / "linked").symlink_to(cache)
    (pictures / "b.jpg").symlink_to(cache / "a.jpg")
    (pictures / "loop").symlink_to("loop")
    (cache / "back").symlink_to(pictures)
    found = read("file_name,real_age\nLINKED/A.jpg,23\nB.jpg,30\n")
    assert [row.path for row in found.rows] == ["final_files/linked/a.jpg", "final_files/b.jpg"]
    before = fingerprint(Data(photos=str(tmp_path)))
    (cache / "a.jpg").write_bytes(b"other")
    assert fingerprint(Data(photos=str(tmp_path))) != before


def test_nothing_is_guessed_between_two_files(read, tmp_path):
    for name in ("a.JPG", "A.jpg", "b.jpg", "B.jpg"):
        (tmp_path / "final_files" / name).touch()
    found = read("file_name,real_age\na.jpg,23\nb.jpg,30\n")
    assert [row.path for row in found.rows] == ["final_files/b.jpg"]
    (reject,) = found.rejects
    assert reject.reason is Reason.AMBIGUOUS
    assert reject.detail == "it may be A.jpg or a.JPG"


@settings(
    max_examples=300, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text('abé,;\t"\n\r 0.5-', max_size=100).map(
            lambda t: f"file_name,real_age\n{t}".encode()
        ),
    )
)
def test_any_csv_gives_rows_or_a_one_line_error(read, data):
    try:
        found = read(data)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert all(0 <= row.age <= 120 and row.path for row in found.rows)
        assert len(found.rows) + len(found.rejects) <= len(data)


def test_layout_of_appa_real(make_folder):
    header = ("file_name", "num_ratings", "apparent_age_avg", "apparent_age_std", "real_age")
    for csv_name, folder in (("train", "train"), ("valid", "valid"), ("test", "test")):
        root = make_folder(
            [("000000.jpg", 36, 4.1, 1.6, 4)], {}, "appa", f"gt_avg_{csv_name}.csv", folder, header
        )
    found = labels.read(Data(photos=str(root)))
    assert [(row.table.split, row.path) for row in found.rows] == [
        ("train", "train/000000.jpg"),
        ("eval", "valid/000000.jpg"),
        ("test", "test/000000.jpg"),
    ]
    assert found.extra_columns == ["num_ratings", "apparent_age_avg", "apparent_age_std"]
    assert found.appa_crops == "full"
    crops = labels.read(Data(photos=str(root), appa_crops="faces"))
    assert [row.path for row in crops.rows] == [
        f"{folder}/000000.jpg_face.jpg" for folder in ("train", "valid", "test")
    ]
    assert [row.file_name for row in crops.rows] == ["000000.jpg"] * 3
    assert crops.appa_crops == "faces"
    (root / "gt_avg_valid.csv").unlink()
    with pytest.raises(UserError, match=r"lacks gt_avg_valid\.csv"):
        labels.find(Data(photos=str(root)))


def test_spans(make_folder):
    for span in ("span-2", "span-10", "span-0"):
        make_folder([("a.jpg", 23)], {}, f"photos/{span}")
    root = make_folder([], {}, "photos/other").parent

    def found(window: int) -> list[tuple[str, int | None]]:
        tables = labels.find(Data(photos=str(root), span_window=window))
        return [(table.csv, table.span) for table in tables]

    newest = ("span-10/labels.csv", 10)
    assert found(0) == [("span-0/labels.csv", 0), ("span-2/labels.csv", 2), newest]
    assert found(1) == [newest]
    assert found(2) == [("span-2/labels.csv", 2), newest]
    assert len(found(9)) == 3
    rows = labels.read(Data(photos=str(root)))
    assert rows.span == 10
    assert rows.rows[0].path == "span-0/final_files/a.jpg"
    assert rows.extra_columns == ["span"]
    assert [row.extra for row in rows.rows] == [{"span": n} for n in ("0", "2", "10")]
    shutil.rmtree(root / "span-2")
    shutil.rmtree(root / "span-10")
    assert labels.read(Data(photos=str(root))).rows[0].extra == {"span": "0"}


def test_another_labels_file(make_folder):
    root = make_folder([("a.jpg", 23, "west")], {}, csv_name="labels_with_groups.csv",
                       header=("file_name", "real_age", "group"))  # fmt: skip
    data = Data(photos=str(root), labels_file="labels_with_groups.csv")
    assert labels.read(data).extra_columns == ["group"]
    with pytest.raises(UserError, match="no photos"):
        labels.find(Data(photos=str(root)))


def test_folders_without_a_known_layout(make_folder, tmp_path):
    with pytest.raises(UserError, match="no folder"):
        labels.find(Data(photos=str(tmp_path / "absent")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no photos .* labels\.csv and final_files/"):
        labels.find(Data(photos=str(tmp_path / "empty")))
    root = make_folder([("a.jpg", 23)], {})
    (root / "span-1").mkdir()
    with pytest.raises(UserError, match="move the CSV"):
        labels.find(Data(photos=str(root)))
    (root / "labels.csv").unlink()
    with pytest.raises(UserError, match=r"span-1 holds neither"):
        labels.find(Data(photos=str(root)))
    (root / "span-1").rmdir()
    (root / "labels.csv").touch()
    (root / "final_files").rmdir()
    with pytest.raises(UserError, match="lacks the folder final_files/"):
        labels.find(Data(photos=str(root)))


def test_the_fingerprint_covers_what_is_read_and_nothing_else(make_folder):
    root = make_folder([("a.jpg", 23)], {"a.jpg": b"one", "b.jpg": b"two"})
    picture, csv_file = root / "final_files" / "a.jpg", root / "labels.csv"
    first = fingerprint(Data(photos=str(root)))
    os.utime(csv_file)
    (root / "README").write_text("new")
    assert fingerprint(Data(photos=str(root))) == first

    def changed(what: Path, data: bytes) -> bool:
        before = fingerprint(Data(photos=str(root)))
        what.write_bytes(data)
        return fingerprint(Data(photos=str(root))) != before

    assert changed(picture, b"longer")
    os.utime(picture, ns=(1, 1))
    assert changed(picture, b"shorte")
    assert changed(root / "final_files" / "c.jpg", b"three")
    (root / "final_files" / "sub").mkdir()
    assert changed(root / "final_files" / "sub" / "d.jpg", b"four")
    assert changed(csv_file, csv_file.read_bytes() + b"b.jpg,30\n")
    with pytest.raises(UserError):
        fingerprint(Data(photos=str(root / "final_files")))


@pytest.fixture
def leave_out(read, tmp_path):
    """The labels of three photos, without those that a CSV with these bytes lists."""
    found = read("file_name,real_age\na.jpg,23\nb.jpg,45\nc.jpg,60\n")
    for name in ("a", "b", "c", "gone"):
        (tmp_path / "final_files" / f"{name}.jpg").touch()

    def leave_out(data: bytes | str) -> Labels:
        path = tmp_path / "suspects.csv"
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return labels.leave_out(found, str(path), str(tmp_path))

    return leave_out


@pytest.mark.parametrize(
    "text",
    [
        "file_name\nfinal_files/b.jpg\n",
        "\ufeffscore;File Name\r\n9,5;final_files/b.jpg\r\n",
        'age,age,file_name,age_band\n1,2,"final_files/b.jpg",x\n',
        "file_name\nfinal_files/b.jpg\nfinal_files/gone.jpg\n",  # it may be in another span
    ],
)
def test_listed_photos_are_left_out(leave_out, text):
    left = leave_out(text)
    assert [row.file_name for row in left.rows] == ["a.jpg", "c.jpg"]
    (reject,) = left.rejects
    assert (reject.reason, reject.row) == (Reason.EXCLUDED, 3)
    assert "suspects.csv" in reject.detail


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("photo\nfinal_files/b.jpg\n", "lacks the column file_name"),
        ("file_name\nfinal_files/b.jpg\nb.jpg\n", "row 3: no photo 'b.jpg'"),
        ("file_name\n" + "x" * 5000 + "\n", "row 2: no photo 'xxx"),
    ],
)
def test_an_unusable_list_is_an_error(leave_out, text, said):
    with pytest.raises(UserError, match=said):
        leave_out(text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_any_list_leaves_photos_out_or_is_an_error(leave_out, data):
    try:
        leave_out(b"file_name\n" + data)
    except UserError as error:
        assert len(str(error).splitlines()) == 1


def test_the_fingerprint_covers_the_list(leave_out, tmp_path):
    listed = str(tmp_path / "suspects.csv")
    fingerprints = [fingerprint(Data(photos=str(tmp_path)))]
    for name in ("b", "c"):
        leave_out(f"file_name\nfinal_files/{name}.jpg\n")
        fingerprints.append(fingerprint(Data(photos=str(tmp_path), exclude=listed)))
    assert len(set(fingerprints)) == 3
    with pytest.raises(UserError, match="cannot read"):
        fingerprint(Data(photos=str(tmp_path), exclude=str(tmp_path / "none.csv")))

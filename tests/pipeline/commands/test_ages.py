"""`goodseed ages` writes a whole table or none."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest
from goodseed_client.predict_pb2 import DT_BOOL, DT_FLOAT, DT_STRING

from components import confusion
from pipeline import cli
from tests.pictures import encoded
from tests.serving.client.photos import picture
from tests.serving.client.server import VERSION, everybody_is, response, serving
from tests.serving.client.server import ages as answer_of


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photos, and a file that is not a photo in spite of its name."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(2):
        (folder / f"{seed}.jpg").write_bytes(encoded(picture(seed=seed)))
    (folder / "2.jpg").write_text("text")
    return folder


def ages(*words: object) -> int:
    return cli.main(["ages", *map(str, words)])


def test_a_table(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "ages.parquet"
    with serving(everybody_is(19.5)) as server:
        assert ages(photos, "--output", output, "--server", server) == 0
    printed = capsys.readouterr()
    why = "; the column reason says why others have none"
    first, *table = printed.out.splitlines()
    assert first == f"{output}: 3 photos, 2 with an age{why}"
    cells = [[cell.strip() for cell in row.split("│")[1:4]] for row in table]
    assert ["18–20", "2", "100.0% (34.2% to 100.0%)"] in cells
    assert "3/3" in printed.err  # the progress bar
    assert pq.read_table(output).num_rows == 3


def test_objections_are_counted(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "ages.csv"
    (photos / "2.jpg").unlink()
    answer = answer_of(40, 40, objection=(DT_STRING, [b"no_face", b""]))
    with serving(lambda request, context: answer) as server:
        assert ages(photos, "--output", output, "--server", server) == 0
    counted = "; 1 with an objection and so without an age group"
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"{output}: 2 photos, 2 with an age{counted}"


def test_groups_of_ones_own_and_a_chart(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, chart = tmp_path / "ages.csv", tmp_path / "ages.svg"
    words = ("--groups", "0-17,18-24,25+", "--chart", chart)
    with serving(everybody_is(19.5)) as server:
        assert ages(photos, "--output", output, "--server", server, *words) == 0
    assert "18–24" in output.read_text("utf-8")
    printed = capsys.readouterr().out
    # Wilson's interval of 2 of 2 (1927): from 1 / (1 + z² / 2) to 1.
    assert "34.2% to 100.0%" in printed and "0–17" in printed
    drawn = ElementTree.fromstring(chart.read_text("utf-8"))
    words_in = "".join(drawn.itertext())
    assert drawn.tag.endswith("svg")
    assert all(name in words_in for name in ("0–17", "18–24", "25+"))


def served(base: Path, version: int, table: confusion.Confusion | None) -> Path:
    """The folder of a served model, with the table of its errors unless it is None."""
    assets = base / str(version) / "assets"
    assets.mkdir(parents=True)
    (base / str(version) / "saved_model.pb").touch()
    if table is not None:
        confusion.write(table, assets / confusion.FILE)
    return base


def test_the_shares_are_corrected_by_the_models_errors(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model takes each person for six years older: so the two who look 19 are 13."""
    base = served(tmp_path / "model", VERSION, {(age, age + 6): 4 for age in range(80)})
    output, chart = tmp_path / "ages.csv", tmp_path / "ages.svg"
    words = ("--groups", "0-17,18-24,25+", "--correct", base, "--chart", chart)
    with serving(everybody_is(19.5)) as server:
        assert ages(photos, "--output", output, "--server", server, *words) == 0
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if "–" in line]
    shares = {
        row[1].strip(): [float(cell.split("%")[0]) for cell in row[3:5]] for row in rows
        if len(row) > 4
    }  # fmt: skip
    assert shares["18–24"][0] == 100 and shares["0–17"][0] == 0
    assert shares["0–17"][1] > 50
    assert "corrected" in "".join(ElementTree.fromstring(chart.read_text("utf-8")).itertext())


def test_a_correction_needs_to_know_who_answered(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = served(tmp_path / "model", VERSION, {(5, 5): 1})
    nameless = response(None, age=(DT_FLOAT, [40.0, 40.0]), valid=(DT_BOOL, [True, True]))
    (photos / "2.jpg").unlink()
    words = ("--output", tmp_path / "ages.csv", "--correct", base)
    with serving(lambda request, context: nameless) as server:
        assert ages(photos, "--server", server, *words) == 2
    assert "and these answered: an unknown one; ask for one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("version", "table", "said"),
    [
        (None, None, "there is no version of a model in this folder"),
        (
            VERSION + 1,
            {(5, 5): 1},
            "No such file or directory: give the folder that the server reads",
        ),
        (VERSION, None, "No such file or directory: give the folder that the server reads"),
        (VERSION, {(5, 5): 1}, "measured on no photo of the age group 18+: choose other --groups"),
    ],
)
def test_a_mistake_in_the_correction(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    version: int | None,
    table: confusion.Confusion | None,
    said: str,
) -> None:
    base = served(tmp_path / "model", version, table) if version else tmp_path / "model"
    words = ("--output", tmp_path / "ages.csv", "--groups", "0-17,18+", "--correct", base)
    with serving(everybody_is(19.5)) as server:
        assert ages(photos, "--server", server, *words) == 2
    last = [line for line in capsys.readouterr().err.splitlines() if line.strip()][-1]
    assert last.startswith("goodseed: --correct: ") and said in last


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--groups", "0-17,19+"), "--groups: '19+' should be a group from 18"),
        (("--chart", "ages.png"), "ages.png: --chart should end in .svg"),
    ],
)
def test_a_mistake_in_groups_or_chart(
    words: tuple[str, ...], said: str, photos: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    output = tmp_path / "ages.csv"
    assert ages(photos, "--output", output, "--server", "localhost:1", *words) == 2
    assert said in capsys.readouterr().err
    assert not output.exists()


def test_a_server_that_fails(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(lambda request, context: b"") as server:
        assert ages(photos, "--output", tmp_path / "ages.csv", "--server", server) == 1
    assert f"goodseed: {server}: no output age; the outputs are: none" in capsys.readouterr().err
    assert not (tmp_path / "ages.csv").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none", "--output", "a.csv"], "none: No such file"),
        (["{empty}", "--output", "a.csv"], "holds no photos"),
        ([__file__, "--output", "a.csv"], "lacks the column file_name"),
        (["{photos}", "--output", "a.xlsx"], "should end in .csv or .parquet"),
        (["{photos}", "--output", "none/a.csv"], "none/a.csv: No such file"),
        (["{photos}", "--output", "a.csv", "--batch-size", "0"], "--batch-size 0"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str],
    said: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"photos": photos, "empty": tmp_path / "empty"}
    assert ages(*(word.format(**places) for word in words)) == 2
    printed = capsys.readouterr()
    last = [line for line in printed.err.splitlines() if line.strip()][-1]
    assert last.startswith("goodseed: ") and said in last
    assert printed.out == ""

"""The benchmarks' results: the rows that are recorded, and the page that shows them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.results import Goal, Row

ROW = Row("a call", "2.5", "ms", "2.0", "1.25", "", "", "", "")


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that `record` appends to."""
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    command = ["/usr/bin/python3", "-m", "benchmarks.example", "--photos", "my photos"]
    monkeypatch.setattr(sys, "orig_argv", command)
    monkeypatch.setattr(sys, "argv", ["/checkout/benchmarks/example.py"])
    return tmp_path / "example.csv"


def test_a_figure_is_appended_with_its_reference_and_its_origin(recorded: Path) -> None:
    results.record("size", 3, "MB")
    figure = results.record("a call", 2.50001, "ms", 2.0)
    assert figure == {
        "name": "a call", "value": 2.5, "unit": "ms", "reference": 2.0, "ratio": 1.25,
    }  # fmt: skip
    size, call = results.read(recorded)
    assert size[:5] == ("size", "3", "MB", "", "")
    assert call[:5] == ROW[:5]
    assert call.command == "python -m benchmarks.example --photos 'my photos'"
    assert call.date and call.machine.endswith("cores")


def test_a_given_ratio_is_kept(recorded: Path) -> None:
    results.record("clients", 90.0, "photos/s", 100.0, ratio=0.95)
    (row,) = results.read(recorded)
    assert row.ratio == "0.95"


def test_results_do_not_make_a_commit_dirty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "HERE", tmp_path / "benchmarks")
    files = [tmp_path / "benchmarks" / "results" / "example.csv", tmp_path / "code.py"]
    files[0].parent.mkdir(parents=True)
    for file in files:
        file.write_text("as committed")
    author = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    for command in (("init",), ("add", "."), (*author, "commit", "--message=all")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)
    files[0].write_text("with a new row")
    commit = results._commit.__wrapped__()
    assert len(commit) == 7
    files[1].write_text("changed")
    assert results._commit.__wrapped__() == f"{commit}-dirty"


@pytest.mark.parametrize(
    ("of", "bound", "goal", "met"),
    [
        ("ratio", "at most", "1.25", True),
        ("ratio", "at most", "1.2", False),
        ("ratio", "at least", "1.3", False),
        ("value", "at most", "2.4", False),
        ("value", "at least", "2.5", True),
    ],
)
def test_a_goal_is_met_up_to_its_bound(of: str, bound: str, goal: str, met: bool) -> None:
    assert Goal("example", "a call", of, bound, goal).met(ROW) is met


def test_an_unknown_figure_misses_no_goal() -> None:
    unknown = ROW._replace(ratio="")
    assert Goal("example", "a call", "ratio", "at most", "1").met(unknown)


def test_every_goal_names_a_figure() -> None:
    """The source of the benchmark has the figure's name, or its results have it."""
    for benchmark, name in results.goals():
        source = results.HERE / f"{benchmark}.py"
        recorded = {row.name for row in results.read(results.RESULTS / f"{benchmark}.csv")}
        assert name in recorded or name in source.read_text("utf-8")


def test_the_page_is_up_to_date() -> None:
    """If this fails, run python -m benchmarks.results."""
    assert results.PAGE.read_text("utf-8") == results.page()


def test_the_page_says_which_goal_was_missed(
    recorded: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "commands.csv"
    results.append(file, ROW._replace(name="a long run", value="12345.6"))
    goals = tmp_path / "goals"
    goals.write_text("benchmark,name,of,bound,goal\ncommands,a long run,value,at most,60\n")
    monkeypatch.setattr(results, "GOALS", goals)
    assert "| a long run | 12,345.6 ms | 2.0 | 1.25 | value at most 60: **missed** |" in (
        results.page()
    )

"""Keeps what the benchmarks measure, and writes docs/benchmarks.md.

    python -m benchmarks.results

Each benchmark appends rows to results/<benchmark>.csv by `record`. This command writes the page
from these files, and from goals.csv, which says how good a figure should be.
"""

from __future__ import annotations

import argparse
import ast
import csv
import datetime
import functools
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
RESULTS = HERE / "results"
GOALS = HERE / "goals.csv"
PAGE = HERE.parent / "docs" / "benchmarks.md"
BY_HAND = "commands"  # the one file without a benchmark of its own
INTRODUCTION = """\
<!-- `python -m benchmarks.results` writes this page. Change the CSV files, not the page. -->
# Benchmarks

Figures as they were measured, the bad ones too. Each row is a row of `benchmarks/results/*.csv`. A
field that nobody wrote down is empty. The *reference* was measured in the same run. The *ratio* is
value to reference; where a benchmark alternates both in several rounds, it is the median of the
rounds' ratios. *Shared* after the machine means that other jobs ran on it: its times are upper
bounds. The *commit* is the code that was measured; before 2026-11-30 it is the commit that wrote
the figure down. Figures from before 2026-11-27 are of an older network, whose batch norms were not
folded.

The photos are 6,000 faces of 200 × 200 pixels, for research only. They are not in this repository.
"""


class Row(NamedTuple):
    """A line of a CSV file in results/; the fields are texts, as they are in the file."""

    name: str
    value: str
    unit: str
    reference: str
    ratio: str
    commit: str
    date: str
    machine: str
    command: str


class Goal(NamedTuple):
    """How good a figure should be: a bound for its value or its ratio."""

    benchmark: str
    name: str
    of: str  # "value" or "ratio"
    bound: str  # "at least" or "at most"
    goal: str

    def __str__(self) -> str:
        return f"{self.of} {self.bound} {self.goal}"

    def met(self, row: Row) -> bool:
        """Whether the row's figure reaches the goal; True if the figure is not known."""
        figure = row.ratio if self.of == "ratio" else row.value
        if not figure:
            return True
        margin = float(figure) - float(self.goal)
        return margin >= 0 if self.bound == "at least" else margin <= 0


def record(
    name: str, value: float, unit: str, reference: float | None = None, ratio: float | None = None
) -> dict[str, Any]:
    """Appends a figure of the running benchmark to its CSV file.

    Args:
        name: what was measured; the same text in each run.
        value: in `unit`.
        unit: for example "ms" or "photos/s"; "" for a number without one.
        reference: what the benchmark compares with, in the same unit, from the same run.
        ratio: value to reference, if it is not simply their quotient.

    Returns:
        name, value, unit, reference and ratio, for the line of JSON that ends a benchmark.
    """
    if ratio is None and reference:
        ratio = value / reference
    figure = {
        "name": name,
        "value": _rounded(value),
        "unit": unit,
        "reference": _rounded(reference),
        "ratio": _rounded(ratio),
    }
    texts = {key: "" if found is None else str(found) for key, found in figure.items()}
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    row = Row(**texts, commit=_commit(), date=date, machine=_machine(), command=_command())
    append(RESULTS / f"{_benchmark()}.csv", row)
    return figure


def append(file: Path, row: Row) -> None:
    """Adds a row to a CSV file; makes the file if it is missing."""
    new = not file.exists()
    with file.open("a", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        if new:
            writer.writerow(Row._fields)
        writer.writerow(row)


def _rounded(number: float | None) -> float | None:
    """Four significant digits; whole numbers as they are."""
    return float(f"{number:.4g}") if isinstance(number, float) else number


def _benchmark() -> str:
    """The name of the running module, without its package."""
    return Path(sys.argv[0]).stem


def _command() -> str:
    """What started this process; the interpreter is `python`, and an absolute path is `PATH`."""
    # Not sys.argv: some benchmarks empty it, because TFX gives it to Beam.
    words = ("PATH" if os.path.isabs(word) else word for word in sys.orig_argv[1:])
    return shlex.join(["python", *words])


@functools.cache
def _commit() -> str:
    """The commit that is checked out; with `-dirty` after it if more than results was changed."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", "-C", str(HERE.parent), *arguments], capture_output=True, text=True
        )

    head = git("rev-parse", "--short=7", "HEAD").stdout.strip()
    results = (":(exclude)benchmarks/results", ":(exclude)docs/benchmarks.md")
    changed = git("diff", "--quiet", "HEAD", "--", ".", *results).returncode == 1
    return f"{head}-dirty" if changed else head


@functools.cache
def _machine() -> str:
    """Processor, its widest instructions for neural networks, and number of cores."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text("utf-8").splitlines() if about.exists() else []
    facts = {key.strip(): value.strip() for key, _, value in (s.partition(":") for s in lines)}
    flags = facts.get("flags", "").split()
    known = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "avx512f": "AVX512", "avx2": "AVX2"}
    widest = next((name for flag, name in known.items() if flag in flags), "")
    cores = f"{os.cpu_count()} cores"
    return ", ".join(filter(None, (facts.get("model name", ""), widest, cores)))


def read(file: Path) -> list[Row]:
    """The rows of a CSV file in results/."""
    with file.open(encoding="utf-8", newline="") as lines:
        return [Row(**line) for line in csv.DictReader(lines)]


def goals() -> dict[tuple[str, str], Goal]:
    """The goals, by benchmark and name of the figure."""
    with GOALS.open(encoding="utf-8", newline="") as lines:
        found = [Goal(**line) for line in csv.DictReader(lines)]
    return {(goal.benchmark, goal.name): goal for goal in found}


def page() -> str:
    """docs/benchmarks.md, from the files."""
    wanted = goals()
    parts = [INTRODUCTION]
    for file in sorted(RESULTS.glob("*.csv")):
        parts += [_heading(file.stem), _table(file.stem, read(file), wanted)]
    return "\n".join(parts)


def _heading(benchmark: str) -> str:
    if benchmark == BY_HAND:
        return f"## {benchmark}\n\nWhole commands, and sizes, measured by hand.\n"
    source = (HERE / f"{benchmark}.py").read_text("utf-8")
    text = ast.get_docstring(ast.parse(source)) or ""
    return f"## {benchmark}\n\n{text.splitlines()[0]}\n"


def _table(benchmark: str, rows: Sequence[Row], wanted: dict[tuple[str, str], Goal]) -> str:
    """Rows of one figure stand together, in the order in which they were recorded."""
    lines = [
        "| figure | value | reference | ratio | goal | date | commit | machine | command |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row.name for row in rows):
        for row in (row for row in rows if row.name == name):
            goal = wanted.get((benchmark, name))
            judged = "" if goal is None else str(goal)
            if goal is not None and not goal.met(row):
                judged += ": **missed**"
            value = f"{_shown(row.value)} {row.unit}".strip() if row.value else ""
            command = f"`{row.command}`" if row.command else ""
            cells = (name, value, _shown(row.reference), row.ratio, judged)
            lines.append(f"| {' | '.join((*cells, row.date, row.commit, row.machine, command))} |")
    return "\n".join([*lines, ""])


def _shown(number: str) -> str:
    """A number with separators between the thousands."""
    whole, dot, fraction = number.partition(".")
    return f"{int(whole):,}{dot}{fraction}" if whole.isdecimal() else number


def main() -> None:
    """Writes the page."""
    argparse.ArgumentParser(description="Writes docs/benchmarks.md.").parse_args()
    PAGE.write_text(page(), "utf-8")


if __name__ == "__main__":
    main()

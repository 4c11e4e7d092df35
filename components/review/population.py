"""The reference population: reads the number of people of each age from a CSV.

The first lines of the CSV start with `#` and name the source of the figures:

    # Population of … by age, 31 December 2023. Source: …
    age,people
    0,689849
    1,753091
    …
    85+,2887733

`age` is one year or a range of years (`5-9`). In the last row it is an age and all ages above it
(`85+`). The ages have to start at 0 and have no gaps. A range may not lie in two age bands of the
reports, because a range such as 15-19 does not say how many people are 18 or older.
"""

from __future__ import annotations

import csv
import math
import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from components.errors import UserError
from schemas import features

BUNDLED = "population_germany_2023.csv"  # beside this file
_HEADER = ["age", "people"]
_AGES = re.compile(r"(?P<first>[0-9]{1,3})(?:\s*[-–]\s*(?P<last>[0-9]{1,3})|(?P<open>\+))?")


@dataclass(frozen=True)
class Population:
    """A reference population."""

    source: str  # from the first lines of the CSV
    shares: Mapping[str, float]  # by age band, from young to old; the sum is 1


def read(path: str | None) -> Population:
    """Reads a population from a CSV.

    Args:
        path: of the CSV; None: the one in this folder.

    Raises:
        UserError: the file can't be read, or a line of it is wrong.
    """
    file = resources.files(__package__).joinpath(BUNDLED) if path is None else Path(path)
    try:
        return parse(file.read_text("utf-8-sig"))
    except OSError as error:
        raise UserError(f"review.population: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"review.population: {path}: the file is not text in UTF-8") from None
    except UserError as error:
        raise UserError(f"review.population: {path}: {error}") from None


def parse(text: str) -> Population:
    """Reads a population from the text of a CSV.

    Raises:
        UserError: a line is wrong.
    """
    lines = text.splitlines()
    head = [line.lstrip("# ").rstrip() for line in lines if line.startswith("#")]
    source = " ".join(filter(None, head))
    if not source:
        raise UserError("name the source of the figures in lines that start with #")
    rows = [(number, _cells(number, line)) for number, line in enumerate(lines, 1) if _is_row(line)]
    if not rows or [cell.lower() for cell in rows[0][1]] != _HEADER:
        raise UserError(f"the first line after the # lines has to be {','.join(_HEADER)}")

    people = dict.fromkeys(features.AGE_BANDS, 0.0)
    age: float = 0
    for number, cells in rows[1:]:
        first, last = _ages(number, cells)
        if first != age:
            raise UserError(f"line {number}: the next age has to be {age:g}, not {first}")
        people[_band(number, first, last)] += _people(number, cells)
        age = last + 1
    if age < math.inf:
        raise UserError(f"the last line has to be for all older people: {age:g}+")
    total = sum(people.values())
    if not 0 < total < math.inf:
        raise UserError("the sum of the people is not a number above 0")
    return Population(source, {band: count / total for band, count in people.items()})


def _is_row(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def _cells(number: int, line: str) -> list[str]:
    try:
        (cells,) = csv.reader([line], strict=True)
    except csv.Error as error:
        raise UserError(f"line {number}: {error}") from None
    if len(cells) != len(_HEADER):
        raise UserError(f"line {number}: {len(cells)} cells instead of {len(_HEADER)}")
    return [cell.strip() for cell in cells]


def _ages(number: int, cells: list[str]) -> tuple[int, float]:
    """The first and the last age of a row, in years. In the last row, the last age is infinite."""
    found = _AGES.fullmatch(cells[0])
    if not found:
        raise UserError(f"line {number}: {cells[0][:40]!r} is not an age; write 7, 5-9 or 85+")
    first = int(found["first"])
    last = math.inf if found["open"] else int(found["last"] or first)
    if last < first:
        raise UserError(f"line {number}: {cells[0]!r} ends before it starts")
    return first, last


def _people(number: int, cells: list[str]) -> float:
    try:
        people = float(cells[1])
    except ValueError:
        people = math.nan
    if not 0 <= people < math.inf:
        raise UserError(f"line {number}: {cells[1][:40]!r} is not a number of people")
    return people


def _band(number: int, first: int, last: float) -> str:
    one, other = (
        features.AGE_BANDS[bisect_right(features.AGE_BAND_STARTS, age) - 1] for age in (first, last)
    )
    if one != other:
        raise UserError(
            f"line {number}: the ages lie in the bands {one} and {other}; write a line per year"
        )
    return one

"""The reference population: how many people of each age there are, from a plain-text table.

A table is a CSV whose head says in `#` lines where the figures come from:

    # Population of … by age, 31 December 2023. Source: …
    age,people
    0,689849
    1,753091
    …
    85+,2887733

`age` is one year, a range of years (`5-9`) or, last of all, an age and all above it. The ages have
to start at 0 and go on without a gap, and none may lie in two age bands of the reports: a table of
five-year groups does not say how many of its 15-19 are of age.
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

    source: str  # as the table's head says
    shares: Mapping[str, float]  # by age band, in their order; they sum up to 1


def read(path: str | None) -> Population:
    """The population in a table.

    Args:
        path: of the table; None: the one that is bundled.

    Raises:
        UserError: there is no such table, or what it says is no population, with the line.
    """
    file = resources.files(__package__).joinpath(BUNDLED) if path is None else Path(path)
    try:
        return parse(file.read_text("utf-8-sig"))
    except OSError as error:
        raise UserError(f"review.population: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"review.population: {path}: it is not a text file in UTF-8") from None
    except UserError as error:
        raise UserError(f"review.population: {path}: {error}") from None


def parse(text: str) -> Population:
    """The population that a table's text describes.

    Raises:
        UserError: which line is wrong, and how.
    """
    lines = text.splitlines()
    head = [line.lstrip("# ").rstrip() for line in lines if line.startswith("#")]
    source = " ".join(filter(None, head))
    if not source:
        raise UserError("say in lines that start with # where the figures come from")
    rows = [(number, _cells(number, line)) for number, line in enumerate(lines, 1) if _is_row(line)]
    if not rows or [cell.lower() for cell in rows[0][1]] != _HEADER:
        raise UserError(f"the first line below the # lines has to be {','.join(_HEADER)}")

    people = dict.fromkeys(features.AGE_BANDS, 0.0)
    age: float = 0
    for number, cells in rows[1:]:
        first, last = _ages(number, cells)
        if first != age:
            raise UserError(f"line {number}: the ages have to go on at {age:g}, not at {first}")
        people[_band(number, first, last)] += _people(number, cells)
        age = last + 1
    if age < math.inf:
        raise UserError(f"the last line has to be of an age and all above it: {age:g}+")
    total = sum(people.values())
    if not 0 < total < math.inf:
        raise UserError("it has no people")
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
    """The first and the last age of a row, years; the last is infinite in the last row."""
    found = _AGES.fullmatch(cells[0])
    if not found:
        raise UserError(f"line {number}: {cells[0][:40]!r} is no age; write 7, 5-9 or 85+")
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
        raise UserError(f"line {number}: {cells[1][:40]!r} is no number of people")
    return people


def _band(number: int, first: int, last: float) -> str:
    one, other = (
        features.AGE_BANDS[bisect_right(features.AGE_BAND_STARTS, age) - 1] for age in (first, last)
    )
    if one != other:
        raise UserError(
            f"line {number}: its ages lie in the bands {one} and {other}: give them year by year"
        )
    return one

"""The section "Fairness": who passes without ID, and who is asked for it, in each group."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from components.intervals import Figure
from components.passing import ADULT_AGE, ADULTS, MINORS, PASSED
from components.review.evaluation import Metrics, figures
from components.review.inputs import Inputs
from components.review.page import Block, Cell, Row, Section, Table, Text
from components.review.slices import order


def section(inputs: Inputs) -> Section:
    """A table for each extra column of the photos' table."""
    return Section("fairness", "Fairness", list(_blocks(inputs)))


def _blocks(inputs: Inputs) -> Iterator[Block]:
    found = figures(inputs)
    columns = inputs.extra_columns
    groups = {
        name: [key[0][1] for key in sorted(found, key=order) if len(key) == 1 and key[0][0] == name]
        for name in columns
    }
    groups = {name: values for name, values in groups.items() if len(values) > 1}
    if not groups:
        yield Text(["The photos' table has no extra column with groups to compare."])
        return
    yield Text(
        [
            "A model is unfair if the minors of one group pass without ID more often than those of "
            "another, or if its adults are asked more often. Here, adults are people from "
            f"{ADULT_AGE} years on. A customer whose photo is refused is asked. TFMA counted the "
            "test photos. The intervals are Wilson's of 1927, 95 %. The mark (few) means fewer "
            f"than {inputs.min_photos} photos.",
        ]
    )
    for name, values in groups.items():
        yield from _by_column(name, {v: found[((name, v),)] for v in values}, inputs.min_photos)


def _by_column(name: str, groups: Mapping[str, Metrics], min_photos: int) -> Iterator[Block]:
    minors = {value: _Part.passing(metrics, MINORS) for value, metrics in groups.items()}
    adults = {value: _Part.asked(metrics, ADULTS) for value, metrics in groups.items()}
    rows: list[Row] = [
        [
            value, minors[value].people, minors[value].cell(min_photos),
            adults[value].people, adults[value].cell(min_photos),
        ]
        for value in groups
    ]  # fmt: skip
    columns = [
        name, "minors", "minors who pass without ID", "adults", "adults who are asked for ID",
    ]  # fmt: skip
    yield Table(f"Groups by {name}", columns, rows)
    yield Text(
        [
            f"{name}: {_worst_to_best('minors', 'pass', minors, min_photos)}",
            f"{name}: {_worst_to_best('adults', 'are asked', adults, min_photos)}",
        ]
    )


class _Part(NamedTuple):
    """A part of a group of customers."""

    people: int
    share: Figure

    @classmethod
    def passing(cls, metrics: Metrics, name: str) -> _Part:
        """Those who pass without ID."""
        return cls(round(metrics[name].value), metrics[name + PASSED])

    @classmethod
    def asked(cls, metrics: Metrics, name: str) -> _Part:
        """Those who are asked for ID."""
        people, passed = cls.passing(metrics, name)
        return cls(people, Figure(1 - passed.value, 1 - passed.high, 1 - passed.low))

    def cell(self, min_photos: int) -> Cell:
        """The share with its interval."""
        if not self.people:
            return Cell("no photos", math.nan)
        mark = "few" if self.people < min_photos else ""
        return Cell(f"{self.share:.1%}", self.share.value, mark)


def _worst_to_best(people: str, what: str, groups: Mapping[str, _Part], min_photos: int) -> str:
    """How much more often something happens to people of one group than to those of another."""
    shares = {name: part.share for name, part in groups.items() if part.people >= min_photos}
    if len(shares) < 2:
        return f"there are too few photos of {people} to compare the groups."
    best, worst = (choose(shares, key=lambda name: shares[name].value) for choose in (min, max))
    low, high = shares[best], shares[worst]
    if low.value == high.value:
        return f"{people} of all groups {what} equally often."
    often = f"{high.value / low.value:.2f} times as often as" if low.value else "more often than"
    chance = (
        "The intervals do not overlap, so chance alone does not explain it."
        if high.low > low.high
        else "The intervals overlap, so it may be chance."
    )
    return f"{people} of {worst} {what} {often} those of {best}. {chance}"

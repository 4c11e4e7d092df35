"""The section "Fairness": who passes without ID, and who is asked for it, in each group."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components import predictions
from components.evaluator import CANDIDATE
from components.review.evaluation import challenge
from components.review.inputs import Inputs
from components.review.intervals import Figure, share
from components.review.page import Block, Cell, Row, Section, Table, Text
from schemas import features

_ADULT = 25  # years; younger adults look so much like minors that they are asked everywhere
_ASKED = "is asked"  # name of a column; it contains a space, because no column of the CSV does
_MAX_GROUPS = 50  # a column with more values is no group of people


def section(inputs: Inputs) -> Section:
    """A table for each extra column of the photos' table."""
    return Section("fairness", "Fairness", list(_blocks(inputs)))


def _blocks(inputs: Inputs) -> Iterator[Block]:
    columns = json.loads(inputs.property_of("examples", "extra_columns") or "[]")
    photos = pq.read_table(inputs.artifacts["evaluation"].path / predictions.FILE)
    groups = {
        name: sorted(filter(None, photos[name].unique().to_pylist()))
        for name in columns
        if name in photos.column_names
    }
    groups = {name: values for name, values in groups.items() if 1 < len(values) <= _MAX_GROUPS}
    if not groups:
        yield Text(["The photos' table has no extra column with groups to compare."])
        return
    legal_age = inputs.settings["policy"]["legal_age"]
    yield Text(
        [
            "A model is unfair if the minors of one group pass without ID more often than those of "
            "another, or if its adults are asked more often. Here, adults are people from "
            f"{_ADULT} years on. A customer whose photo is refused is asked. The intervals are "
            "Wilson's of 1927, 95 %. The mark (few) means fewer than "
            f"{inputs.min_photos} photos.",
        ]
    )
    asked = _asked(photos, challenge(inputs)["age"])
    photos = photos.append_column(_ASKED, pa.array(asked))
    for name, values in groups.items():
        yield from _by_column(photos, name, values, legal_age, inputs.min_photos)


def _asked(photos: pa.Table, challenge_age: float | None) -> np.ndarray:
    """Whether each customer is asked for ID, bool [N]."""
    refused = pc.not_equal(photos[predictions.objection_column(CANDIDATE)], "").to_numpy()
    if challenge_age is None:
        return np.full(len(refused), True)
    return refused | ~(photos[CANDIDATE].to_numpy() >= challenge_age)


def _by_column(
    photos: pa.Table, name: str, values: list[str], legal_age: int, min_photos: int
) -> Iterator[Block]:
    ages, asked = (photos[column].to_numpy() for column in (features.AGE, _ASKED))
    of = photos[name].to_numpy(zero_copy_only=False)
    found: dict[str, tuple[Figure, int, Figure, int]] = {}
    for value in values:
        minors = (of == value) & (ages < legal_age)
        adults = (of == value) & (ages >= max(_ADULT, legal_age))
        found[value] = (
            share(int((minors & ~asked).sum()), int(minors.sum())), int(minors.sum()),
            share(int((adults & asked).sum()), int(adults.sum())), int(adults.sum()),
        )  # fmt: skip
    rows: list[Row] = [
        [
            value, minors, _cell(passed, minors, min_photos),
            adults, _cell(challenged, adults, min_photos),
        ]
        for value, (passed, minors, challenged, adults) in found.items()
    ]  # fmt: skip
    columns = [
        name, "minors", "minors who pass without ID", "adults", "adults who are asked for ID",
    ]  # fmt: skip
    yield Table(f"Groups by {name}", columns, rows)
    enough = {
        value: challenged
        for value, (_, _, challenged, adults) in found.items()
        if adults >= min_photos
    }
    yield Text([_worst_to_best(name, enough)])


def _cell(figure: Figure, photos: int, min_photos: int) -> Cell:
    if not photos:
        return Cell("no photos", np.nan)
    return Cell(f"{figure:.1%}", figure.value, "few" if photos < min_photos else "")


def _worst_to_best(name: str, asked: dict[str, Figure]) -> str:
    """How much more often adults of one group are asked than those of another."""
    if len(asked) < 2:
        return f"{name}: there are too few photos to compare the groups' adults."
    best, worst = (choose(asked, key=lambda value: asked[value].value) for choose in (min, max))
    low, high = asked[best], asked[worst]
    often = f"{high.value / low.value:.2f} times as often as" if low.value else "more often than"
    chance = (
        "The intervals do not overlap, so chance alone does not explain it."
        if high.low > low.high
        else "The intervals overlap, so it may be chance."
    )
    return f"{name}: adults of {worst} are asked {often} those of {best}. {chance}"

"""Numeric columns of the CSV become bands, because each of their values would be a slice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from components.photo_example_gen.labels import Labels, number
from schemas import features

BANDS = 5  # at most, of a column


def cut(found: Labels) -> Labels:
    """The same labels, with a band ("10.5 to 12.3") for each value of a numeric column.

    A column is numeric if each of its texts is a finite number. Its bands are quantiles: each holds
    about as many rows as another. A column of at most BANDS different texts keeps them, because
    they may be codes. So does the column of our own, SPAN.
    """
    bands = {
        name: _bands(_texts(found, name)) for name in found.extra_columns if name != features.SPAN
    }
    rows = [
        row._replace(
            extra={name: bands.get(name, {}).get(text, text) for name, text in row.extra.items()}
        )
        for row in found.rows
    ]
    return replace(found, rows=rows)


def counts(found: Labels) -> dict[str, int]:
    """The number of different values of each extra column."""
    return {name: len(set(_texts(found, name))) for name in found.extra_columns}


def _texts(found: Labels, column: str) -> list[str]:
    return [row.extra[column] for row in found.rows if column in row.extra]


def _bands(texts: Sequence[str]) -> dict[str, str]:
    """The band of each text; empty if the texts stay as they are."""
    found = {text: number(text) for text in set(texts)}
    values = {text: value for text, value in found.items() if value is not None}
    if len(values) <= BANDS or values != found or not all(map(math.isfinite, values.values())):
        return {}
    numbers = np.array([values[text] for text in texts])
    inner = np.arange(1, BANDS) / BANDS
    ends = np.unique(np.quantile(numbers, inner, method="inverted_cdf"))
    band = np.searchsorted(ends, numbers)  # an end belongs to the band below it
    limits = {at: (numbers[band == at].min(), numbers[band == at].max()) for at in np.unique(band)}
    names = dict(zip(limits, _names(list(limits.values())), strict=True))
    return {text: names[at] for text, at in zip(texts, band, strict=True)}


def _names(limits: Sequence[tuple[float, float]]) -> list[str]:
    """The names of bands, with three digits, or as many as integers and different names need.

    Args:
        limits: the smallest and the largest number of each band.
    """
    digits = max(3, min(15, len(f"{max(map(abs, sum(limits, ()))):.0f}")))
    while True:
        names = [tuple(f"{limit:.{digits}g}" for limit in pair) for pair in limits]
        if len({low for low, _ in names}) == len(names):
            return [low if low == high else f"{low} to {high}" for low, high in names]
        digits += 1

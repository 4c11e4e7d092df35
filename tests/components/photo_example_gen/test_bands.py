"""Numeric columns become at most five bands; other columns stay as they are."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.photo_example_gen import bands
from components.photo_example_gen.labels import Labels, Row, Table
from schemas import features

TABLE = Table("labels.csv", "final_files", None, 0)


def cut(texts: list[str], column: str = "apparent_age") -> list[str]:
    """The values of a column after the cut, "" for an empty cell."""
    rows = [
        Row(TABLE, line, "a.jpg", "final_files/a.jpg", 30.0, {column: text} if text else {})
        for line, text in enumerate(texts, start=2)
    ]
    found = bands.cut(Labels(rows, [], [column], 0, None))
    return [row.extra.get(column, "") for row in found.rows]


def test_a_fifth_of_the_rows_is_in_each_band() -> None:
    ages = np.random.default_rng(0).uniform(4, 90, 5000)
    found = cut([str(age) for age in ages])
    counts = Counter(found)
    assert set(counts.values()) == {1000} and len(counts) == 5
    for age, band in zip(ages, found, strict=True):
        low, high = band.split(" to ")
        assert float(low) - 0.05 <= age <= float(high) + 0.05
        assert len(low) <= 4 and len(high) <= 4  # readable: "21.3 to 38.5"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (range(1990, 2000), ["1990 to 1991", "1992 to 1993", "1994 to 1995", "1996 to 1997",
                             "1998 to 1999"]),
        ([0] * 90 + [*range(1, 11)], ["0", "1 to 10"]),  # most rows have one value
        (["0,5", "1,5", "2,5", "3,5", "4,5", "5,5"], ["0.5 to 1.5", "2.5", "3.5", "4.5", "5.5"]),
        (range(1_500_000_000, 1_500_000_006),
         ["1500000000 to 1500000001", *(str(1_500_000_000 + at) for at in range(2, 6))]),
        ([-3, -2, -1, 0, 1, 2], ["-3 to -2", "-1", "0", "1", "2"]),
    ],
)  # fmt: skip
def test_the_names_of_the_bands(values: list[object], expected: list[str]) -> None:
    assert list(dict.fromkeys(cut([str(value) for value in values]))) == expected


@pytest.mark.parametrize(
    "texts",
    [
        ["0", "1", "2", "3", "4"] * 9,  # codes, not numbers
        ["1", "2", "3", "4", "5", "six"],
        ["1", "2", "3", "4", "5", "nan"],
        ["1", "2", "3", "4", "5", "1e999"],
        ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05", "2024-01-06"],
        [],
    ],
)
def test_other_columns_stay_as_they_are(texts: list[str]) -> None:
    assert cut(texts) == texts


def test_empty_cells_stay_empty() -> None:
    assert cut(["", *map(str, range(10)), ""])[::11] == ["", ""]


def test_spans_stay_as_they_are() -> None:
    spans = [str(number) for number in range(1, 20)]
    assert cut(spans, features.SPAN) == spans


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=6, unique=True))
def test_any_numbers_make_few_ordered_bands(numbers: list[float]) -> None:
    found = cut([repr(number) for number in sorted(numbers)])
    names = list(dict.fromkeys(found))
    assert 1 < len(names) <= bands.BANDS
    assert sorted(found, key=names.index) == found  # no band is interrupted by another
    assert all(len(name) < 60 for name in names)


@given(st.lists(st.text(max_size=5), max_size=9))
def test_any_texts(texts: list[str]) -> None:
    found = cut(texts)
    assert len(found) == len(texts) and len(set(found)) <= max(len(set(texts)), bands.BANDS)

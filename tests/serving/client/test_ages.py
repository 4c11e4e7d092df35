"""The client's own copies of names and age groups are those of the schemas."""

from __future__ import annotations

from itertools import pairwise

import pytest
from goodseed_client import ages, batch, wire
from goodseed_client.advice import OBJECTIONS
from hypothesis import given
from hypothesis import strategies as st

features = pytest.importorskip("schemas.features")


def test_the_names_are_those_of_the_schemas() -> None:
    assert ages.MAX_AGE == features.MAX_AGE
    assert ages.AGE_GROUPS.names == features.AGE_BANDS
    assert (wire.IMAGE, wire.AGE, wire.VALID) == (features.IMAGE, features.AGE, features.VALID)
    assert (wire.OBJECTION, wire.CHALLENGE) == (features.OBJECTION, features.CHALLENGE)
    assert {*OBJECTIONS, features.NO_PHOTO} == {*features.OBJECTIONS}
    assert batch.FILE_NAME == features.FILE_NAME


@given(st.floats(0, ages.MAX_AGE))
def test_the_groups_are_the_bands_of_the_schemas(age: float) -> None:
    assert ages.AGE_GROUPS.of(age) == features.age_band(age)


@given(st.integers(0, 40), st.lists(st.integers(1, 40), min_size=1, max_size=6), st.booleans())
def test_any_groups_are_parsed(first: int, sizes: list[int], open_end: bool) -> None:
    edges = [first]
    for size in sizes:
        edges.append(edges[-1] + size)
    parts = [f"{start}-{end - 1}" for start, end in pairwise(edges)]
    if open_end:
        parts[-1] = f"{edges[-2]}+"
    groups = ages.AgeGroups.parse(", ".join(parts))
    assert groups.names == tuple(part.replace("-", "–") for part in parts)
    for age in range(130):
        inside = [at for at, (low, high) in enumerate(pairwise(edges)) if low <= age < high]
        if open_end and age >= edges[-2]:
            inside = [len(parts) - 1]
        expected = groups.names[inside[0]] if inside else None
        assert groups.of(age) == groups.of(age + 0.99) == expected


@given(st.text(max_size=30))
def test_other_text_is_the_users_mistake(text: str) -> None:
    try:
        assert ages.AgeGroups.parse(text).names
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no age group"),
        ("0-17,,18+", "is no age group"),
        ("0-17,19-24", "should be a group from 18"),
        ("0-17,17-24", "should be a group from 18"),
        ("18+,25-34", "should be nothing"),
        ("24-18", "ends before it starts"),
        ("٣-٤", "is no age group"),
    ],
)
def test_wrong_groups(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ages.AgeGroups.parse(text)

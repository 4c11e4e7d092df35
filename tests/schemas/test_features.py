"""The age bands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import features


@pytest.mark.parametrize(
    ("age", "band"),
    [
        (0, "0–12"),
        (12.99, "0–12"),
        (13, "13–17"),
        (17.5, "13–17"),
        (18, "18–20"),
        (20, "18–20"),
        (21, "21–24"),
        (25, "25–34"),
        (64.9, "55–64"),
        (65, "65+"),
        (120, "65+"),
    ],
)
def test_age_bands(age: float, band: str) -> None:
    assert features.age_band(age) == band


@given(st.floats(0, features.MAX_AGE))
def test_every_age_is_in_its_band(age: float) -> None:
    first, _, last = features.age_band(age).replace("+", "–120").partition("–")
    assert int(first) <= age < int(last) + 1

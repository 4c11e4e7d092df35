"""Figures with their 95 % intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from components.intervals import interval, share


@given(st.lists(st.floats(-120, 120), min_size=2, max_size=30))
def test_the_interval_is_a_jackknife(errors: list[float]) -> None:
    """The jackknife leaves out one photo at a time, as Efron & Tibshirani define it."""
    values = np.array(errors)
    left_out = (values.sum() - values) / (len(values) - 1)
    spread = ((left_out - left_out.mean()) ** 2).sum()
    half = student.ppf(0.975, len(values) - 1) * np.sqrt((len(values) - 1) / len(values) * spread)
    found = interval(float(values.mean()), float((values**2).mean()), len(values))
    assert found.high - found.value == pytest.approx(half, abs=1e-3, rel=1e-6)
    assert found.value - found.low == pytest.approx(half, abs=1e-3, rel=1e-6)


@pytest.mark.parametrize("count", [0, 1, math.nan])
def test_one_photo_has_no_interval(count: float) -> None:
    found = interval(5.0, 25.0, count)
    assert found.value == 5.0 and math.isnan(found.low)
    assert f"{found:.1f}" == "5.0 (no interval)"


def test_the_share_of_no_photos_is_unknown() -> None:
    assert math.isnan(share(0, 0).value)

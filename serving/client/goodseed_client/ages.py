"""The ages that count, and the groups that tables put them in."""

from __future__ import annotations

import bisect
from itertools import pairwise

MAX_AGE = 120.0  # years; an older age is an error

# The first age of each group, in years. 18 and 21 are legal ages for alcohol.
_STARTS = (0, 13, 18, 21, 25, 35, 45, 55, 65)
AGE_GROUPS = (*(f"{start}–{end - 1}" for start, end in pairwise(_STARTS)), f"{_STARTS[-1]}+")


def age_group(age: float) -> str:
    """The group of an age in years, 0 or more: "18–20"."""
    return AGE_GROUPS[bisect.bisect_right(_STARTS, age) - 1]

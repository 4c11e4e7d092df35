"""The ages that count, and the groups that tables put them in."""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence

MAX_AGE = 120.0  # years; an older age is an error

_GROUP = re.compile(r"(\d{1,3})(?:-(\d{1,3})|\+)", re.ASCII)


class AgeGroups:
    """Age groups, one after the other, without a gap.

    Args:
        starts: the first age of each group, in whole years, ascending.
        end: the last age of the last group, in whole years; None: it has no end.

    Attributes:
        names: of the groups: "18–20", "65+".
    """

    def __init__(self, starts: Sequence[int], end: int | None = None):
        self._starts = list(starts)
        self._end = end
        ends = [*(start - 1 for start in self._starts[1:]), end]
        self.names = tuple(
            f"{start}+" if last is None else f"{start}–{last}"
            for start, last in zip(self._starts, ends, strict=True)
        )

    @classmethod
    def parse(cls, text: str) -> AgeGroups:
        """Groups from text such as "0-17,18-24,25-34,35+".

        Raises:
            ValueError: the text has another form, or the groups leave a gap, overlap or descend.
        """
        starts: list[int] = []
        end: int | None = -1
        for part in text.split(","):
            found = _GROUP.fullmatch(part.strip())
            if not found:
                raise ValueError(f"'{part}' is no age group: write 18-24, or 35+ for the last one")
            start = int(found[1])
            if starts and (end is None or start != end + 1):
                expected = "nothing" if end is None else f"a group from {end + 1}"
                raise ValueError(f"'{part.strip()}' should be {expected}: groups leave no gap")
            end = int(found[2]) if found[2] else None
            if end is not None and end < start:
                raise ValueError(f"'{part.strip()}' ends before it starts")
            starts.append(start)
        return cls(starts, end)

    def of(self, age: float) -> str | None:
        """The name of the group of an age in years; None if it is in no group."""
        at = bisect.bisect_right(self._starts, age) - 1
        inside = at >= 0 and (self._end is None or age < self._end + 1)
        return self.names[at] if inside else None


# 18 and 21 are legal ages for alcohol.
AGE_GROUPS = AgeGroups((0, 13, 18, 21, 25, 35, 45, 55, 65))

"""Why a row of the CSV gives no example, and the bound on such rows."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from components.errors import UserError


class Reason(StrEnum):
    """Why a row gives no example."""

    CELLS = "wrong number of cells"
    NO_FILE_NAME = "file name missing"
    AMBIGUOUS = "ambiguous file name"
    OUTSIDE = "path outside the folder"
    AGE_MISSING = "age missing"
    AGE_NOT_A_NUMBER = "age not a number"
    AGE_OUT_OF_RANGE = "age below 0 or above 120"
    MISSING = "missing file"
    UNREADABLE = "unreadable picture"
    TOO_MANY_PIXELS = "too many pixels"
    DUPLICATE_ROW = "duplicate row"
    CONFLICT = "age conflict"
    DUPLICATE_PICTURE = "duplicate picture"
    EXCLUDED = "excluded"


# Not a fault of the row: another row has the same picture and stays, or the user left the row out.
INFORMATIONAL = frozenset({Reason.DUPLICATE_PICTURE, Reason.EXCLUDED})


class Rejected(Exception):
    """A row is rejected: `reason` is counted, `detail` helps a person who looks at the row."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = " ".join(detail.split())


class Reject(NamedTuple):
    """A line of rejects.csv."""

    csv: str  # the CSV's path inside the photos folder
    row: int  # the line where the row starts; the first line is 1
    file_name: str  # as in the CSV
    reason: Reason
    detail: str


def write(rejects: Iterable[Reject], path: Path) -> None:
    """Writes the rejects to a CSV with a header."""
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Reject._fields)
        writer.writerows(rejects)


def check_share(rejects: Sequence[Reject], rows: int, bound: float) -> None:
    """Checks that at most the share `bound` of `rows` is rejected.

    Raises:
        UserError: it names the share, the bound, and each reason with its count and first row.
    """
    faults = [reject for reject in rejects if reject.reason not in INFORMATIONAL]
    if len(faults) <= bound * rows:
        return
    first = {reject.reason: reject for reject in reversed(faults)}
    reasons = "; ".join(
        f"{count} {reason} (first: {first[reason].csv} row {first[reason].row},"
        f" {first[reason].file_name[:80]!r})"
        for reason, count in Counter(fault.reason for fault in faults).most_common(4)
    )
    raise UserError(
        f"{len(faults)} of {rows} rows ({len(faults) / rows:.1%}) are rejected, more than"
        f" max_rejected allows ({bound:.1%}): {reasons}; correct them, or raise max_rejected"
        " to go on, and read all of them in rejects.csv"
    )

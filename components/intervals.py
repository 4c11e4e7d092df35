"""Figures with their 95 % intervals: of a mean, and of a share."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import binomtest
from scipy.stats import t as student


@dataclass(frozen=True)
class Figure:
    """A metric with its 95 % interval. NaN stands for what is not known."""

    value: float
    low: float
    high: float

    def __format__(self, form: str) -> str:
        """Writes `6.45 (6.10 to 6.80)`."""
        if math.isnan(self.value):
            return "not recorded"
        value = format(self.value, form)
        if math.isnan(self.low) or math.isnan(self.high):
            return f"{value} (no interval)"
        return f"{value} ({self.low:{form}} to {self.high:{form}})"

    def short(self, form: str = ".2f") -> str:
        """The same without the remark "(no interval)"."""
        return format(self, form).removesuffix(" (no interval)")


UNKNOWN = Figure(math.nan, math.nan, math.nan)


def interval(mean: float, mean_square: float, count: float) -> Figure:
    """A mean with its 95 % jackknife interval.

    The jackknife leaves out one photo at a time. For a mean, its standard error is exactly s / √n
    (Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 11.2), where
    s² = n / (n - 1) (mean square - mean²). Half the interval is this error times Student's t with
    n - 1 degrees of freedom.

    Args:
        mean: of the errors or of the absolute errors, in years.
        mean_square: of the same errors, in years².
        count: number of photos, n.
    """
    if not count > 1:
        return Figure(mean, math.nan, math.nan)
    error = math.sqrt(max(mean_square - mean**2, 0) / (count - 1))
    half = float(student.ppf(0.975, count - 1)) * error
    return Figure(mean, mean - half, mean + half)


def share(count: int, photos: int) -> Figure:
    """A share with Wilson's 95 % interval (1927, J. Am. Stat. Assoc. 22, 209-212).

    Args:
        count: number of photos that are counted.
        photos: number of all photos; without any, the share is unknown.
    """
    if not photos:
        return UNKNOWN
    bounds = binomtest(count, photos).proportion_ci(0.95, "wilson")
    return Figure(count / photos, bounds.low, bounds.high)


def percent(count: int, photos: int) -> str:
    """A share with its interval as text: "1.5% (0.4% to 5.3%)"."""
    return f"{share(count, photos):.1%}" if photos else "no photos"

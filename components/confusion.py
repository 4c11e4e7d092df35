"""How a model confuses age groups, and what its counts of customers say about their real ages.

A model that is off by some years puts many customers into a neighbouring group. Its estimates of
the eval photos show how often. With them, the shares that were counted can be corrected.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from components.intervals import Figure

FILE = "confusion.csv"  # an asset of the SavedModel
COLUMNS = ("age", "estimate", "photos")  # real age and estimate in whole years, rounded down

_ROUNDS = 500  # of the EM algorithm
_RESAMPLES = 1000
_LEAST = 1e-12  # instead of 0 as a divisor

# Real age and estimate in whole years → number of eval photos.
Confusion = dict[tuple[int, int], int]


def count(ages: np.ndarray, estimates: np.ndarray) -> Confusion:
    """Counts photos by real age and estimate, both in years [N]."""
    pairs = zip(np.floor(ages).astype(int), np.floor(estimates).astype(int), strict=True)
    return dict(Counter((int(age), int(estimate)) for age, estimate in sorted(pairs)))


def write(confusion: Confusion, file: Path) -> None:
    """Writes a CSV with COLUMNS."""
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((*pair, photos) for pair, photos in confusion.items())


def read(file: Path) -> Confusion:
    """What `write` wrote."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = [[int(row[name]) for name in COLUMNS] for row in csv.DictReader(lines)]
    return {(age, estimate): photos for age, estimate, photos in rows}


def corrected(
    confusion: Confusion,
    groups: Sequence[str],
    group_of: Callable[[float], str | None],
    counts: Sequence[int],
    others: int,
) -> list[Figure]:
    """The shares of the real age groups that explain the counts best.

    They are the maximum-likelihood mixture, found by expectation maximisation (Saerens et al. 2002,
    Neural Computation 14, 21-41). The percentile intervals come from a bootstrap of both the counts
    and the eval photos (Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13).

    Within a group, the customers' ages are taken to be spread like those of the eval photos.

    Args:
        confusion: of the model.
        groups: names of the age groups.
        group_of: the name of the group of an age; None: it is in none.
        counts: customers whose estimate is in each group.
        others: customers whose estimate is in no group.

    Raises:
        ValueError: the eval photos show no person of a group.
    """
    places: list[str | None] = [*groups, None]
    seen = np.zeros((len(places), len(places)))  # by estimated group and real group
    for (age, estimate), photos in confusion.items():
        seen[places.index(group_of(estimate)), places.index(group_of(age))] += photos
    for place, photos in zip(groups, seen.sum(axis=0), strict=False):
        if not photos:
            raise ValueError(f"the model was measured on no photo of the age group {place}")
    if not seen[:, -1].sum():  # nobody is outside the groups
        seen = seen[:, :-1]
    counted = np.array([*counts, others], float)
    random = np.random.default_rng(0)
    found = _mixture(_shares(seen, 0)[None], counted[None])[0]
    resampled = _mixture(
        np.stack([_shares(_resample(random, seen.T).T, 0) for _ in range(_RESAMPLES)]),
        _resample(random, np.tile(counted, (_RESAMPLES, 1))),
    )
    inside = slice(0, len(groups))
    values = _shares(found[inside], 0)
    low, high = np.quantile(_shares(resampled[:, inside], 1), (0.025, 0.975), axis=0)
    return [Figure(*map(float, each)) for each in zip(values, low, high, strict=True)]


def _resample(random: np.random.Generator, counts: np.ndarray) -> np.ndarray:
    """Counts [R, G] of as many draws as each row has, with the row's shares."""
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, _LEAST)[:, None]
    shares[totals == 0, 0] = 1
    return random.multinomial(totals.astype(int), shares).astype(float)


def _shares(counts: np.ndarray, axis: int) -> np.ndarray:
    """Counts over their sum along an axis."""
    return counts / np.maximum(counts.sum(axis=axis, keepdims=True), _LEAST)


def _mixture(confusion: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The most likely shares, [R, real].

    Args:
        confusion: chance of each estimated group in each real one [R or 1, estimated, real].
        counts: customers in each estimated group [R, estimated].
    """
    shares = np.full((len(counts), confusion.shape[2]), 1 / confusion.shape[2])
    observed = _shares(counts, 1)
    for _ in range(_ROUNDS):
        expected = np.einsum("rij,rj->ri", confusion, shares)
        ratio = observed / np.maximum(expected, _LEAST)
        shares = _shares(shares * np.einsum("rij,ri->rj", confusion, ratio), 1)
    return shares

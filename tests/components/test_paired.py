"""The comparison with the live model, photo by photo."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.gate import regressions
from components.paired import compare, difference
from components.predictions import column, objection_column
from schemas import features

PHOTOS = 600
RANDOM = np.random.default_rng(0)
AGES = RANDOM.uniform(8, 60, PHOTOS).astype(np.float32)
ESTIMATES = (AGES + RANDOM.normal(0, 6, PHOTOS)).astype(np.float32)
MINORS = int((AGES < 18).sum())


def photos(
    candidate: np.ndarray,
    live: np.ndarray,
    ages: tuple[float, float | None] = (30.0, 30.0),
    objected: int = 0,
) -> pa.Table:
    """The predictions of two models; `ages` are their challenge ages, None: it has no such output.

    The candidate objects to the first photos, so many as `objected`.
    """
    table: dict[str, Any] = {features.AGE: AGES}
    refused = np.arange(PHOTOS) < objected
    for name, estimates, at, no in (
        ("candidate", candidate, ages[0], refused),
        ("baseline", live, ages[1], np.full(PHOTOS, False)),
    ):
        table[name] = estimates
        table[objection_column(name)] = np.where(no, features.NO_FACE, "")
        asked = pa.nulls(PHOTOS, pa.bool_()) if at is None else (estimates < at) | no
        table[column(name, features.CHALLENGE)] = asked
    return pa.table(table)


def found(table: pa.Table) -> dict[str, Any]:
    return compare(table, "candidate", "baseline", legal_age=18)


def test_the_same_model_is_not_worse() -> None:
    again = ESTIMATES + np.float32(0.004)  # in batches of other sizes
    same = found(photos(again, ESTIMATES))
    assert same["mae"] == {"photos": PHOTOS, "difference": 0.0, "lower": 0.0}
    assert same["minors"] == {"photos": MINORS, "difference": 0.0, "lower": 0.0}
    assert regressions(same) == []


def test_a_better_mae_does_not_make_up_for_minors_who_pass() -> None:
    minor = AGES < 18
    better = np.where(minor, ESTIMATES, AGES + (ESTIMATES - AGES) / 2)
    better[np.flatnonzero(minor)[:12]] = 31.0
    worse = found(photos(better, ESTIMATES))
    assert worse["mae"]["difference"] < -1
    assert worse["minors"]["difference"] >= 11 / MINORS
    (reason,) = regressions(worse)
    assert reason.startswith("of 100 minors,") and f"on the same {MINORS:,} photos" in reason


def test_each_model_has_its_own_rule() -> None:
    """A stricter candidate passes no more minors, though it estimates them higher."""
    assert regressions(found(photos(ESTIMATES + 8, ESTIMATES, (38.0, 30.0))))[0].startswith("MAE")
    laxer = found(photos(ESTIMATES, ESTIMATES, (20.0, 30.0)))
    assert laxer["mae"]["difference"] == 0 and laxer["minors"]["lower"] > 0


def test_a_worse_mae_is_a_reason() -> None:
    worse = found(photos(AGES + (ESTIMATES - AGES) * 1.2, ESTIMATES))
    (reason,) = regressions(worse)
    assert reason.startswith(f"MAE is {worse['mae']['difference']:.2f} years worse")


def test_photos_that_a_model_refuses_are_not_compared() -> None:
    table = photos(np.where(np.arange(PHOTOS) < 100, 110, ESTIMATES), ESTIMATES, objected=100)
    without = found(table)
    assert without["mae"] == {"photos": PHOTOS - 100, "difference": 0.0, "lower": 0.0}
    assert without["minors"]["photos"] == MINORS  # who is refused, does not pass
    assert without["minors"]["difference"] <= 0


def test_a_live_model_without_these_outputs_is_compared_in_mae_alone() -> None:
    old = found(photos(ESTIMATES, ESTIMATES, (30.0, None)))
    assert old["minors"] is None and old["mae"]["photos"] == PHOTOS
    assert regressions(old) == []


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_photos_to_say(count: int) -> None:
    few = difference(np.full(count, 5.0))
    assert few == {"photos": count, "difference": None, "lower": None}
    assert regressions({"mae": few, "minors": few}) == []


def test_an_equal_model_is_rarely_called_worse() -> None:
    """The bound is one-sided at 95 %: chance shuts the gate in about one of twenty cases."""
    random = np.random.default_rng(1)
    shut = [difference(random.normal(0, 5, 200))["lower"] > 0 for _ in range(300)]
    # 5 % and four standard errors.
    assert np.mean(shut) <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / 300)

"""Whether the candidate is worse than the live model, on the same photos."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import bootstrap

from components.certificate import CONFIDENCE
from components.predictions import column, objection_column
from schemas import features

_RESAMPLES = 2000
_BATCH = 100  # resamples in memory at once
# One model may give ages for the same photo that differ by this much, in batches of other sizes.
_ROUNDING = 0.01  # years


def compare(photos: pa.Table, candidate: str, live: str, legal_age: int) -> dict[str, Any]:
    """Compares two models by MAE, and by the minors that pass without ID.

    Args:
        photos: the rows of `predictions.FILE`.
        candidate: the column with the candidate's ages.
        live: the column with those of the live model.
        legal_age: years.

    Returns:
        `mae` in years, of the photos that both models answer, and `minors` as a share of the minors
        on all photos, each by the rule of its own model. Each with `photos`, and with the
        `difference` and its `lower` bound, as `difference` gives them. `minors` is None if a model
        does not say who passes.
    """
    both = np.logical_and(
        *(photos[objection_column(model)].to_numpy() == "" for model in (candidate, live))
    )
    ages = photos[features.AGE].to_numpy()
    errors = [
        np.abs(photos[model].to_numpy() - ages)[both].astype(float) for model in (candidate, live)
    ]
    challenged = [photos[column(model, features.CHALLENGE)] for model in (candidate, live)]
    known = not any(one.null_count for one in challenged)
    passed = [~one.to_numpy()[ages < legal_age] for one in challenged] if known else []
    changes = np.round((errors[0] - errors[1]) / _ROUNDING) * _ROUNDING
    return {
        "mae": difference(changes),
        "minors": difference(passed[0].astype(float) - passed[1]) if known else None,
    }


def difference(changes: np.ndarray) -> dict[str, Any]:
    """The mean of the differences on each photo, and how sure it is that it is above 0.

    Args:
        changes: candidate minus live model [N].

    Returns:
        `photos`, the number of differences; `difference`, their mean; and `lower`, the lower end of
        its one-sided 95 % interval, by the paired bootstrap with percentiles (Efron & Tibshirani
        1993, An Introduction to the Bootstrap, chapter 13). The last two are None if there are
        fewer than two photos: that is too few to say.
    """
    if len(changes) < 2:
        return {"photos": len(changes), "difference": None, "lower": None}
    found = bootstrap(
        (changes,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=_BATCH,
        confidence_level=CONFIDENCE,
        alternative="greater",
        method="percentile",
        rng=np.random.default_rng(0),  # the same evaluation has the same verdict
    )
    return {
        "photos": len(changes),
        "difference": float(changes.mean()),
        "lower": float(found.confidence_interval.low),
    }

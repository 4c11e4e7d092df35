"""How sure a model is of an age: an interval, and the probability that a person is a minor.

Both are fitted to the errors on the eval split, which the network did not learn from.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy.optimize import minimize
from scipy.special import expit

from schemas import features

COVERAGE = 0.9  # of the interval


class Calibration(NamedTuple):
    """What a model's age means.

    Attributes:
        half_width: half the width of the interval where the spread is 1, years.
        slope: of the logit of the probability of being a minor, per unit of the score.
        intercept: of the same logit.
    """

    half_width: float
    slope: float
    intercept: float

    def outputs(
        self, ages: tf.Tensor, spreads: tf.Tensor, scores: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """AGE_LOW, AGE_HIGH (years) and P_MINOR (0 to 1), [N].

        Args:
            ages: the model's ages, years [N].
            spreads: how far off they may be, compared with each other, [N].
            scores: the higher, the more likely it is a minor, [N].
        """
        half = self.half_width * spreads
        return {
            features.AGE_LOW: tf.maximum(ages - half, 0.0),
            features.AGE_HIGH: tf.minimum(ages + half, features.MAX_AGE),
            features.P_MINOR: tf.sigmoid(self.slope * scores + self.intercept),
        }


def fit(
    ages: np.ndarray,
    estimates: np.ndarray,
    spreads: np.ndarray,
    scores: np.ndarray,
    legal_age: int,
) -> Calibration:
    """The calibration of a model.

    Args:
        ages: real ages, years [N].
        estimates: the model's ages of the same photos, years [N].
        spreads: how far off they may be, compared with each other, [N].
        scores: the higher, the more likely it is a minor, [N].
        legal_age: years.
    """
    slope, intercept = _platt(scores, ages < legal_age)
    return Calibration(_half_width(np.abs(estimates - ages) / spreads), slope, intercept)


def _half_width(errors: np.ndarray) -> float:
    """Half the width of a split conformal interval (Lei et al. 2018, arXiv:1604.04173).

    The interval of a new photo contains the real age with a probability of at least COVERAGE, if
    the photo comes from where these come from. Where the errors are divided by spreads, it is wide
    for photos with a large spread (section 5.2).

    Args:
        errors: absolute errors, years [N], each divided by its spread.
    """
    errors = np.sort(errors)
    rank = math.ceil((len(errors) + 1) * COVERAGE)
    return float(errors[rank - 1]) if rank <= len(errors) else features.MAX_AGE


def _platt(scores: np.ndarray, minors: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the logit of being a minor, by Platt scaling.

    The targets are those of Platt 1999 (Probabilistic outputs for support vector machines), which
    keep the probability from 0 and 1 where there are few photos.
    """
    many, few = int(minors.sum()), int((~minors).sum())
    targets = np.where(minors, (many + 1) / (many + 2), 1 / (few + 2))
    middle, spread = float(np.mean(scores)), float(np.std(scores)) or 1.0
    standard = (scores - middle) / spread

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        logits = parameters[0] * standard + parameters[1]
        off = expit(logits) - targets
        value = np.sum(np.logaddexp(0, logits) - targets * logits)
        return float(value), np.array([np.sum(off * standard), np.sum(off)])

    slope, intercept = minimize(loss, np.zeros(2), jac=True, method="BFGS").x
    return float(slope / spread), float(intercept - slope * middle / spread)

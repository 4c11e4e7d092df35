"""The guard: says which pictures are unlike those that the network was trained on.

It is the Mahalanobis distance of a picture's pooled features from those of the training photos (Lee
et al. 2018, arXiv:1807.03888). A network gives an age for anything; far from what it was trained
on, that age means nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

# Added to the variance in each direction, as a share of the mean variance. Without it, a direction
# in which the training photos hardly differ would decide alone.
_RIDGE = 0.1
# Of a distance, relative. A photo's distance differs a little between batches.
_ROUNDING = 1e-5


class Guard(NamedTuple):
    """What is known of the training photos' features."""

    mean: np.ndarray  # float32 [F]
    whitening: np.ndarray  # float32 [F, F]: the training photos' features times it have variance 1
    limit: float  # the largest distance without objection

    def distances(self, features: tf.Tensor) -> tf.Tensor:
        """How far features [N, F] are from the training photos', float32 [N]."""
        return tf.norm((features - self.mean) @ self.whitening, axis=1)


def fit(train: np.ndarray, evaluation: np.ndarray, max_refused: float) -> Guard:
    """The guard for a network.

    Args:
        train: the network's pooled features of the train photos [N, F].
        evaluation: those of the eval photos [M, F]; they set the limit.
        max_refused: share of the eval photos that is beyond the limit, 0 to 1.
    """
    centred = train.astype(np.float64) - train.mean(0)
    covariance = centred.T @ centred / len(train)
    variances, directions = np.linalg.eigh(covariance)
    ridge = _RIDGE * variances.mean() or 1.0  # all training photos may be the same
    whitening = directions / np.sqrt(np.maximum(variances, 0) + ridge)
    guard = Guard(train.mean(0), whitening.astype(np.float32), 0.0)
    distances = guard.distances(tf.constant(evaluation)).numpy()
    limit = np.quantile(distances, 1 - max_refused, method="higher")
    return guard._replace(limit=float(limit) * (1 + _ROUNDING))

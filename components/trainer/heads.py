"""The last layer of the network, what the training minimises, and the age that it means.

`trainer.head` names one of HEADS. Both lead to an age and to its spread.
"""

from __future__ import annotations

from typing import Protocol

import keras
import numpy as np

from schemas import features

LAYER = "head"  # the name of the last layer

# The ages of the distribution, years.
_AGES = np.arange(features.MAX_AGE + 1, dtype=np.float32)
_SIGMA = 2.0  # years, of the normal distribution around the real age
_ERROR_WEIGHT = 0.5  # of the expectation's error, beside the cross-entropy
_LEAST_SHARE = 1e-4  # of an age that no photo has; its logarithm must be finite
_LEAST_SPREAD = 1.0  # years
_LEAST_PROBABILITY = 1e-6  # so that its logit is finite in float32


class Head(Protocol):
    """What a head gives. `outputs` are those of its layer; `years` are real ages, [N] or [N, 1]."""

    def layer(self, ages: np.ndarray) -> keras.layers.Layer:
        """The last layer. It starts with what is known without a photo: `ages`, years [N]."""

    def loss(self, years: keras.KerasTensor, outputs: keras.KerasTensor) -> keras.KerasTensor:
        """What the training minimises, [N]."""

    def age(self, outputs: keras.KerasTensor) -> keras.KerasTensor:
        """The age, years [N, 1]."""

    def spread(self, outputs: keras.KerasTensor) -> keras.KerasTensor:
        """How far off the age may be compared with other photos, [N, 1], above 0."""

    def score(self, outputs: keras.KerasTensor, legal_age: int) -> keras.KerasTensor:
        """The higher, the more likely it is somebody below the legal age, [N, 1]."""


class Regression:
    """One ReLU output, in years, and the squared error. All photos have the same spread."""

    def layer(self, ages: np.ndarray) -> keras.layers.Layer:
        """The output starts at the mean age."""
        return keras.layers.Dense(
            1,
            activation="relu",
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            bias_initializer=keras.initializers.Constant(float(np.mean(ages))),
            name=LAYER,
        )

    def loss(self, years: keras.KerasTensor, outputs: keras.KerasTensor) -> keras.KerasTensor:
        """The squared error, years²."""
        return keras.ops.square(keras.ops.reshape(years, (-1,)) - outputs[:, 0])

    def age(self, outputs: keras.KerasTensor) -> keras.KerasTensor:
        """The output itself."""
        return outputs

    def spread(self, outputs: keras.KerasTensor) -> keras.KerasTensor:
        """1."""
        return keras.ops.ones_like(outputs)

    def score(self, outputs: keras.KerasTensor, legal_age: int) -> keras.KerasTensor:
        """How many years the age is below the legal age."""
        return legal_age - outputs


class Distribution:
    """A probability for each age in whole years (softmax); the age is its expectation.

    The training compares it with a normal distribution around the real age, and the expectation
    with the real age (Gao et al. 2018, Age estimation using expectation of label distribution
    learning, IJCAI; sections 3.2 and 3.3).
    """

    def layer(self, ages: np.ndarray) -> keras.layers.Layer:
        """The probabilities start at the shares of the ages among the photos."""
        shares = keras.ops.convert_to_numpy(_around(np.float32(ages))).mean(axis=0)
        return keras.layers.Dense(
            len(_AGES),
            activation="softmax",
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            bias_initializer=lambda shape, dtype: keras.ops.cast(
                np.log(shares + _LEAST_SHARE), dtype
            ),
            name=LAYER,
        )

    def loss(self, years: keras.KerasTensor, outputs: keras.KerasTensor) -> keras.KerasTensor:
        """The cross-entropy, and a part of the absolute error of the expectation in years."""
        years = keras.ops.reshape(years, (-1,))
        entropy = keras.losses.categorical_crossentropy(_around(years), outputs)
        return entropy + _ERROR_WEIGHT * keras.ops.abs(self.age(outputs)[:, 0] - years)

    def age(self, outputs: keras.KerasTensor) -> keras.KerasTensor:
        """The expectation; it is never negative."""
        return keras.ops.matmul(outputs, _AGES[:, None])

    def spread(self, outputs: keras.KerasTensor) -> keras.KerasTensor:
        """The standard deviation, years."""
        square = keras.ops.matmul(outputs, np.square(_AGES)[:, None])
        variance = square - keras.ops.square(self.age(outputs))
        return keras.ops.sqrt(keras.ops.maximum(variance, _LEAST_SPREAD**2))

    def score(self, outputs: keras.KerasTensor, legal_age: int) -> keras.KerasTensor:
        """The logit of the probability of all ages below the legal age.

        Two people of one expected age may be minors with different probabilities.
        """
        below = keras.ops.sum(outputs[:, :legal_age], axis=1, keepdims=True)
        below = keras.ops.clip(below, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
        return keras.ops.log(below) - keras.ops.log(1 - below)


HEADS: dict[str, Head] = {"distribution": Distribution(), "regression": Regression()}


def _around(years: keras.KerasTensor) -> keras.KerasTensor:
    """The normal distributions around ages [N], in years: probabilities [N, ages]."""
    distance = (_AGES - keras.ops.expand_dims(years, -1)) / _SIGMA
    return keras.ops.softmax(-keras.ops.square(distance) / 2)

"""Who passes without ID, in TFMA: `Passed` is the share of an age group that a model lets pass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma

from components.certificate import hard_minors, within
from schemas import features

# The metrics that count the people of each group. With the suffix: the share of them that passes.
MINORS, HARD_MINORS, ADULTS = COUNTS = ("minors", "hard_minors", "adults")
PASSED = "_passed"
# Younger adults look so much like minors that they are asked everywhere.
ADULT_AGE = 25  # years


def groups(legal_age: int) -> list[tuple[str, int, int | None]]:
    """Name, youngest and oldest age of each group, whole years; the last one has no end."""
    return [
        (MINORS, 0, legal_age - 1),
        (HARD_MINORS, *hard_minors(legal_age)),
        (ADULTS, max(ADULT_AGE, legal_age), None),
    ]


def challenged(outputs: Any) -> bool | None:
    """Whether a model asks a customer for ID; None if it does not say so.

    Args:
        outputs: the model's outputs for the photo, by name, or the age alone: TFMA drops the name
            of a single output.
    """
    if not isinstance(outputs, Mapping) or features.CHALLENGE not in outputs:
        return None
    return bool(np.ravel(outputs[features.CHALLENGE])[0])


class Passed(tfma.metrics.Metric):
    """The people of an age group: `name` counts them, and `name` + PASSED is the share that passes.

    A customer whose photo is refused does not pass. The share is NaN if nobody is of these ages, or
    if the model does not say who passes.

    Args:
        name: of the group.
        youngest: the first age of the group, whole years.
        oldest: its last age, whole years; None: it has no end.
    """

    def __init__(self, name: str, youngest: int, oldest: int | None = None):
        super().__init__(
            tfma.metrics.merge_per_key_computations(_computations),
            name=name,
            youngest=youngest,
            oldest=oldest,
        )


def _computations(
    name: str, youngest: int, oldest: int | None, model_name: str = ""
) -> tfma.metrics.MetricComputations:
    keys = [
        tfma.metrics.MetricKey(name=key, model_name=model_name) for key in (name, name + PASSED)
    ]
    combiner = _Count(keys, youngest, oldest)
    return [tfma.metrics.MetricComputation(keys=keys, preprocessors=None, combiner=combiner)]


class _Count(beam.CombineFn):
    """Counts the group's people, those of whom the model says anything, and those who pass."""

    def __init__(self, keys: list[tfma.metrics.MetricKey], youngest: int, oldest: int | None):
        self._keys = keys
        self._ages = youngest, oldest

    def create_accumulator(self) -> tuple[int, int, int]:
        """Nobody yet."""
        return 0, 0, 0

    def add_input(
        self, accumulator: tuple[int, int, int], element: tfma.metrics.StandardMetricInputs
    ) -> tuple[int, int, int]:
        """Adds one photo."""
        model = self._keys[0].model_name
        age = np.ravel(element.get_labels(model_name=model))[:1]
        if not within(age, *self._ages)[0]:
            return accumulator
        asked = challenged(element.get_predictions(model_name=model))
        people, known, passing = accumulator
        return people + 1, known + (asked is not None), passing + (asked is False)

    def merge_accumulators(self, accumulators: list[tuple[int, int, int]]) -> tuple[int, ...]:
        """Adds up."""
        return tuple(map(sum, zip(*accumulators, strict=True)))

    def extract_output(
        self, accumulator: tuple[int, int, int]
    ) -> dict[tfma.metrics.MetricKey, float]:
        """The two metrics."""
        people, known, passing = accumulator
        share = passing / known if known else math.nan
        return dict(zip(self._keys, (people, share), strict=True))

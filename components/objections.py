"""Photos with an objection, in TFMA: they have the weight 0, and `Refused` is their share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma

from components.gate import REFUSED
from schemas import features


def objection(outputs: Any) -> str:
    """A model's objection to one photo; "" if it has none.

    Args:
        outputs: the model's outputs for the photo, by name, or the age alone: TFMA drops the name
            of a single output. A model from before there were objections has no such output.
    """
    if not isinstance(outputs, Mapping) or features.OBJECTION not in outputs:
        return ""
    return str(np.ravel(outputs[features.OBJECTION])[0].decode())


def weigh(extracts: tfma.Extracts, models: Sequence[str]) -> tfma.Extracts:
    """The extracts of one photo with its weight: 0 if a model objects to it, else 1.

    Each model has its own weights, so TFMA's weighted metrics of a model are those of the photos
    to which this model does not object.

    Args:
        extracts: with the outputs of each model.
        models: TFMA's names of the models; an only model has no name.
    """
    outputs = extracts[tfma.PREDICTIONS_KEY]
    weights: Any = {name: _weight(outputs[name]) for name in models if name}
    return {**extracts, tfma.EXAMPLE_WEIGHTS_KEY: weights or _weight(outputs)}


def _weight(outputs: Any) -> np.ndarray:
    return np.array([0.0 if objection(outputs) else 1.0], np.float32)


class Refused(tfma.metrics.Metric):
    """The share of photos whose weight is 0, 0 to 1."""

    def __init__(self, name: str = REFUSED):
        super().__init__(tfma.metrics.merge_per_key_computations(_computations), name=name)


def _computations(name: str, model_name: str = "") -> tfma.metrics.MetricComputations:
    key = tfma.metrics.MetricKey(name=name, model_name=model_name)
    return [tfma.metrics.MetricComputation(keys=[key], preprocessors=None, combiner=_Share(key))]


class _Share(beam.combiners.MeanCombineFn):
    """The mean of "the weight is 0"."""

    def __init__(self, key: tfma.metrics.MetricKey):
        super().__init__()
        self._key = key

    def add_input(
        self, accumulator: tuple[float, int], element: tfma.metrics.StandardMetricInputs
    ) -> tuple[float, int]:
        """Adds one photo."""
        weight = element.get_example_weights(model_name=self._key.model_name)
        return super().add_input(accumulator, float(np.ravel(weight)[0] == 0))

    def extract_output(self, accumulator: tuple[float, int]) -> dict[Any, float]:
        """The metric."""
        return {self._key: super().extract_output(accumulator)}

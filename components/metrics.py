"""TFMA's errors, each photo counted once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics.metric_types import MetricComputation


class MergesOnce(beam.CombineFn):
    """A combiner of TFMA's, whose merging would count the first accumulator twice.

    TFMA 0.52 (metrics/mean_regression_error.py) takes the first of the accumulators and merges all
    of them into it, itself among them. With one bundle of photos there is nothing to merge; with
    two threads the MAE of 874 photos was 6.75 years instead of 6.71, and of 138 photos 5.07
    instead of 5.27. Of an iterator, which it is given here, the first has been taken away.
    """

    def __init__(self, combiner: beam.CombineFn):
        super().__init__()
        self._combiner = combiner

    def create_accumulator(self) -> Any:
        """TFMA's."""
        return self._combiner.create_accumulator()

    def add_input(self, accumulator: Any, element: Any) -> Any:
        """TFMA's."""
        return self._combiner.add_input(accumulator, element)

    def merge_accumulators(self, accumulators: Iterable[Any]) -> Any:
        """TFMA's, of an iterator."""
        return self._combiner.merge_accumulators(iter(accumulators))

    def extract_output(self, accumulator: Any) -> Any:
        """TFMA's."""
        return self._combiner.extract_output(accumulator)


class AbsoluteError(tfma.metrics.MeanAbsoluteError):  # type: ignore[misc]
    """TFMA's mean_absolute_error, under its name."""

    def computations(self, *arguments: Any, **named: Any) -> list[MetricComputation]:
        """TFMA's, merged once."""
        return _merged_once(super().computations(*arguments, **named))


class SquaredError(tfma.metrics.MeanSquaredError):  # type: ignore[misc]
    """TFMA's mean_squared_error, under its name."""

    def computations(self, *arguments: Any, **named: Any) -> list[MetricComputation]:
        """TFMA's, merged once."""
        return _merged_once(super().computations(*arguments, **named))


def _merged_once(computations: Iterable[MetricComputation]) -> list[MetricComputation]:
    return [found._replace(combiner=MergesOnce(found.combiner)) for found in computations]

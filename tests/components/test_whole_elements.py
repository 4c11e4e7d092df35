"""Elements that take long to write, with threads of Beam's."""

from __future__ import annotations

import time
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor

from components import evaluator, photo_example_gen, statistics_gen, transform
from components.whole_elements import WholeElements
from pipeline.config import Beam
from pipeline.graph import beam_args


class Slow:
    """Its key is written, and Beam's second over, when it follows."""

    def __reduce__(self) -> tuple[type[Slow], tuple[()]]:
        time.sleep(1.2)
        return Slow, ()


class Executor(WholeElements, BaseBeamExecutor):
    def Do(self, *_: Any) -> None:
        with self._make_beam_pipeline() as pipeline:
            groups = (
                pipeline
                | beam.Create([0, 1, 2])
                | beam.Map(lambda number: (f"key {number % 2}", Slow()))
                | beam.GroupByKey()
                | beam.MapTuple(lambda key, values: (key, len(list(values))))
            )
            assert_that(groups, equal_to([("key 0", 2), ("key 1", 1)]))


def test_what_takes_long_to_write_arrives_whole() -> None:
    options = beam_args(Beam(mode="multi_threading", workers=2))
    Executor(BaseBeamExecutor.Context(options)).Do({}, {}, {})


@pytest.mark.parametrize("step", [photo_example_gen, statistics_gen, transform, evaluator])
def test_every_step_that_runs_beam_has_it(step: Any) -> None:
    assert issubclass(step.Executor, WholeElements)

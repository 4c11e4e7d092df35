"""Elements that take long to write, with threads of Beam's; and methods as Beam inspects them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms import core
from apache_beam.transforms.userstate import BagStateSpec, get_dofn_specs
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor

from components import beam_step, evaluator, photo_example_gen, statistics_gen, transform
from components.beam_step import BeamStep, args_and_defaults
from pipeline.config import Beam
from pipeline.graph import beam_args


class Slow:
    """Its key is written, and Beam's second over, when it follows."""

    def __reduce__(self) -> tuple[type[Slow], tuple[()]]:
        time.sleep(1.2)
        return Slow, ()


class Executor(BeamStep, BaseBeamExecutor):
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
    assert issubclass(step.Executor, BeamStep)


beams = beam_step._inspect  # Beam's own, whoever has run a step before
BAG = BagStateSpec("bag", beam.coders.BytesCoder())
STATE = beam.DoFn.StateParam(BAG)


class Parent(beam.DoFn):
    def process(self, element: int, window: Any = beam.DoFn.WindowParam, *, more: int = 1) -> None:
        """Nothing."""

    @classmethod
    def of_the_class(cls, number: int = 2) -> None:
        """Nothing."""

    @staticmethod
    def alone(number: int = 3) -> None:
        """Nothing."""


class Child(Parent):
    def process(self, element: int, state: Any = STATE) -> None:  # type: ignore[override]
        """Nothing."""


@pytest.mark.parametrize(
    "function",
    [
        Parent().process, Child().process, Child().setup, Child().of_the_class, Child().alone,
        Child.process, Parent, beam.Map, lambda a, b=4: a, "".join, print, dict.get,
    ],
    ids=lambda function: getattr(function, "__qualname__", "built in"),
)  # fmt: skip
def test_functions_are_inspected_as_by_beam(function: Callable[..., Any]) -> None:
    for _ in range(2):
        names, defaults = args_and_defaults(function)
        assert (names, defaults) == beams(function)
        names.append("the caller's own")


def test_a_method_is_inspected_once() -> None:
    with mock.patch.object(core, "get_function_args_defaults", args_and_defaults):
        assert get_dofn_specs(Parent()) == (set(), set())
        with mock.patch.object(core, "get_signature", side_effect=AssertionError):
            assert get_dofn_specs(Parent()) == (set(), set())
        assert get_dofn_specs(Child()) == ({BAG}, set())

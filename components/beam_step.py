"""Beam as a step needs it: elements reach the next stage whole, and methods are inspected once.

With threads, FnApiRunner sends each second what its workers have written so far, from a thread that
waits for nobody (Beam 2.77, runners/worker/data_plane.py: TimeBasedBufferingClosableOutputStream).
An element that is being written then arrives as two: its reader reads on in memory that is not its
own (an Evaluator took 23 GB in a minute), and what is written while the thread sends is lost. By
size alone, as everywhere else in Beam, nothing is sent but between two elements.

A dozen times for each DoFn of a pipeline, Beam inspects all of its methods, most of which every
DoFn inherits (transforms/userstate.py: get_dofn_specs): 63,000 inspections in StatisticsGen, and
with those in Transform 3 to 5 of the 18 s that the two take on 240 photos.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import MethodType
from typing import Any

from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.transforms import core

_inspect = core.get_function_args_defaults


class BeamStep:
    """Put before a Beam executor: its pipelines run by a Beam that does as said above."""

    def _make_beam_pipeline(self) -> Any:
        worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0
        core.get_function_args_defaults = args_and_defaults
        return super()._make_beam_pipeline()  # type: ignore[misc]


def args_and_defaults(function: Callable[..., Any]) -> tuple[list[str], list[Any]]:
    """Names of a function's positional arguments, and the defaults of the last of them.

    As Beam's `get_function_args_defaults`, which reads a class's method anew for each instance.
    """
    if not inspect.ismethod(function):
        return _inspect(function)
    names, defaults = _of_method(function.__func__)
    return list(names), list(defaults)


@functools.lru_cache(1024)
def _of_method(function: Callable[..., Any]) -> tuple[list[str], list[Any]]:
    return _inspect(MethodType(function, function))  # whatever it is bound to, that is left out

"""Beam's elements reach the next stage whole.

With threads, FnApiRunner sends each second what its workers have written so far, from a thread that
waits for nobody (Beam 2.77, runners/worker/data_plane.py: TimeBasedBufferingClosableOutputStream).
An element that is being written then arrives as two: its reader reads on in memory that is not its
own (an Evaluator took 23 GB in a minute), and what is written while the thread sends is lost. By
size alone, as everywhere else in Beam, nothing is sent but between two elements.
"""

from __future__ import annotations

from typing import Any

from apache_beam.runners.portability.fn_api_runner import worker_handlers


class WholeElements:
    """Put before a Beam executor: what its workers write is not sent by the clock."""

    def _make_beam_pipeline(self) -> Any:
        worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0
        return super()._make_beam_pipeline()  # type: ignore[misc]

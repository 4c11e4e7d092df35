"""Requests that meet run together: a scheduler in front of a signature.

A request that is alone runs at once, in its own thread. Requests that come while it runs wait;
when it ends, they are concatenated up to the largest batch, and the thread of the first of them
runs this batch. Nobody waits for more requests to come.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

import grpc
import numpy as np

from serving.server import config_files, metrics
from serving.server.errors import ServingError, invalid_argument
from serving.server.flags import Flags

Arrays = Mapping[str, np.ndarray]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batching:
    """The fields of BatchingParameters that have an effect, with TensorFlow Serving's defaults.

    Attributes:
        max_batch_size: rows of the largest batch; a larger request is refused.
        max_enqueued_batches: a request that would make more batches wait is refused.
    """

    max_batch_size: int = 1000
    max_enqueued_batches: int = 10

    @staticmethod
    def of(flags: Flags) -> Batching | None:
        """What the flags ask for; None: each request runs by itself.

        Raises:
            ServingError: the file is missing or wrong, or a number in it is below 1.
        """
        if not flags.enable_batching:
            return None
        proto = config_files.BatchingParameters()
        if flags.batching_parameters_file:
            config_files.parse(flags.batching_parameters_file, proto)
        names = ("max_batch_size", "max_enqueued_batches")
        values = {name: getattr(proto, name).value for name in names if proto.HasField(name)}
        for name, value in values.items():
            if value < 1:
                raise invalid_argument(f"{name} must be at least 1; was {value}")
        return Batching(**values)


@dataclass(eq=False)
class _Request:
    inputs: Arrays
    rows: int
    arrived: float = field(default_factory=time.perf_counter)
    answer: Future[dict[str, np.ndarray]] = field(default_factory=Future)
    # Set when the answer is there, or when this request's thread has to run the next batch.
    woken: threading.Event = field(default_factory=threading.Event)


class Batcher:
    """Runs one signature, one batch at a time; may be called from any thread."""

    def __init__(
        self,
        call: Callable[[Arrays], dict[str, np.ndarray]],
        batching: Batching,
        model: str,
        signature: str,
    ):
        """Batches the calls of `call`. The names are for the metrics."""
        self._call = call
        self._batching = batching
        self._names = model, signature
        self._lock = threading.Lock()
        self._running = False
        self._waiting: deque[_Request] = deque()

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Runs the signature on `inputs`, alone or together with others.

        Raises:
            ServingError: INVALID_ARGUMENT, the inputs differ in their rows or have too many;
                UNAVAILABLE, too many requests wait; or what the signature failed with.
        """
        request = _Request(inputs, self._rows(inputs))
        self._wait_for_turn(request)
        if not request.answer.done():
            self._run_next()
        return request.answer.result()

    def _rows(self, inputs: Arrays) -> int:
        counts = {len(array) for array in inputs.values()}
        most = self._batching.max_batch_size
        if len(counts) > 1:
            raise invalid_argument(
                "Batching Run() input tensors must have equal 0th-dimension size"
            )
        (rows,) = counts
        if rows > most:
            raise invalid_argument(
                f"Task size {rows} is larger than maximum input batch size {most}"
            )
        return rows

    def _wait_for_turn(self, request: _Request) -> None:
        """Returns when `request` has its answer, or when it is the first that waits."""
        bound = self._batching.max_batch_size * self._batching.max_enqueued_batches
        with self._lock:
            is_alone = not self._running
            if not is_alone and sum(r.rows for r in self._waiting) + request.rows > bound:
                raise ServingError(
                    grpc.StatusCode.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full",
                )
            self._running = True
            self._waiting.append(request)
        if not is_alone:
            request.woken.wait()

    def _run_next(self) -> None:
        with self._lock:
            batch = self._take()
        try:
            if len(batch) == 1 or not self._run_together(batch):
                for request in batch:
                    self._run_alone(request)
        finally:
            with self._lock:
                self._running = bool(self._waiting)
                if self._waiting:
                    self._waiting[0].woken.set()
            for request in batch:
                request.woken.set()

    def _take(self) -> list[_Request]:
        """The first request that waits, and those after it that fit into its batch."""
        batch = [self._waiting.popleft()]
        rows = batch[0].rows
        while self._waiting and _row_shapes(self._waiting[0]) == _row_shapes(batch[0]):
            rows += self._waiting[0].rows
            if rows > self._batching.max_batch_size:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _run_alone(self, request: _Request) -> None:
        self._observe([request])
        try:
            request.answer.set_result(self._call(request.inputs))
        except Exception as error:  # it is raised again in the request's own thread
            request.answer.set_exception(error)
        request.woken.set()  # it does not wait for the others

    def _run_together(self, batch: list[_Request]) -> bool:
        """Runs the requests as one batch. False: it failed, and each request has to run alone."""
        ends = np.cumsum([request.rows for request in batch])
        try:
            outputs = self._call(
                {name: np.concatenate([r.inputs[name] for r in batch]) for name in batch[0].inputs}
            )
        except Exception as error:  # it does not say which request is the cause
            _log.info("A batch of %d failed, its requests run one by one: %s", len(batch), error)
            return False
        if any(len(array) != ends[-1] for array in outputs.values()):
            return False
        self._observe(batch)
        for request, end in zip(batch, ends, strict=True):
            rows = slice(end - request.rows, end)
            request.answer.set_result({name: array[rows] for name, array in outputs.items()})
        return True

    def _observe(self, batch: list[_Request]) -> None:
        waited = time.perf_counter() - batch[0].arrived
        metrics.observe_batch(*self._names, sum(request.rows for request in batch), waited)


def _row_shapes(request: _Request) -> list[tuple[int, ...]]:
    return [request.inputs[name].shape[1:] for name in sorted(request.inputs)]

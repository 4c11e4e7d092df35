"""The scheduler: a single request runs at once, requests that meet run together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from serving.server.batching import Arrays, Batcher, Batching
from serving.server.errors import ServingError
from tests.serving.server.models import eventually, flags_of


class Double:
    """A model that doubles numbers. It waits while `go` is clear, and fails on negative numbers."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.batches: list[list[int]] = []

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        self.batches.append(inputs["x"].reshape(-1).tolist())
        assert self.go.wait(60)
        if (inputs["x"] < 0).any():
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, "negative")
        return {"y": inputs["x"] * 2}


class Clients:
    """Sends requests from several threads."""

    def __init__(self, pool: ThreadPoolExecutor, **bounds: int):
        self._pool = pool
        self.model = Double()
        self.batcher = Batcher(self.model, Batching(**bounds), "m", "s")

    def ask(self, *x: Any) -> Future[Any]:
        """Sends a request; returns when it runs or waits."""
        before = self._known()
        answer = self._pool.submit(lambda: self.batcher.run({"x": np.array(x)})["y"].tolist())
        eventually(lambda: self._known() > before or answer.done())
        return answer

    def _known(self) -> int:
        return len(self.model.batches) + len(self.batcher._waiting)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as made:
        yield made


def test_a_single_request_runs_at_once(pool: ThreadPoolExecutor) -> None:
    clients = Clients(pool)
    assert clients.ask(1, 2).result() == [2, 4]
    assert clients.ask(3).result() == [6]
    assert clients.model.batches == [[1, 2], [3]]


def test_requests_that_meet_run_together_up_to_the_largest_batch(pool: ThreadPoolExecutor) -> None:
    clients = Clients(pool, max_batch_size=4)
    clients.model.go.clear()
    answers = [clients.ask(*x) for x in ([1], [2], [3, 4], [5, 6], [7], [8])]
    assert clients.model.batches == [[1]]
    clients.model.go.set()
    assert [answer.result() for answer in answers] == [[2], [4], [6, 8], [10, 12], [14], [16]]
    assert clients.model.batches == [[1], [2, 3, 4], [5, 6, 7, 8]]


def test_one_bad_request_does_not_fail_its_neighbours(pool: ThreadPoolExecutor) -> None:
    clients = Clients(pool)
    clients.model.go.clear()
    first, good, bad, other = (clients.ask(x) for x in (0, 1, -1, 3))
    clients.model.go.set()
    assert (first.result(), good.result(), other.result()) == ([0], [2], [6])
    with pytest.raises(ServingError, match="negative"):
        bad.result()
    assert clients.model.batches == [[0], [1, -1, 3], [1], [-1], [3]]


def test_neighbours_do_not_wait_for_those_behind_them(pool: ThreadPoolExecutor) -> None:
    clients = Clients(pool)

    def call(inputs: Arrays) -> dict[str, np.ndarray]:
        if inputs["x"].tolist() == [3]:
            neighbour.result(60)  # fails if it has no answer yet
        return clients.model(inputs)

    clients.batcher = Batcher(call, Batching(), "m", "s")
    clients.model.go.clear()
    _, _, bad, neighbour, last = (clients.ask(x) for x in (0, 1, -1, 2, 3))
    clients.model.go.set()
    assert (neighbour.result(), last.result()) == ([4], [6])
    assert clients.model.batches == [[0], [1, -1, 2, 3], [1], [-1], [2], [3]]
    with pytest.raises(ServingError, match="negative"):
        bad.result()


def test_after_a_failure_the_next_request_runs(pool: ThreadPoolExecutor) -> None:
    clients = Clients(pool)
    with pytest.raises(ServingError):
        clients.ask(-1).result()
    assert clients.ask(1).result() == [2]


def test_rows_of_another_shape_run_by_themselves(pool: ThreadPoolExecutor) -> None:
    clients = Clients(pool)
    clients.model.go.clear()
    answers = [clients.ask(*x) for x in ([1], [2], [[3, 4]], [5])]
    clients.model.go.set()
    assert [answer.result() for answer in answers] == [[2], [4], [[6, 8]], [10]]
    assert clients.model.batches == [[1], [2], [3, 4], [5]]


def test_outputs_that_are_not_per_row_are_not_shared(pool: ThreadPoolExecutor) -> None:
    clients = Clients(pool)
    clients.model.go.clear()
    total = Batcher(
        lambda inputs: {"y": clients.model(inputs)["y"].sum(keepdims=True)}, Batching(), "m", "s"
    )
    clients.batcher = total
    answers = [clients.ask(x) for x in (1, 2, 3)]
    clients.model.go.set()
    assert [answer.result() for answer in answers] == [[2], [4], [6]]


def test_a_full_queue_is_unavailable(pool: ThreadPoolExecutor) -> None:
    clients = Clients(pool, max_batch_size=2, max_enqueued_batches=1)
    clients.model.go.clear()
    taken = [clients.ask(x) for x in (1, 2, 3)]  # one runs, two wait
    refused = clients.ask(4).exception()
    assert isinstance(refused, ServingError)
    assert refused.code is grpc.StatusCode.UNAVAILABLE
    assert "queue to which this task was submitted is full" in refused.message
    clients.model.go.set()
    assert [answer.result() for answer in taken] == [[2], [4], [6]]
    assert clients.ask(5).result() == [10]


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"x": np.zeros(5)}, "Task size 5 is larger than maximum input batch size 4"),
        ({"x": np.zeros(1), "z": np.zeros(2)}, "must have equal 0th-dimension size"),
    ],
)
def test_inputs_that_are_not_a_batch_are_refused(inputs: Arrays, text: str) -> None:
    model = Double()
    with pytest.raises(ServingError, match=text) as raised:
        Batcher(model, Batching(max_batch_size=4), "m", "s").run(inputs)
    assert raised.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert model.batches == []


def test_many_clients_each_get_their_own_answer(pool: ThreadPoolExecutor) -> None:
    clients = Clients(pool, max_batch_size=8)
    numbers = [[n] * (n % 3 + 1) for n in range(400)]
    found = pool.map(lambda x: clients.batcher.run({"x": np.array(x)})["y"].tolist(), numbers)
    assert list(found) == [[2 * n for n in x] for x in numbers]
    assert max(map(len, clients.model.batches)) <= 8


def test_parameters(tmp_path: Path) -> None:
    assert Batching.of(flags_of()) is None
    assert Batching.of(flags_of(enable_batching=True)) == Batching(1000, 10)
    file = tmp_path / "batching.config"
    flags = flags_of(enable_batching=True, batching_parameters_file=str(file))
    file.write_text(
        "max_batch_size { value: 32 } batch_timeout_micros { value: 1000 }\n"
        "max_enqueued_batches { value: 7 } num_batch_threads { value: 2 }\n"
        "allowed_batch_sizes: [1, 8, 32] pad_variable_length_inputs: true\n"
        'thread_pool_name { value: "batches" } max_execution_batch_size { value: 8 }\n'
        "enable_large_batch_splitting { value: true }\n"
    )
    assert Batching.of(flags) == Batching(32, 7)
    file.write_text("max_batch_size { value: 0 }")
    with pytest.raises(ServingError, match="max_batch_size must be at least 1; was 0"):
        Batching.of(flags)
    file.write_text("max_bath_size { value: 32 }")
    with pytest.raises(ServingError, match=r"Invalid protobuf file.*max_bath_size"):
        Batching.of(flags)

"""Requests that arrive together are run together, and fail alone."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from serving.server import metrics
from serving.server.batching import BatchedSignature, Batching
from serving.server.config_files import BatchingParameters, parse
from serving.server.core import Settings
from serving.server.errors import ServingError
from serving.server.inference import Inference
from serving.server.servable import Servable
from serving.server.warmup import warm_up
from tests.serving.server.models import (
    Client,
    ModelFolders,
    config,
    predict_log,
    predict_request,
    serving,
    write_warm_up,
)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int, int]]:
    """Model, signature, examples and padding of each batch that is run."""
    found: list[tuple[str, str, int, int]] = []

    def observe(model: str, signature: str, size: int, padding: int, queue: float) -> None:
        assert 0 <= queue < 60
        found.append((model, signature, size, padding))

    monkeypatch.setattr(metrics, "observe_batch", observe)
    return found


def batching(**parameters: Any) -> Settings:
    return Settings(batching=Batching(**parameters))


def together(*calls: Any) -> list[Any]:
    """Results, or errors, of calls made at the same time."""
    start = threading.Barrier(len(calls))

    def call(one: Any) -> Any:
        start.wait()
        try:
            return one()
        except grpc.RpcError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


def signature(name: str, **inputs: Any) -> Any:
    request = predict_request("half", **inputs)
    request.model_spec.signature_name = name
    return request


@pytest.mark.parametrize("tf1", [False, True])
def test_requests_are_run_together(
    folders: ModelFolders, tmp_path: Path, batches: list[Any], tf1: bool
) -> None:
    folders.put(tmp_path, 2, tf1=tf1)
    settings = batching(
        max_batch_size=8, max_execution_batch_size=8, batch_timeout_micros=300_000,
        allowed_batch_sizes=(5, 8), num_batch_threads=1,
    )  # fmt: skip
    with serving(config(half=tmp_path), settings) as (_, client):
        answers = together(*(lambda x=x: client.y("half", x) for x in range(4)))
    assert answers == [2.0, 2.5, 3.0, 3.5]
    sizes = [size for _, _, size, _ in batches]
    assert sum(sizes) == 4 and len(sizes) < 4
    assert all(size + padding == 5 for _, _, size, padding in batches)
    assert {(model, name) for model, name, _, _ in batches} == {("half", "serving_default")}


@pytest.fixture(scope="module")
def batched(base: Path) -> Any:
    settings = batching(
        max_batch_size=4, max_execution_batch_size=4, batch_timeout_micros=200_000,
        num_batch_threads=1,
    )  # fmt: skip
    with serving(config(half=base), settings) as (_, client):
        yield client


def test_what_fails_fails_alone(batched: Client) -> None:
    photo = tf.io.encode_jpeg(np.zeros((5, 7, 3), np.uint8)).numpy()
    ask = batched.prediction.Predict
    good, bad, other = together(
        lambda: ask(signature("photos", image=[photo])),
        lambda: ask(signature("photos", image=[b"no photo"])),
        lambda: ask(signature("photos", image=[photo, photo])),
    )
    assert list(good.outputs["height"].int_val) == [5]
    assert list(other.outputs["height"].int_val) == [5, 5]
    assert bad.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_what_does_not_concatenate_is_answered_by_itself(batched: Client) -> None:
    ask = batched.prediction.Predict
    short, long, wrong = together(
        lambda: ask(signature("rows", rows=np.array([[1, 2]], np.float32))),
        lambda: ask(signature("rows", rows=np.array([[1, 2, 3]], np.float32))),
        lambda: ask(signature("rows", rows=np.array([1], np.float32))),
    )
    assert list(short.outputs["total"].float_val) == [3.0]
    assert list(long.outputs["total"].float_val) == [6.0]
    assert wrong.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (
            predict_request("half", x=np.float32(1)),
            "Batching Run() input tensors must have at least one dimension",
        ),
        (
            signature("pair", a=np.array([1], np.float32), b=np.array([1, 2], np.float32)),
            "Batching Run() input tensors must have equal 0th-dimension size",
        ),
        (
            predict_request("half", x=np.zeros(5, np.float32)),
            "Task size 5 is larger than maximum input batch size 4",
        ),
        (
            predict_request("half", x=np.zeros(1, np.int64)),
            "Expects arg[0] to be float but int64 is provided",
        ),
    ],
)
def test_batches_refuse(batched: Client, request_: Any, text: str) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        batched.prediction.Predict(request_)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.details() == text


def test_filtered_outputs_and_empty_batches(batched: Client) -> None:
    request = signature("pair", a=np.array([5], np.float32), b=np.array([3], np.float32))
    request.output_filter.append("difference")
    response = batched.prediction.Predict(request)
    assert {n: list(t.float_val) for n, t in response.outputs.items()} == {"difference": [2.0]}
    empty = batched.predict("half", x=np.zeros(0, np.float32))
    assert [dim.size for dim in empty.outputs["y"].tensor_shape.dim] == [0]


def test_large_requests_are_split_where_that_is_asked_for(
    base: Path, batches: list[tuple[str, str, int, int]]
) -> None:
    settings = batching(max_batch_size=10, max_execution_batch_size=4, split=True)
    with serving(config(half=base), settings) as (_, client):
        answer = client.predict("half", x=np.arange(10, dtype=np.float32))
    assert list(answer.outputs["y"].float_val) == [x / 2 + 3 for x in range(10)]
    assert sum(size for _, _, size, _ in batches) == 10
    assert max(size for _, _, size, _ in batches) == 4


def variable(resource: bool = False) -> Any:
    return tf.compat.v1.get_variable("table", initializer=[5.0, 7.0], use_resource=resource)


def loop(x: tf.Tensor) -> tf.Tensor:
    last = variable()[1]
    return tf.compat.v1.while_loop(
        lambda turn, _: turn < 3,
        lambda turn, sum_: (turn + 1, sum_ + tf.constant(1.0) + last),
        [0, x],
    )[1]


def branch(x: tf.Tensor) -> tf.Tensor:
    first = variable(resource=True)
    return x + tf.cond(tf.reduce_sum(x) > 9, lambda: first[0], lambda: first[1] + tf.constant(1.0))


def checked(x: tf.Tensor) -> tf.Tensor:
    with tf.control_dependencies([tf.compat.v1.assert_positive(x)]):
        return tf.constant(4.0) + tf.zeros_like(x)


def beside(x: tf.Tensor, resource: bool) -> tf.Tensor:
    table = variable(resource)
    with tf.compat.v1.colocate_with(table.op):
        return tf.gather(table, tf.cast(x, tf.int32))


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (loop, 25.0),
        (branch, 9.0),
        (checked, 4.0),
        (functools.partial(beside, resource=False), 7.0),
        (functools.partial(beside, resource=True), 7.0),
        (lambda x: x, 1.0),
        (lambda x: tf.constant([6.0]), 6.0),
    ],
)
def test_graphs_of_tf1_are_run_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: Any, expected: float
) -> None:
    tf.compat.v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            x = tf.compat.v1.placeholder(tf.float32, [None])
            y = output(x)
            session.run(tf.compat.v1.global_variables_initializer())
            tf.compat.v1.saved_model.simple_save(session, str(tmp_path / "1"), {"x": x}, {"y": y})
    finally:
        tf.compat.v1.enable_control_flow_v2()
    monkeypatch.delattr(Servable, "run_tensors")  # by which a batch that fails is run again
    with divided(tmp_path, version=1) as servable, servable.request():
        (found,) = servable.run("serving_default", {"x": np.array([1], np.float32)}, ["y"])
    assert found.tolist() == [expected]


@pytest.fixture
def behind_the_op(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Examples of each request that goes through the batching op, on a machine of two cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    found: list[int] = []
    run = BatchedSignature.run

    def spy(self: Any, call: Any, inputs: Any, count: int) -> Any:
        found.append(count)
        return run(self, call, inputs, count)

    monkeypatch.setattr(BatchedSignature, "run", spy)
    return found


@contextlib.contextmanager
def divided(
    base: Path, *, version: int = 3, session: Mapping[str, int] | None = None, **parameters: Any
) -> Iterator[Servable]:
    servable = Servable(
        "half",
        version,
        str(base / str(version)),
        batching=Batching(**{"num_batch_threads": 2, **parameters}),
        session_config=config_pb2.ConfigProto(**(session or {})),
    )
    try:
        yield servable
    finally:
        servable.close()


def test_a_lone_request_has_a_session_with_all_threads(
    base: Path, behind_the_op: list[int], batches: list[tuple[str, str, int, int]]
) -> None:
    with divided(base) as servable:
        ask = functools.partial(servable.run, "serving_default", outputs=["y"])
        (alone,) = ask(inputs={"x": np.array([5], np.float32)})
        assert behind_the_op == []
        assert batches == [("half", "serving_default", 1, 0)]
        with servable.request():
            (beside,) = ask(inputs={"x": np.array([5, 7], np.float32)})
        assert behind_the_op == [2]
        (again,) = ask(inputs={"x": np.array([5], np.float32)})
        assert behind_the_op == [2]
    assert [alone.tolist(), beside.tolist(), again.tolist()] == [[5.5], [5.5, 6.5], [5.5]]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads have names in /proc")
def test_a_batch_stays_in_the_thread_that_took_it(tmp_path: Path, behind_the_op: list[int]) -> None:
    threads: list[str] = []

    def run(x: np.ndarray) -> np.ndarray:
        threads.append(Path(f"/proc/self/task/{threading.get_native_id()}/comm").read_text())
        return x

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def both(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": sum(tf.numpy_function(run, [x], tf.float32, stateful=False) for _ in "ab")}

    model = tf.Module()
    tf.saved_model.save(model, str(tmp_path / "1"), signatures=both)
    with divided(tmp_path, version=1) as servable, servable.request():
        servable.run("serving_default", {"x": np.array([1], np.float32)}, ["y"])
    assert behind_the_op == [1]
    assert len(threads) == 2
    assert all(name.startswith("batch_threads") for name in threads)


def test_a_lone_request_waits_for_no_others(base: Path, behind_the_op: list[int]) -> None:
    with divided(base, batch_timeout_micros=3_600_000_000) as servable:
        servable.run("serving_default", {"x": np.array([5], np.float32)}, ["y"])
    assert behind_the_op == []


def test_a_lone_request_is_a_batch_like_others(base: Path, behind_the_op: list[int]) -> None:
    with divided(base, max_batch_size=9, max_execution_batch_size=4, split=True) as servable:
        ask = functools.partial(servable.run, "serving_default", outputs=["y"])
        with pytest.raises(ServingError, match="Task size 10 is larger than maximum"):
            ask(inputs={"x": np.zeros(10, np.float32)})
        (found,) = ask(inputs={"x": np.zeros(9, np.float32)})  # in parts, so by the op
    assert found.tolist() == [3.0] * 9
    assert behind_the_op == [9]


def test_a_failed_request_is_over(base: Path, behind_the_op: list[int]) -> None:
    with divided(base) as servable:
        for _ in range(2):
            with pytest.raises(ServingError):
                servable.run("photos", {"image": np.array([b"none"], object)}, ["height"])
    assert behind_the_op == []


def test_both_sessions_are_warmed_up(
    folders: ModelFolders, tmp_path: Path, behind_the_op: list[int]
) -> None:
    folder = folders.put(tmp_path, 1)
    write_warm_up(folder, [predict_log(predict_request("half", x=np.zeros(3, np.float32)))])
    with divided(tmp_path, version=1) as servable:
        warm_up(servable, str(folder), Inference(), repetitions=1)
    assert behind_the_op == [3]


@pytest.mark.parametrize(
    ("parameters", "session"),
    [
        ({"num_batch_threads": 1}, {}),  # one batch at a time should have all cores
        ({}, {"intra_op_parallelism_threads": 2}),  # somebody has said how many threads
        ({}, {"inter_op_parallelism_threads": 2}),
    ],
)
def test_one_session_is_enough(
    base: Path, behind_the_op: list[int], parameters: dict[str, Any], session: dict[str, int]
) -> None:
    with divided(base, session=session, **parameters) as servable:
        assert not servable.divided
        servable.run("serving_default", {"x": np.array([5], np.float32)}, ["y"])
    assert behind_the_op == [1]


def test_a_full_queue_is_unavailable(base: Path) -> None:
    settings = batching(
        max_batch_size=1, max_execution_batch_size=1, max_enqueued_batches=1, num_batch_threads=1
    )
    with serving(config(half=base), settings) as (_, client):
        ask = client.prediction.Predict
        answers = together(
            *(lambda: ask(signature("slow", x=np.array([1], np.float32))) for _ in range(6))
        )
    refused = [answer for answer in answers if isinstance(answer, grpc.RpcError)]
    assert 0 < len(refused) < 6
    for error in refused:
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "The batch scheduling queue to which this task was submitted is full" in str(
            error.details()
        )


def test_parameters(tmp_path: Path) -> None:
    assert Batching.of(BatchingParameters()) == Batching()
    file = tmp_path / "batching.txt"
    file.write_text(
        "max_batch_size { value: 32 } batch_timeout_micros { value: 1000 }\n"
        "max_enqueued_batches { value: 7 } num_batch_threads { value: 2 }\n"
        "allowed_batch_sizes: [1, 8, 32] pad_variable_length_inputs: true\n"
        'thread_pool_name { value: "batches" }\n'
    )
    found = Batching.of(parse(str(file), BatchingParameters()))
    assert found == Batching(32, 32, 1000, 7, 2, (1, 8, 32))
    file.write_text("max_batch_size { value: 32 }\nallowed_batch_sizes: [1, 8]\n")
    with pytest.raises(ServingError) as raised:
        Batching.of(parse(str(file), BatchingParameters()))
    assert raised.value.message == (
        "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 8; expected 32"
    )
    file.write_text("max_bath_size { value: 32 }")
    with pytest.raises(ServingError, match=r"Invalid protobuf file.*max_bath_size"):
        parse(str(file), BatchingParameters())

"""Requests of several clients in one run: TensorFlow's batching op around a signature.

TensorFlow Serving batches outside of the graph (batching/batching_session.cc), the op inside of
it; both have the same scheduler, and with it the same parameters and errors. The op gets all nodes
that lead to the signature's outputs, control flow of TF1's and all, so that it serves TF1 and TF2
models alike; what they begin with (variables, tables, constants) stays outside and is handed in.

Two things differ. A batch that fails is run again request by request, so that one client's broken
input fails no other client's. And for the same reason inputs of different lengths need no padding:
`pad_variable_length_inputs` changes nothing here.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework.function_pb2 import FunctionDefLibrary
from tensorflow.python.framework.graph_to_function_def import graph_to_function_def

from serving.server import metrics
from serving.server.errors import invalid_argument


@dataclass(frozen=True)
class Batching:
    """BatchingParameters with TensorFlow Serving's defaults.

    Attributes:
        max_batch_size: examples in the largest request that is taken.
        max_execution_batch_size: examples in the largest batch that is run.
        batch_timeout_micros: how long a batch that is not full waits for more.
        max_enqueued_batches: more waiting batches than this are refused as UNAVAILABLE.
        num_batch_threads: batches that run at once.
        allowed_batch_sizes: batches are filled up to one of these; none: any size.
        split: whether a request above max_execution_batch_size is run in parts.
    """

    max_batch_size: int = 1000
    max_execution_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = os.cpu_count() or 1
    allowed_batch_sizes: tuple[int, ...] = ()
    split: bool = False

    @staticmethod
    def of(proto: Any) -> Batching:
        """The parameters in a BatchingParameters message.

        Raises:
            ServingError: INVALID_ARGUMENT, they contradict each other.
        """
        names = (
            "max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads",
        )  # fmt: skip
        values = {name: getattr(proto, name).value for name in names if proto.HasField(name)}
        size = values.get("max_batch_size", Batching.max_batch_size)
        split = proto.enable_large_batch_splitting.value
        run = size
        if split and proto.HasField("max_execution_batch_size"):
            run = proto.max_execution_batch_size.value
        allowed = tuple(proto.allowed_batch_sizes)
        if allowed and allowed[-1] != run:
            which = "be equal to max_execution_batch_size" if split else "match max_batch_size"
            raise invalid_argument(
                f"Last entry in allowed_batch_sizes must {which}; last entry was {allowed[-1]}; "
                f"expected {run}"
            )
        if list(allowed) != sorted(set(allowed)):
            raise invalid_argument("allowed_batch_sizes entries must be monotonically increasing")
        for name, least in (*((n, 1) for n in names if n != "batch_timeout_micros"),
                            ("batch_timeout_micros", 0)):  # fmt: skip
            if values.get(name, least) < least:
                raise invalid_argument(f"{name} must be at least {least}; was {values[name]}")
        if not 1 <= run <= size:
            raise invalid_argument(
                f"max_execution_batch_size must be from 1 to max_batch_size; was {run}"
            )
        return Batching(
            **values,
            max_execution_batch_size=run,
            allowed_batch_sizes=allowed,
            split=split,
        )


class BatchedSignature:
    """A signature of a graph behind the batching op.

    Attributes:
        feeds: names of the tensors to feed: the signature's own, then the tickets'.
        fetches: names of the tensors to fetch: the signature's own, then the batches' figures.
    """

    def __init__(
        self,
        graph: tf.Graph,
        feeds: Sequence[str],
        fetches: Sequence[str],
        batching: Batching,
        model: str,
        signature: str,
    ):
        """Adds the op to `graph`; the session that holds it must not have run the op before."""
        self._batching = batching
        self._labels = model, signature
        self._tickets = itertools.count()
        with graph.as_default(), tf.name_scope(f"batching/{signature.replace(':', '_')}") as scope:
            tickets = tf.compat.v1.placeholder(tf.int64, [None], "tickets")
            inputs = [graph.get_tensor_by_name(name) for name in feeds]
            library, outside = _library(graph, inputs, fetches, scope)
            added = tf.compat.v1.GraphDef(versions=graph.graph_def_versions, library=library)
            tf.graph_util.import_graph_def(added, name="")
            results = tf.raw_ops.BatchFunction(
                in_tensors=[tickets, *inputs],
                captured_tensors=outside,
                f=library.function[-1].signature.name,
                Tout=[output.type for output in library.function[-1].signature.output_arg],
                shared_name=scope,
                num_batch_threads=batching.num_batch_threads,
                max_batch_size=batching.max_batch_size,
                batch_timeout_micros=batching.batch_timeout_micros,
                max_enqueued_batches=batching.max_enqueued_batches,
                allowed_batch_sizes=_run_sizes(batching),
                enable_large_batch_splitting=batching.split,
            )
        self.feeds = [*feeds, tickets.name]
        self.fetches = [tensor.name for tensor in results]

    def count(self, inputs: Sequence[np.ndarray]) -> int:
        """Examples in a request.

        Raises:
            ServingError: the inputs are no batch, or are too many.
        """
        if any(array.ndim == 0 for array in inputs):
            raise invalid_argument("Batching Run() input tensors must have at least one dimension")
        counts = {array.shape[0] for array in inputs}
        if len(counts) > 1:
            raise invalid_argument(
                "Batching Run() input tensors must have equal 0th-dimension size"
            )
        (count,) = counts
        if count > self._batching.max_batch_size:
            raise invalid_argument(
                f"Task size {count} is larger than maximum input batch size "
                f"{self._batching.max_batch_size}"
            )
        return int(count)

    def in_one_batch(self, count: int) -> bool:
        """Whether a request of so many examples is run as a whole."""
        return count <= self._batching.max_execution_batch_size

    def run(self, call: Any, inputs: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
        """Runs `call` (a callable from `feeds` to `fetches`) and returns the signature's outputs.

        Raises:
            tf.errors.UnavailableError: too many batches wait.
            tf.errors.OpError: the batch that they were in failed, for whatever reason.
        """
        first = next(self._tickets) * self._batching.max_batch_size
        tickets = np.arange(first, first + count)
        asked = time.time()
        *found, figures = call(*inputs, tickets)
        self._observe(figures, tickets, asked)
        return list(found)

    def _observe(self, figures: np.ndarray, tickets: np.ndarray, asked: float) -> None:
        # Each batch is told of by the request that its lowest ticket is of. numpy's unique takes as
        # long as all else that a request has done in Python.
        for started, size, filled, lowest in set(map(tuple, figures.tolist())):
            if tickets[0] <= lowest <= tickets[-1]:
                metrics.observe_batch(
                    *self._labels, int(filled), int(size - filled), max(0.0, started - asked)
                )


def _run_sizes(batching: Batching) -> list[int]:
    """The op's allowed_batch_sizes; the last of them is also the most that it runs at once."""
    if batching.split and not batching.allowed_batch_sizes:
        return list(range(1, batching.max_execution_batch_size + 1))
    return list(batching.allowed_batch_sizes)


def _figures(started: tf.Tensor, tickets: tf.Tensor) -> tf.Tensor:
    """When the batch started, its size, its examples without padding, the lowest ticket: [N, 4].

    The op pads with copies of an example, whose ticket is then there more than once.
    """
    filled = tf.size(tf.unique(tickets).y)
    row = tf.stack(
        [
            started,
            *(tf.cast(n, tf.float64) for n in (tf.size(tickets), filled, tf.reduce_min(tickets))),
        ]
    )
    return tf.tile(row[tf.newaxis], [tf.size(tickets), 1])


def _library(
    graph: tf.Graph, inputs: Sequence[tf.Tensor], fetches: Sequence[str], scope: str
) -> tuple[FunctionDefLibrary, list[tf.Tensor]]:
    """Functions, the last of which makes of a batch what a request makes, and the batch's figures.

    It is not traced as tf.function does it, which changes TF1's control flow or can't read it.

    Returns:
        The functions, and tensors of `graph` that the last one takes beside tickets and `inputs`.
    """
    body, outside = _body(graph, inputs, fetches)
    taken = {name if ":" in name else f"{name}:0" for node in body.node for name in node.input}
    with tf.Graph().as_default() as inner:
        tickets = tf.compat.v1.placeholder(tf.int64, [None])
        known = {
            tensor.name: tf.compat.v1.placeholder(tensor.dtype, tensor.shape)
            for tensor in (*inputs, *outside)
        }
        given = [tickets, *known.values()]
        figures = _figures(tf.timestamp(), tickets)
        made = [name for name in fetches if name not in known]
        mapped = {name: tensor for name, tensor in known.items() if name in taken}
        found = tf.graph_util.import_graph_def(body, mapped, made, name="body")
        known |= zip(made, found, strict=True)
        results = [*(known[name] for name in fetches), figures]
    function = graph_to_function_def(inner, inner.get_operations(), given, results)
    function.signature.name = scope.replace("/", "_")
    library = inner.as_graph_def().library
    library.function.append(function)
    return library, [tf.identity(t) if t.dtype._is_ref_dtype else t for t in outside]


def _body(
    graph: tf.Graph, inputs: Sequence[tf.Tensor], fetches: Sequence[str]
) -> tuple[tf.compat.v1.GraphDef, list[tf.Tensor]]:
    """The nodes that lead to `fetches`, and the tensors that they take of other nodes."""
    ends = [graph.get_tensor_by_name(name) for name in fetches]
    given = {tensor.name: tensor.op for tensor in inputs}
    nodes: set[tf.Operation] = set()
    waiting = [tensor.op for tensor in ends]
    while waiting:
        op = waiting.pop()
        if op not in nodes and op not in given.values() and not _begins(op):
            nodes.add(op)
            waiting += [*(tensor.op for tensor in op.inputs), *op.control_inputs]
    whole = graph.as_graph_def()
    names = {op.name for op in nodes}
    body = tf.compat.v1.GraphDef(versions=whole.versions, library=whole.library)
    for node in whole.node:
        if node.name in names:
            kept = [i for i in node.input if not i.startswith("^") or i[1:] in names]
            copied = body.node.add()
            copied.CopyFrom(node)
            copied.input[:] = kept
            copied.attr.pop("_class", None)  # beside which other it runs, which may not be here
    taken = [*ends, *(tensor for op in nodes for tensor in op.inputs)]
    outside = {t.name: t for t in taken if t.op not in nodes and t.name not in given}
    return body, list(outside.values())


def _begins(op: tf.Operation) -> bool:
    """Whether it takes nothing; a constant of a TF1 branch or loop waits for that to be taken."""
    return not op.inputs and (op.op_def.is_stateful or not op.control_inputs)


def must_not_be_repeated(error: tf.errors.OpError) -> bool:
    """Whether a failed batch says so of the server rather than of an input."""
    return error.error_code in {
        grpc.StatusCode.UNAVAILABLE.value[0],
        grpc.StatusCode.CANCELLED.value[0],
        grpc.StatusCode.RESOURCE_EXHAUSTED.value[0],
    }

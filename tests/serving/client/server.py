"""Model servers whose answers a test chooses. They need no TensorFlow.

    python -m tests.serving.client.server PORT AGE

runs one in a process of its own, so that a test can kill or stop it.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from goodseed_client import wire
from goodseed_client.predict_pb2 import (
    DT_BOOL,
    DT_FLOAT,
    DT_STRING,
    DataType,
    PredictRequest,
    PredictResponse,
)

VERSION = 7

Answer = Callable[[PredictRequest, grpc.ServicerContext], bytes]


def response(version: int | None = VERSION, **outputs: tuple[DataType, Sequence[Any]]) -> bytes:
    """A PredictResponse whose outputs are (type, values), each of shape [number of values]."""
    message = PredictResponse()
    if version is not None:
        message.model_spec.version.value = version
    for name, (dtype, values) in outputs.items():
        tensor = message.outputs[name]
        tensor.dtype = dtype
        tensor.tensor_shape.dim.add(size=len(values))
        fields: dict[int, Any]
        fields = {
            DT_FLOAT: tensor.float_val,
            DT_BOOL: tensor.bool_val,
            DT_STRING: tensor.string_val,
        }
        fields[dtype].extend(values)
    return message.SerializeToString()


def ages(*values: float, **outputs: tuple[DataType, Sequence[Any]]) -> bytes:
    """A good response: these ages, all valid and without an objection. `outputs` replace others."""
    good: dict[str, tuple[DataType, Sequence[Any]]] = {
        "age": (DT_FLOAT, values),
        "valid": (DT_BOOL, [True] * len(values)),
        "objection": (DT_STRING, [b""] * len(values)),
        "challenge": (DT_BOOL, [False] * len(values)),
    }
    return response(VERSION, **(good | outputs))


def as_raw_memory(values: Sequence[float]) -> bytes:
    """The values as float32 in `tensor_content`."""
    return struct.pack(f"<{len(values)}f", *values)


def everybody_is(age: float) -> Answer:
    """Gives every photo the same age."""

    def answer(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        del context
        return ages(*[age] * len(request.inputs["image"].string_val))

    return answer


def knows_labels(*known: str) -> Callable[[Answer], Answer]:
    """Refuses other labels with TensorFlow Serving's message."""

    def wrap(answer: Answer) -> Answer:
        def labelled(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
            label = request.model_spec.version_label
            if label and label not in known:
                context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"Unrecognized servable version label: {label}",
                )
            return answer(request, context)

        return labelled

    return wrap


class _Predict(grpc.GenericRpcHandler):
    def __init__(self, answer: Answer):
        self._answer = answer

    def service(
        self, details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        if details.method != wire.PREDICT:
            return None
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._answer(PredictRequest.FromString(request), context)
        )


def start(
    answer: Answer, address: str = "127.0.0.1:0", tls: grpc.ServerCredentials | None = None
) -> tuple[grpc.Server, int]:
    """Starts a server; returns it and its port."""
    server = grpc.server(
        ThreadPoolExecutor(16),
        handlers=[_Predict(answer)],
        options=[("grpc.so_reuseport", 0)],  # else two servers on one port would share the calls
    )
    port = server.add_secure_port(address, tls) if tls else server.add_insecure_port(address)
    server.start()
    return server, port


@contextmanager
def serving(answer: Answer, **options: Any) -> Iterator[str]:
    """Runs a server; yields its address."""
    server, port = start(answer, **options)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


if __name__ == "__main__":
    running, _ = start(everybody_is(float(sys.argv[2])), f"127.0.0.1:{sys.argv[1]}")
    print("ready", flush=True)
    running.wait_for_termination()

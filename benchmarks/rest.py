"""How long the REST API takes: JSON to request, tensors to JSON, and a call over HTTP.

    python -m benchmarks.rest [--photos 32] [--kilobytes 60]

The photos are random bytes, because their content does not matter. The reference for reading a
request is the least that Python can do: json.loads and base64 decoding. The model behind HTTP
answers at once. The figures are medians of 30 runs.

It appends to results/rest.csv and ends with a line of JSON.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import http.client
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from benchmarks.results import record
from serving.server import rest_json
from serving.server.core import Core
from serving.server.flags import Flags
from serving.server.rest import RestApi
from tests.ports import free_port

REPEATS = 30


class AtOnce(Core):
    """A model that takes no time."""

    inputs: ClassVar[dict[str, tf.TensorSpec]] = {"image": tf.TensorSpec([None], tf.string)}

    def __init__(self, answer: PredictResponse) -> None:
        self._answer = answer

    def signature(self, spec: ModelSpec) -> AtOnce:  # type: ignore[override]
        return self

    def predict(self, request: PredictRequest) -> PredictResponse:
        return self._answer


def median_ms(work: Callable[[], object]) -> float:
    """Median of REPEATS runs, after one to warm up."""
    work()
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1000


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=32, help="photos of a request")
    parser.add_argument("--kilobytes", type=int, default=60, help="size of a photo")
    options = parser.parse_args()
    photos = [os.urandom(options.kilobytes * 1000) for _ in range(options.photos)]
    body = json.dumps(
        {"instances": [{"b64": base64.b64encode(photo).decode()} for photo in photos]}
    ).encode()
    answer = PredictResponse()
    ages = np.random.default_rng(0).uniform(1, 90, options.photos).astype(np.float32)
    answer.outputs["age"].CopyFrom(tf.make_tensor_proto(ages))
    answer.outputs["valid"].CopyFrom(tf.make_tensor_proto([True] * options.photos))

    model = AtOnce(answer)
    flags = dataclasses.replace(Flags(), rest_api_port=free_port())
    server = RestApi(model, flags, None)
    connection = http.client.HTTPConnection("127.0.0.1", flags.rest_api_port)

    def call() -> None:
        connection.request(
            "POST", "/v1/models/m:predict", body, {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        assert response.status == 200, response.read()
        response.read()

    request_ms = median_ms(
        lambda: rest_json.predict_request(body, ModelSpec(), lambda _: model.inputs)
    )
    reference_ms = median_ms(
        lambda: [base64.b64decode(item["b64"]) for item in json.loads(body)["instances"]]
    )
    response_ms = median_ms(lambda: rest_json.predict_response(answer.outputs, "row"))
    http_ms = median_ms(call)
    connection.close()
    server.stop()
    of = f"{options.photos} photos of {options.kilobytes} KB"
    figures = [
        record(
            f"{of}: JSON to request; reference: parse and decode", request_ms, "ms", reference_ms
        ),
        record(f"{of}: tensors to JSON", response_ms, "ms"),
        record(f"{of}: a call over HTTP; reference: parse and decode", http_ms, "ms", reference_ms),
    ]
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

"""The REST API with a real model: forms of JSON, status codes, and refused callers."""

from __future__ import annotations

import base64
import http.client
import json
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis.model_pb2 import ModelSpec

from serving.server import rest, rest_json
from serving.server.errors import ServingError
from serving.server.rest import RestApi
from tests.ports import free_port
from tests.serving.server.models import config, flags_of, serving

PHOTO = {"b64": base64.b64encode(b"photo").decode()}
ANSWER = {"age": 5.0, "valid": True, "model_version": "3"}
PREDICT = "/v1/models/photos:predict"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def port(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("rest")
    models = config(photos=base)
    models.model_config_list.config[0].version_labels["stable"] = 3
    (folder / "monitoring.config").write_text("prometheus_config { enable: true }")
    found = free_port()
    with serving(
        folder,
        models,
        rest_api_port=found,
        monitoring_config_file=str(folder / "monitoring.config"),
        allow_version_labels_for_unavailable_models=True,
    ):
        yield found


def call(
    port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] = JSON
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def post(port: int, body: object, path: str = PREDICT) -> tuple[int, Any]:
    status, found = call(port, "POST", path, json.dumps(body).encode())
    return status, json.loads(found)


def get(port: int, path: str) -> tuple[int, Any]:
    status, found = call(port, "GET", path)
    return status, json.loads(found)


@pytest.mark.parametrize("target", ["", "/versions/3", "/labels/stable"])
def test_rows(port: int, target: str) -> None:
    path = f"/v1/models/photos{target}:predict"
    assert post(port, {"instances": [{"image": PHOTO}] * 2}, path) == (
        200,
        {"predictions": [ANSWER] * 2},
    )
    assert post(port, {"instances": [PHOTO, "photo"]}, path)[1] == {"predictions": [ANSWER] * 2}


@pytest.mark.parametrize("text", ["cGhvdG8", "cGhv\r\ndG8=\n", "cGhv dG8"])
def test_base64_needs_no_padding_and_may_have_line_breaks(port: int, text: str) -> None:
    assert post(port, {"instances": [{"b64": text}]}) == (200, {"predictions": [ANSWER]})


def test_columns(port: int) -> None:
    columns = {name: [value] for name, value in ANSWER.items()}
    for inputs in ({"image": [PHOTO]}, [PHOTO]):
        assert post(port, {"inputs": inputs}) == (200, {"outputs": columns})


def test_other_signatures(port: int) -> None:
    body = {"signature_name": "same", "instances": [PHOTO]}
    assert post(port, body) == (200, {"predictions": [PHOTO]})
    inputs = {"size": [[1, 2]], "swap": True}
    assert post(port, {"signature_name": "pair", "inputs": inputs}) == (
        200,
        {"outputs": {"size": [[2, 1]], "count": 1}},
    )


def test_outputs_without_a_common_number_of_rows() -> None:
    outputs = {"age": tf.make_tensor_proto([20.0, 30.0]), "count": tf.make_tensor_proto(2)}
    with pytest.raises(ServingError, match="ask with 'inputs'") as raised:
        rest_json.predict_response(outputs, "row")
    assert raised.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert rest_json.predict_response(outputs, "column") == {
        "outputs": {"age": [20.0, 30.0], "count": 2}
    }


def test_the_age_of_a_broken_photo_is_nan(port: int) -> None:
    (row,) = post(port, {"instances": [""]})[1]["predictions"]
    assert np.isnan(row["age"])
    assert row["valid"] is False


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "either 'instances' or 'inputs'"),
        ({"instances": [PHOTO], "inputs": [PHOTO]}, "either 'instances' or 'inputs'"),
        ([], "has to be a JSON object"),
        ({"instances": []}, "at least one element"),
        ({"instances": PHOTO}, "has to be a list"),
        ({"instances": [{"photo": PHOTO}]}, "instances[0] has to be an object with"),
        ({"instances": [PHOTO, {"b64": "?"}]}, "input image: "),
        ({"instances": [1]}, 'strings or {"b64": …}'),
        ({"instances": [[PHOTO]]}, "has the shape [1, 1]"),
        ({"inputs": [[PHOTO], PHOTO]}, "lists have different lengths"),
        ({"inputs": PHOTO}, "has the shape []"),
        ({"signature_name": 1, "inputs": PHOTO}, "'signature_name' has to be a string"),
        ({"signature_name": "\ud800", "inputs": PHOTO}, "'signature_name' has to be a string"),
        ({"signature_name": "x", "inputs": PHOTO}, 'signature key "x" not found'),
        ({"signature_name": "pair", "inputs": {"size": [[1.5, 2]], "swap": True}}, "type int64"),
        ({"signature_name": "pair", "inputs": {"size": [[2**70, 2]], "swap": True}}, "input size"),
        ({"signature_name": "pair", "inputs": {"size": [[1, 2]], "swap": 1}}, "type bool"),
        ({"signature_name": "pair", "instances": [1]}, "the names size, swap"),
        ({"signature_name": "text", "instances": [{"b64": "/w=="}]}, "output text is not UTF-8"),
    ],
)  # fmt: skip
def test_a_body_that_is_wrong(port: int, body: object, text: str) -> None:
    status, found = post(port, body)
    assert status == 400
    assert text in found["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"inputs":' + b"[" * 100_000])
def test_a_body_that_is_not_json(port: int, body: bytes) -> None:
    status, found = call(port, "POST", PREDICT, body)
    assert (status, json.loads(found)["error"][:15]) == (400, "JSON Parse erro")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(PHOTO),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["image", "b64"]), inner),
    max_leaves=10,
)
SPECS = {
    "image": tf.TensorSpec([None], tf.string),
    "age": tf.TensorSpec([None], tf.float32),
    "small": tf.TensorSpec([None], tf.uint8),
    "flag": tf.TensorSpec([None], tf.bool),
}


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(JSON_VALUES, st.sampled_from(["instances", "inputs"]), st.sampled_from(sorted(SPECS)))
def test_any_json_is_a_request_or_refused(value: Any, key: str, name: str) -> None:
    body = json.dumps({key: value}).encode()
    try:
        request, _ = rest_json.predict_request(
            body, ModelSpec(name="m"), lambda _: {name: SPECS[name]}
        )
    except ServingError as error:
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    else:
        assert tf.make_ndarray(request.inputs[name]).dtype == SPECS[name].dtype.as_numpy_dtype


def test_status_and_metadata(port: int) -> None:
    ok = {"error_code": "OK", "error_message": ""}
    expected = {"model_version_status": [{"version": "3", "state": "AVAILABLE", "status": ok}]}
    for target in ("", "/versions/3", "/labels/stable"):
        assert get(port, f"/v1/models/photos{target}") == (200, expected)
        status, found = get(port, f"/v1/models/photos{target}/metadata")
        assert status == 200
        assert found["model_spec"] == {"name": "photos", "signature_name": "", "version": "3"}
        signatures = found["metadata"]["signature_def"]["signature_def"]
        assert signatures["serving_default"]["inputs"]["image"]["dtype"] == "DT_STRING"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models/gone", 404),
        ("GET", "/v1/models/gone/metadata", 404),
        ("GET", "/v1/models/photos/versions/8", 404),
        ("GET", "/v1/models/photos/versions/9223372036854775808", 400),
        ("GET", "/v1/models/photos/labels/gone", 400),
        ("GET", "/v1/models/%FF", 404),
        ("GET", "/v1/models", 404),
        ("GET", "/", 404),
        ("GET", PREDICT, 405),
        ("POST", "/v1/models/photos", 405),
        ("POST", "/v1/models/photos:classify", 404),
        ("POST", "/v1/models/photos/versions/8:predict", 404),
        ("DELETE", "/v1/models/photos", 405),
    ],
)
def test_unknown_paths_and_methods(port: int, method: str, path: str, status: int) -> None:
    body = json.dumps({"instances": [PHOTO]}).encode() if method == "POST" else None
    found, text = call(port, method, path, body)
    assert found == status
    assert json.loads(text)["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:1"}, 200),
        ({"Host": "shop.example"}, 403),
        ({"Host": "127.0.0.1.shop.example"}, 403),
        ({"Host": "[x"}, 403),
        ({"Host": "localhost", "Origin": "http://localhost"}, 200),
        ({"Host": "localhost", "Origin": "http://shop.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_headers_that_a_browser_may_send(port: int, headers: dict[str, str], status: int) -> None:
    body = json.dumps({"instances": [PHOTO]}).encode()
    assert call(port, "POST", PREDICT, body, headers)[0] == status


def test_metrics(port: int) -> None:
    post(port, {"instances": [PHOTO]})
    status, page = call(port, "GET", "/monitoring/prometheus/metrics")
    assert status == 200
    assert b':tensorflow:serving:request_count{model_name="photos",status="OK"}' in page


def test_a_huge_body_is_refused(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest("POST", PREDICT)
    connection.putheader("Content-Length", str(rest.MAX_BODY_BYTES + 1))
    connection.endheaders(b"{")
    with connection.getresponse() as response:
        assert response.status == 413
    connection.close()


class Held:
    """A core whose predictions wait until `go` is set."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.go = threading.Event()

    def signature(self, _spec: Any) -> Any:
        self.asked.set()
        assert self.go.wait(60)
        raise ServingError(grpc.StatusCode.UNAVAILABLE, "held")


def test_a_call_that_takes_too_long() -> None:
    core, port = Held(), free_port()
    api = RestApi(core, flags_of(rest_api_port=port, rest_api_timeout_in_ms=50), None)  # type: ignore[arg-type]
    try:
        assert post(port, {"inputs": []})[0] == 504
    finally:
        core.go.set()
        api.stop()


def test_stop_answers_the_open_calls() -> None:
    core, port = Held(), free_port()
    api = RestApi(core, flags_of(rest_api_port=port), None)  # type: ignore[arg-type]
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(post(port, {"inputs": []})[0]))
    asking.start()
    assert core.asked.wait(60)
    stopping = threading.Thread(target=api.stop)
    stopping.start()
    core.go.set()
    asking.join()
    stopping.join()
    assert answers == [503]


def test_at_the_limit_of_open_files_the_log_stays_short(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    api = RestApi(Held(), flags_of(rest_api_port=port), None)  # type: ignore[arg-type]
    callers = [socket.socket() for _ in range(20)]
    lowest_free = os.dup(0)
    os.close(lowest_free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        for caller in callers:
            caller.connect(("127.0.0.1", port))
        while not caplog.records:
            time.sleep(0.01)
        time.sleep(0.1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for caller in callers:
            caller.close()
        api.stop()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) < 5  # one a second; there were thousands
    assert lines[0].endswith("Too many open files")


def test_an_address_in_use(port: int) -> None:
    with pytest.raises(ServingError, match=f"HTTP Server at 127.0.0.1:{port}: "):
        RestApi(Held(), flags_of(rest_api_port=port), None)  # type: ignore[arg-type]

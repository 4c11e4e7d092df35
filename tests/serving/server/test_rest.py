"""The REST API over real sockets: URLs, codes and bodies as there; clients that misbehave."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef, TensorInfo
from tensorflow_serving.apis.classification_pb2 import (
    ClassificationRequest,
    ClassificationResponse,
)
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    SignatureDefMap,
)
from tensorflow_serving.apis.get_model_status_pb2 import (
    GetModelStatusRequest,
    GetModelStatusResponse,
)
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.regression_pb2 import RegressionRequest, RegressionResponse

from serving.server import metrics, rest
from serving.server.core import Core
from serving.server.errors import ServingError
from serving.server.flags import parse
from serving.server.server import Server

METRICS = "/monitoring/prometheus/metrics"


class HalfPlusTwo(Core):
    """x/2 + 2 for a model named half, without TensorFlow; slow where `hold` is cleared."""

    def __init__(self) -> None:
        self.hold = threading.Event()
        self.hold.set()
        self.specs: list[ModelSpec] = []

    def _check(self, spec: ModelSpec) -> None:
        self.specs.append(spec)
        self.hold.wait(20)
        if spec.name == "broken":
            raise ZeroDivisionError
        if spec.name in grpc.StatusCode.__members__:
            raise ServingError(grpc.StatusCode[spec.name], f"{spec.name} said")
        if spec.name != "half":
            raise ServingError(
                grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {spec.name}"
            )

    def signature(self, model_spec: ModelSpec, signature_name: str) -> SignatureDef:
        self._check(model_spec)
        signature = SignatureDef(method_name="tensorflow/serving/predict")
        signature.inputs["x"].dtype = tf.float32.as_datatype_enum
        signature.outputs["y"].CopyFrom(TensorInfo(dtype=tf.float32.as_datatype_enum, name="y:0"))
        return signature

    def predict(self, request: PredictRequest) -> PredictResponse:
        self._check(request.model_spec)
        x = tf.make_ndarray(request.inputs["x"])
        return PredictResponse(outputs={"y": tf.make_tensor_proto(x / np.float32(2) + 2)})

    def classify(self, request: ClassificationRequest) -> ClassificationResponse:
        self._check(request.model_spec)
        response = ClassificationResponse()
        for _ in request.input.example_list.examples:
            response.result.classifications.add().classes.add(label="adult", score=0.75)
        return response

    def regress(self, request: RegressionRequest) -> RegressionResponse:
        self._check(request.model_spec)
        response = RegressionResponse()
        for example in request.input.example_list.examples:
            x = example.features.feature["x"].float_list.value[0]
            response.result.regressions.add(value=x / 2 + 2)
        return response

    def get_model_status(self, request: GetModelStatusRequest) -> GetModelStatusResponse:
        self._check(request.model_spec)
        response = GetModelStatusResponse()
        response.model_version_status.add(version=123, state="AVAILABLE").status.SetInParent()
        return response

    def get_model_metadata(self, request: GetModelMetadataRequest) -> GetModelMetadataResponse:
        signatures = SignatureDefMap()
        signatures.signature_def["serving_default"].CopyFrom(
            self.signature(request.model_spec, "serving_default")
        )
        response = GetModelMetadataResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = 123
        response.metadata["signature_def"].Pack(signatures)
        return response


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def core() -> HalfPlusTwo:
    return HalfPlusTwo()


@pytest.fixture(scope="module")
def server(core: HalfPlusTwo) -> Iterator[rest.RestServer]:
    running = rest.start(core, free_port(), 30_000, "127.0.0.1", METRICS, num_threads=4)
    yield running
    running.stop()


def ask(
    server: rest.RestServer, method: str, path: str, body: bytes | str = b"", **headers: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request(
            method, path, body, {name.replace("_", "-"): value for name, value in headers.items()}
        )
        response = connection.getresponse()
        return response.status, response.read(), response.headers
    finally:
        connection.close()


def answer(server: rest.RestServer, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    text = body if isinstance(body, str | bytes) else json.dumps(body) if body else b""
    status, found, headers = ask(server, method, path, text)
    assert headers["Content-Type"] == "application/json"
    return status, json.loads(found)


ROW = {"instances": [1.0, 2.0, 5.0]}


@pytest.mark.parametrize(
    ("target", "version", "label"),
    [("", 0, ""), ("/versions/12", 12, ""), ("/labels/stable", 0, "stable")],
)
def test_predict(
    server: rest.RestServer, core: HalfPlusTwo, target: str, version: int, label: str
) -> None:
    path = f"/v1/models/half{target}:predict"
    assert answer(server, "POST", path, ROW) == (200, {"predictions": [2.5, 3.0, 4.5]})
    assert (core.specs[-1].name, core.specs[-1].signature_name) == ("half", "")
    assert (core.specs[-1].version.value, core.specs[-1].version_label) == (version, label)
    body = {"inputs": {"x": [[3]]}, "signature_name": "other"}
    assert answer(server, "POST", path, body) == (200, {"outputs": [[3.5]]})
    assert core.specs[-1].signature_name == "other"


def test_classify_and_regress(server: rest.RestServer) -> None:
    body = {"examples": [{"x": 1.0}, {"x": 2.0}]}
    assert answer(server, "POST", "/v1/models/half:regress", body) == (
        200,
        {"results": [2.5, 3.0]},
    )
    assert answer(server, "POST", "/v1/models/half:classify", body) == (
        200,
        {"results": [[["adult", 0.75]]] * 2},
    )


OK = {"error_code": "OK", "error_message": ""}


def test_status(server: rest.RestServer, core: HalfPlusTwo) -> None:
    expected = {"model_version_status": [{"version": "123", "state": "AVAILABLE", "status": OK}]}
    for target in ("", "/versions/123", "/labels/stable"):
        assert answer(server, "GET", f"/v1/models/half{target}") == (200, expected)
    assert core.specs[-1].version_label == "stable"


def test_metadata(server: rest.RestServer) -> None:
    status, found = answer(server, "GET", "/v1/models/half/versions/123/metadata")
    assert status == 200
    assert found["model_spec"] == {"name": "half", "signature_name": "", "version": "123"}
    signature = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert signature["outputs"]["y"]["name"] == "y:0"
    assert signature["method_name"] == "tensorflow/serving/predict"


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/v1/models/gone:predict", 404, "Could not find any versions of model gone"),
        ("GET", "/v1/models/gone", 404, "Could not find any versions of model gone"),
        ("GET", "/v1/models/a%2Fb%20%C3%A4", 404, "Could not find any versions of model a/b ä"),
        ("GET", "/v1/models/half?x=1", 404, "Could not find any versions of model half?x=1"),
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/half:predict", 400, "Malformed request: GET /v1/models/half:predict"),
        ("GET", "/v1/model/half", 400, "Malformed request: GET /v1/model/half"),
        ("POST", "/v1/models/half", 400, "Malformed request: POST /v1/models/half"),
        ("POST", "/v1/models/half:train", 400, "Malformed request: POST /v1/models/half:train"),
        (
            "POST",
            "/v1/models/half:predict?x=1",
            400,
            "Malformed request: POST /v1/models/half:predict?x=1",
        ),
        (
            "POST",
            "/v1/models/half:PREDICT",
            400,
            "Malformed request: POST /v1/models/half:PREDICT",
        ),
        (
            "GET",
            "/v1/models/half/versions/9223372036854775808",
            400,
            "Failed to convert version: 9223372036854775808 to numeric.",
        ),
        (
            "GET",
            "/v1/models/half/versions/x",
            400,
            "Malformed request: GET /v1/models/half/versions/x",
        ),
        ("PUT", "/v1/models/half", 400, "Malformed request: PUT /v1/models/half"),
        ("DELETE", "/v1/models/half", 400, "Malformed request: DELETE /v1/models/half"),
        ("PATCH", "/v1/models/half", 400, "Malformed request: PATCH /v1/models/half"),
        ("OPTIONS", "/v1/models/half", 400, "Malformed request: OPTIONS /v1/models/half"),
        ("GET", "/", 404, "Not Found"),
        ("GET", "/v2/models/half", 404, "Not Found"),
        ("POST", "/v1/models/broken:predict", 500, "Internal error; see the log"),
    ],
)
def test_what_is_not_there(
    server: rest.RestServer, method: str, path: str, status: int, message: str
) -> None:
    body = ROW if method == "POST" else None
    assert answer(server, method, path, body) == (status, {"error": message})


def test_the_url_may_have_any_case(server: rest.RestServer) -> None:
    assert answer(server, "POST", "/V1/Models/half:predict", ROW)[0] == 200


def test_a_body_that_is_wrong(server: rest.RestServer) -> None:
    path = "/v1/models/half:predict"
    for body, message in (
        ("", "JSON Parse error: The document is empty"),
        ("{", "JSON Parse error: "),
        ('{"instances": ["a"]}', "Failed to process element: 0 of 'instances' list."),
        ('{"instances": ' + "[" * 100_000, "JSON Parse error: nested too deep"),
    ):
        status, found = answer(server, "POST", path, body)
        assert status == 400
        assert found["error"].startswith(message)


def test_codes(server: rest.RestServer) -> None:
    found = {
        code.name: answer(server, "POST", f"/v1/models/{code.name}:predict", ROW)
        for code in grpc.StatusCode
        if code is not grpc.StatusCode.OK
    }
    assert {name: status for name, (status, _) in found.items()} == {
        "CANCELLED": 499,
        "UNKNOWN": 500,
        "INVALID_ARGUMENT": 400,
        "DEADLINE_EXCEEDED": 504,
        "NOT_FOUND": 404,
        "ALREADY_EXISTS": 409,
        "PERMISSION_DENIED": 403,
        "UNAUTHENTICATED": 401,
        "RESOURCE_EXHAUSTED": 429,
        "FAILED_PRECONDITION": 400,
        "ABORTED": 409,
        "OUT_OF_RANGE": 400,
        "UNIMPLEMENTED": 501,
        "INTERNAL": 500,
        "UNAVAILABLE": 503,
        "DATA_LOSS": 500,
    }
    assert found["ABORTED"][1] == {"error": "ABORTED said"}


def test_head_has_no_body(server: rest.RestServer) -> None:
    status, body, _ = ask(server, "HEAD", "/v1/models/half")
    assert (status, body) == (400, b"")


def test_bodies_may_be_compressed_or_in_chunks(server: rest.RestServer) -> None:
    path = "/v1/models/half:predict"
    packed = gzip.compress(json.dumps(ROW).encode())
    assert ask(server, "POST", path, packed, Content_Encoding="gzip")[0] == 200
    status, found, _ = ask(server, "POST", path, b"no gzip", Content_Encoding="gzip")
    assert status == 400
    assert json.loads(found)["error"].startswith("Malformed request: 400, message:")
    chunks: Any = iter([b'{"instances": ', b"[1.0]}"])
    assert ask(server, "POST", path, chunks)[0] == 200


def test_a_connection_is_kept(server: rest.RestServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    sockets = set()
    for body, status in ((json.dumps(ROW), 200), ("{", 400), (json.dumps(ROW), 200)):
        connection.request("POST", "/v1/models/half:predict", body)
        response = connection.getresponse()
        response.read()
        assert response.status == status
        sockets.add(connection.sock)
    assert len(sockets) == 1
    connection.close()


@pytest.mark.parametrize("packed", [False, True])
def test_a_huge_body_is_refused(
    core: HalfPlusTwo, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(rest, "MAX_BODY_BYTES", 100_000)
    server = rest.start(core, free_port(), 1000, "127.0.0.1", None)
    try:
        body = b" " * 1_000_000
        headers = {"Content-Encoding": "gzip"} if packed else {}
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.request(
            "POST", "/v1/models/half:predict", gzip.compress(body) if packed else body, headers
        )
        response = connection.getresponse()
        assert response.status == 413
        assert json.loads(response.read()) == {"error": "Request is larger than 100000 bytes"}
        connection.close()
        assert answer(server, "POST", "/v1/models/half:predict", ROW)[0] == 200
    finally:
        server.stop()


def test_a_request_that_takes_too_long(core: HalfPlusTwo) -> None:
    server = rest.start(core, free_port(), 200, "127.0.0.1", None, num_threads=2)
    try:
        core.hold.clear()
        expected = 504, {"error": "Timed out waiting for notification"}
        with ThreadPoolExecutor(6) as clients:  # more than threads: those that wait time out, too
            asked = [
                clients.submit(answer, server, "POST", "/v1/models/half:predict", ROW)
                for _ in range(6)
            ]
            assert [each.result() for each in asked] == [expected] * 6
        core.hold.set()
        assert answer(server, "POST", "/v1/models/half:predict", ROW)[0] == 200
    finally:
        core.hold.set()
        server.stop()


def test_stop_answers_what_was_asked(core: HalfPlusTwo) -> None:
    server = rest.start(core, free_port(), 20_000, "127.0.0.1", None)
    begun = b"POST /v1/models/half:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
    idle[1].sendall(begun)
    seen = len(core.specs)
    core.hold.clear()
    try:
        with ThreadPoolExecutor(2) as pool:
            asked = pool.submit(answer, server, "POST", "/v1/models/half:predict", ROW)
            while len(core.specs) == seen:
                time.sleep(0.01)
            stopped = pool.submit(server.stop)
            with pytest.raises(OSError):
                while True:
                    socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
                    time.sleep(0.01)
            assert not stopped.done()
            core.hold.set()
            assert asked.result()[0] == 200
            stopped.result(timeout=20)
    finally:
        core.hold.set()
        for connection in idle:
            connection.close()


def test_an_address_that_cannot_be_had(server: rest.RestServer, core: HalfPlusTwo) -> None:
    expected = f"Failed to start HTTP Server at 127.0.0.1:{server.port}: Address already in use"
    with pytest.raises(ServingError, match=expected):
        rest.start(core, server.port, 1000, "127.0.0.1", None)
    for host, port in (("127.0.0.1", 70_000), ("no.such.host.invalid", server.port)):
        with pytest.raises(ServingError, match="Failed to start HTTP Server at"):
            rest.start(core, port, 1000, host, None)


def test_browsers_from_elsewhere(core: HalfPlusTwo) -> None:
    server = rest.start(core, free_port(), 1000, "127.0.0.1", None, enable_cors=True)
    try:
        for method, status in (("OPTIONS", 200), ("GET", 200)):
            found, _, headers = ask(server, method, "/v1/models/half")
            assert found == status
            assert headers["Access-Control-Allow-Origin"] == "*"
            assert headers["Access-Control-Allow-Methods"] == "POST, GET"
            assert headers["Access-Control-Allow-Headers"] == "Content-Type"
    finally:
        server.stop()


def test_metrics_page(server: rest.RestServer) -> None:
    before = _counts("half")
    answer(server, "POST", "/v1/models/half:predict", ROW)
    answer(server, "POST", "/v1/models/half:predict", "{")
    status, page, headers = ask(server, "GET", METRICS)
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    assert b'request_latency_count{model_name="half",API="predict",entrypoint="REST"}' in page
    after = _counts("half")
    assert after["OK"] - before.get("OK", 0) == 1
    assert after["INVALID_ARGUMENT"] - before.get("INVALID_ARGUMENT", 0) == 1
    status, page, _ = ask(server, "GET", f"{METRICS}?x=1")
    assert status == 400
    assert page.decode() == f"Unexpected path: {METRICS}?x=1. Should be {METRICS}"


def _counts(model: str) -> dict[str, int]:
    start = f':tensorflow:serving:request_count{{model_name="{model}",status="'
    lines = (line for line in metrics.render().splitlines() if line.startswith(start))
    return {line.removeprefix(start).split('"')[0]: int(line.rsplit(" ")[-1]) for line in lines}


def test_no_metrics_page_unless_asked_for(core: HalfPlusTwo) -> None:
    server = rest.start(core, free_port(), 1000, "127.0.0.1", None)
    try:
        assert answer(server, "GET", METRICS) == (404, {"error": "Not Found"})
    finally:
        server.stop()


# ---- clients that misbehave


def test_slow_and_silent_clients_stop_nobody(
    core: HalfPlusTwo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "_BODY_SECONDS", 1.0)
    monkeypatch.setattr(rest, "_IDLE_SECONDS", 1.0)
    monkeypatch.setattr(rest, "_LINGER_SECONDS", 1.0)
    server = rest.start(core, free_port(), 1000, "127.0.0.1", None, num_threads=1)
    begun = [
        b"",
        b"POST /v1/models/half:predict HTTP/1.1\r\nHost: x\r\n",
        b"POST /v1/models/half:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    ]
    slow = []
    try:
        for sent in begun * 50:
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
            connection.sendall(sent)
            slow.append(connection)
        assert answer(server, "POST", "/v1/models/half:predict", ROW)[0] == 200
        received = [_read_all(connection) for connection in slow]
        assert all(text.startswith(b"HTTP/1.1 408") for text in received[2::3])
        assert not any(received[0::3])  # hung up on
        assert answer(server, "POST", "/v1/models/half:predict", ROW)[0] == 200
    finally:
        for connection in slow:
            connection.close()
        server.stop()


def _read_all(connection: socket.socket) -> bytes:
    found = b""
    while chunk := connection.recv(65536):
        found += chunk
    return found


def send_raw(server: rest.RestServer, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return _read_all(connection)
        except ConnectionError:  # it may hang up before it has read all of that
            return b""


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",  # gRPC
        b"BREW /v1/models/half HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/models/half HTTP/1.1\r\n" + b"A: b\r\n" * 10_000 + b"\r\n",
        b"POST /v1/models/half:predict HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST /v1/models/half:predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/models/half:predict HTTP/1.1\r\nHost: x\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/models/\xff%ff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT half:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"TRACE /v1/models/half HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_garbage_is_a_clients_fault(server: rest.RestServer, data: bytes) -> None:
    received = send_raw(server, data)
    assert received == b"" or received.split(b" ")[1][:1] == b"4", received[:200]
    assert answer(server, "POST", "/v1/models/half:predict", ROW)[0] == 200


unhurried = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@unhurried
@given(st.binary(), st.sampled_from(["predict", "classify", "regress"]))
def test_garbage_bodies(server: rest.RestServer, body: bytes, method: str) -> None:
    status, found = answer(server, "POST", f"/v1/models/half:{method}", body or b" ")
    assert status == 400
    assert found["error"].startswith("JSON ")


@unhurried
@given(st.binary(max_size=200))
def test_garbage_requests(server: rest.RestServer, data: bytes) -> None:
    received = send_raw(server, b"POST /v1/" + data)
    assert received == b"" or received.split(b" ")[1][:1] == b"4", received[:200]


def test_the_server_is_alive_after_all_that(server: rest.RestServer) -> None:
    assert answer(server, "POST", "/v1/models/half:predict", ROW)[0] == 200


# ---- with the real core


class Half(tf.Module):
    """x/2 + 2 in all the forms that the API has, and strings."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def half(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x / 2 + 2}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def regress(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        features = {"x": tf.io.FixedLenFeature([], tf.float32)}
        return {"outputs": tf.io.parse_example(inputs, features)["x"] / 2 + 2}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        x = self.regress(inputs)["outputs"]
        classes = tf.tile([["half", "whole"]], [tf.size(x), 1])
        return {"classes": classes, "scores": tf.stack([x, 2 * x], axis=1)}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="image"),
            tf.TensorSpec([None, 2], tf.int64, name="size"),
        ]
    )
    def strings(self, image: tf.Tensor, size: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            "length": tf.strings.length(image),
            "same_bytes": image,
            "valid": size[:, 0] < size[:, 1],
        }


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rest.RestServer]:
    folder = tmp_path_factory.mktemp("real")
    module = Half()
    tf.saved_model.save(
        module,
        str(folder / "half" / "7"),
        signatures={
            "serving_default": module.half,
            "regress": module.regress,
            "classify": module.classify,
            "strings": module.strings,
        },
    )
    (folder / "monitoring").write_text("prometheus_config { enable: true, path: '/metrics' }")
    port = free_port()
    flags = [
        f"--port={free_port()}",
        f"--rest_api_port={port}",
        "--model_name=half",
        f"--model_base_path={folder / 'half'}",
        f"--monitoring_config_file={folder / 'monitoring'}",
    ]
    with Server(parse(flags)) as server:
        server.start()
        assert server._rest is not None
        yield server._rest


def test_predict_for_real(real: rest.RestServer) -> None:
    for target in ("", "/versions/7"):
        path = f"/v1/models/half{target}:predict"
        assert answer(real, "POST", path, ROW) == (200, {"predictions": [2.5, 3.0, 4.5]})
    body: dict[str, Any] = {
        "signature_name": "strings",
        "instances": [
            {"image": {"b64": "/9j/4A=="}, "size": [1, 2]},
            {"image": "plain", "size": [3, 2]},
        ],
    }
    assert answer(real, "POST", "/v1/models/half:predict", body) == (
        200,
        {
            "predictions": [
                {"length": 4, "same_bytes": {"b64": "/9j/4A=="}, "valid": True},
                {"length": 5, "same_bytes": {"b64": "cGxhaW4="}, "valid": False},
            ]
        },
    )
    body = {
        "signature_name": "strings",
        "inputs": {"image": [{"b64": "/9j/4A=="}], "size": [[1, 2]]},
    }
    assert answer(real, "POST", "/v1/models/half:predict", body) == (
        200,
        {"outputs": {"length": [4], "same_bytes": [{"b64": "/9j/4A=="}], "valid": [True]}},
    )


def test_classify_and_regress_for_real(real: rest.RestServer) -> None:
    body: dict[str, Any] = {"signature_name": "regress", "examples": [{"x": 1.0}, {"x": [5.0]}]}
    assert answer(real, "POST", "/v1/models/half:regress", body) == (200, {"results": [2.5, 4.5]})
    body = {"signature_name": "classify", "context": {"x": 2.0}, "examples": [{}]}
    assert answer(real, "POST", "/v1/models/half:classify", body) == (
        200,
        {"results": [[["half", 3.0], ["whole", 6.0]]]},
    )


def test_status_and_metadata_for_real(real: rest.RestServer) -> None:
    expected = {"version": "7", "state": "AVAILABLE", "status": OK}
    assert answer(real, "GET", "/v1/models/half") == (200, {"model_version_status": [expected]})
    status, found = answer(real, "GET", "/v1/models/half/metadata")
    assert status == 200
    assert found["model_spec"] == {"name": "half", "signature_name": "", "version": "7"}
    signatures = found["metadata"]["signature_def"]["signature_def"]
    assert signatures["strings"]["inputs"]["size"]["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}],
        "unknown_rank": False,
    }


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("GET", "/v1/models/gone", None, 404, "Could not find any versions of model gone"),
        (
            "GET",
            "/v1/models/half/versions/8",
            None,
            404,
            "Could not find version 8 of model half",
        ),
        (
            "POST",
            "/v1/models/gone:predict",
            ROW,
            404,
            "Servable not found for request: Latest(gone)",
        ),
        (
            "POST",
            "/v1/models/half/versions/8:predict",
            ROW,
            404,
            "Servable not found for request: Specific(half, 8)",
        ),
        (
            "POST",
            "/v1/models/half:predict",
            {"signature_name": "gone", **ROW},
            400,
            'Serving signature name: "gone" not found in signature def',
        ),
    ],
)  # fmt: skip
def test_errors_for_real(
    real: rest.RestServer, method: str, path: str, body: Any, status: int, message: str
) -> None:
    assert answer(real, method, path, body) == (status, {"error": message})


def test_an_unknown_label_for_real(real: rest.RestServer) -> None:
    status, found = answer(real, "POST", "/v1/models/half/labels/stable:predict", ROW)
    assert status in (400, 404)
    assert "stable" in found["error"]


def test_metrics_for_real(real: rest.RestServer) -> None:
    answer(real, "POST", "/v1/models/half:predict", ROW)
    page = ask(real, "GET", "/metrics")[1].decode()
    assert (
        ':tensorflow:cc:saved_model:load_attempt_count{model_path="half/7",status="success"} 1'
        in page
    )
    assert ':tensorflow:serving:runtime_latency_count{model_name="half",API="Predict"' in page
    assert ':request_count{model_name="half",status="OK"}' in page


@unhurried
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["x", "b64"]), inner),
        max_leaves=10,
    ),
    st.sampled_from(["instances", "inputs", "examples"]),
    st.sampled_from(["predict", "classify", "regress"]),
    st.sampled_from(["", "regress", "classify", "strings"]),
)
def test_any_json_for_real(
    real: rest.RestServer, value: Any, key: str, method: str, signature: str
) -> None:
    body = {"signature_name": signature, key: value}
    status, found = answer(real, "POST", f"/v1/models/half:{method}", body)
    assert status == 200 or (status in (400, 501) and found["error"]), found


@pytest.mark.parametrize("depth", [40, 70, 300, 5000])
def test_deep_lists_for_real(real: rest.RestServer, depth: int) -> None:
    for inner in ("1", "1, [2]", "{}"):
        body = '{"inputs": ' + "[" * depth + inner + "]" * depth + "}"
        status, found = answer(real, "POST", "/v1/models/half:predict", body)
        assert status == 400 or depth < 64, found

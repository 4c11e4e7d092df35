"""The REST API of the model server, and the page of its metrics.

URLs, methods, bodies and status codes as TensorFlow Serving has them: https://www.tensorflow.org/
tfx/serving/api_rest, tensorflow_serving/model_servers/http_rest_api_handler.cc and http_server.cc.
aiohttp speaks HTTP, in a thread of its own with an event loop, so that slow clients cost a socket
each and no thread; threads of a pool do the JSON and wait for the model.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from urllib.parse import unquote

import grpc
from aiohttp import web
from google.protobuf import json_format
from google.protobuf.message import Message
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.regression_pb2 import RegressionRequest

from serving.server import json_tensor, metrics
from serving.server.core import Core
from serving.server.errors import ServingError, invalid_argument

# Above a batch of the largest photos that a camera makes, in base64. There, bodies have no bound.
MAX_BODY_BYTES = 128 * 2**20

# How long `stop` waits for answers; Kubernetes kills after 30 s.
_DRAIN_SECONDS = 25.0

# A body that has not come for so long comes no more.
_BODY_SECONDS = 30.0

# A connection without a whole request for so long is closed; proxies tend to close theirs earlier.
_IDLE_SECONDS = 75.0

# Who is refused before the end of the body has so long to read why.
_LINGER_SECONDS = 3.0

_log = logging.getLogger(__name__)

# What aiohttp has to tell with a traceback is that a client sent garbage: no news for the log.
_http_log = logging.getLogger(f"{__name__}.http")
_http_log.setLevel(logging.CRITICAL)

_API = re.compile(r"/v1/.*", re.IGNORECASE | re.DOTALL)
_MODEL = r"/v1/models{}(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PREDICTION = re.compile(
    _MODEL.format(r"/(?P<name>[^/:]+)") + r":(?P<method>classify|regress|predict)",
    re.IGNORECASE | re.ASCII,
)
_STATUS = re.compile(
    _MODEL.format(r"(?:/(?P<name>[^/:]+))?") + r"(?:/(?P<part>metadata))?",
    re.IGNORECASE | re.ASCII,
)

_CODES = grpc.StatusCode
_HTTP_STATUS = {
    _CODES.OK: 200,
    _CODES.CANCELLED: 499,
    _CODES.UNKNOWN: 500,
    _CODES.INVALID_ARGUMENT: 400,
    _CODES.DEADLINE_EXCEEDED: 504,
    _CODES.NOT_FOUND: 404,
    _CODES.ALREADY_EXISTS: 409,
    _CODES.PERMISSION_DENIED: 403,
    _CODES.RESOURCE_EXHAUSTED: 429,
    _CODES.FAILED_PRECONDITION: 400,
    _CODES.ABORTED: 409,
    _CODES.OUT_OF_RANGE: 400,
    _CODES.UNIMPLEMENTED: 501,
    _CODES.INTERNAL: 500,
    _CODES.UNAVAILABLE: 503,
    _CODES.DATA_LOSS: 500,
    _CODES.UNAUTHENTICATED: 401,
}

_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}


def start(
    core: Core,
    port: int,
    timeout_ms: int,
    host: str,
    metrics_path: str | None,
    *,
    num_threads: int | None = None,
    enable_cors: bool = False,
) -> RestServer:
    """Starts to answer REST requests, in threads of its own.

    Args:
        core: what answers; it is called from several threads at once.
        port: on `host`.
        timeout_ms: a request that takes longer gets 504; 0 or less for no bound.
        host: the address to listen on, "0.0.0.0" or "::" for all.
        metrics_path: the URL path of the metrics, None for no such page.
        num_threads: requests answered at once; four times the CPUs by default, as there.
        enable_cors: whether pages from elsewhere may call, in a browser.

    Raises:
        ServingError: UNAVAILABLE, where the address can't be had.
    """
    pool = ThreadPoolExecutor(max(1, num_threads or 4 * (os.cpu_count() or 1)), "rest")
    service = _Service(core, pool, timeout_ms, metrics_path, _CORS if enable_cors else {})
    return RestServer(service, host, port)


class RestServer:
    """A running server.

    Attributes:
        port: where it listens.
    """

    def __init__(self, service: _Service, host: str, port: int) -> None:
        self.port = port
        self._pool = service.pool
        self._loop = asyncio.new_event_loop()
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", service.handle)
        app.on_shutdown.append(service.give_up_bodies)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_http_log,
            keepalive_timeout=_IDLE_SECONDS,
            lingering_time=_LINGER_SECONDS,
            shutdown_timeout=_DRAIN_SECONDS,
        )
        self._thread = threading.Thread(target=self._loop.run_forever, name="rest", daemon=True)
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._listen(host), self._loop).result()
        except (OSError, OverflowError) as error:  # the latter for a port above 65535
            self.stop()
            number = getattr(error, "errno", None) or 0
            reason = os.strerror(number) if number > 0 else str(error)
            raise ServingError(
                _CODES.UNAVAILABLE, f"Failed to start HTTP Server at {host}:{port}: {reason}"
            ) from error

    async def _listen(self, host: str) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, host.strip("[]"), self.port).start()  # [::1], too

    def stop(self) -> None:
        """Takes no more requests, answers those that it has whole, and ends."""
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Service:
    """HTTP requests → answers."""

    def __init__(
        self,
        core: Core,
        pool: ThreadPoolExecutor,
        timeout_ms: int,
        metrics_path: str | None,
        headers: dict[str, str],
    ) -> None:
        self.pool = pool
        self._core = core
        self._timeout = timeout_ms / 1000 if timeout_ms > 0 else None
        self._metrics_path = metrics_path
        self._headers = headers
        self._bodies: set[asyncio.Timeout] = set()

    async def handle(self, request: web.Request) -> web.Response:
        # As it was sent, with its query and percent signs; bytes that are no UTF-8 are replaced.
        path = str(request.rel_url).encode(errors="surrogateescape").decode(errors="replace")
        if self._metrics_path is not None and path.split("?")[0] == self._metrics_path:
            return self._metrics(path)
        if not _API.fullmatch(path):
            return self._response(404, json_tensor.error_response("Not Found"))
        if request.method == "OPTIONS" and self._headers:
            return web.Response(headers=self._headers)
        try:
            body = await self._read(request)
        except TimeoutError:
            return self._response(408, json_tensor.error_response("Request Timeout"))
        except web.RequestPayloadError as error:
            return self._response(400, json_tensor.error_response(f"Malformed request: {error}"))
        except web.HTTPRequestEntityTooLarge:
            message = f"Request is larger than {MAX_BODY_BYTES} bytes"
            return self._response(413, json_tensor.error_response(message))
        return await self._answer(request.method, path, body)

    async def _read(self, request: web.Request) -> bytes:
        async with asyncio.timeout(_BODY_SECONDS) as limit:
            self._bodies.add(limit)
            try:
                return await request.read()
            finally:
                self._bodies.discard(limit)

    async def give_up_bodies(self, _: web.Application) -> None:
        """Ends the wait for bodies that have not come yet: who stops answers what it has."""
        for limit in self._bodies:
            limit.reschedule(asyncio.get_running_loop().time())

    async def _answer(self, method: str, path: str, body: bytes) -> web.Response:
        started = time.perf_counter()
        called = None
        try:
            called = _parse_call(method, path)
            answering = asyncio.get_running_loop().run_in_executor(
                self.pool, _answer, self._core, called, body
            )
            code, text = _CODES.OK, await asyncio.wait_for(answering, self._timeout)
        except ServingError as error:
            code, text = error.code, json_tensor.error_response(error.message)
        except RecursionError:
            code = _CODES.INVALID_ARGUMENT
            text = json_tensor.error_response("JSON Parse error: nested too deep")
        except TimeoutError:
            code = _CODES.DEADLINE_EXCEEDED
            text = json_tensor.error_response("Timed out waiting for notification")
        except Exception:
            _log.exception("%s %s failed", method, path)
            code, text = _CODES.INTERNAL, json_tensor.error_response("Internal error; see the log")
        if called and called.method in _PREDICTIONS:
            seconds = time.perf_counter() - started
            metrics.observe_request(called.spec.name, called.method, code.name, seconds, "REST")
        return self._response(_HTTP_STATUS[code], text)

    def _response(self, status: int, body: bytes) -> web.Response:
        return web.Response(
            status=status, body=body, content_type="application/json", headers=self._headers
        )

    def _metrics(self, path: str) -> web.Response:
        if path != self._metrics_path:
            text = f"Unexpected path: {path}. Should be {self._metrics_path}"
            return web.Response(status=400, text=text)
        headers = {"Content-Type": metrics.CONTENT_TYPE}
        return web.Response(body=metrics.render().encode(), headers=headers)


class _Call(NamedTuple):
    """What an URL asks: `method` is predict, classify, regress, metadata or status."""

    method: str
    spec: ModelSpec


def _parse_call(method: str, path: str) -> _Call:
    """Reads method and URL; raises ServingError where there is no such thing."""
    pattern = {"POST": _PREDICTION, "GET": _STATUS}.get(method)
    found = pattern.fullmatch(path) if pattern else None
    if not found:
        raise invalid_argument(f"Malformed request: {method} {path}")
    asked = found.groupdict()
    if not asked["name"]:
        raise invalid_argument("Missing model name in request.")
    spec = ModelSpec(name=unquote(asked["name"]))
    if asked["version"]:
        digits = asked["version"].lstrip("0") or "0"
        if len(digits) > 19 or int(digits) >= 2**63:
            raise invalid_argument(f"Failed to convert version: {asked['version']} to numeric.")
        spec.version.value = int(digits)
    elif asked["label"]:
        spec.version_label = unquote(asked["label"])
    if method == "GET":
        return _Call("metadata" if asked["part"] else "status", spec)
    if asked["method"] not in _PREDICTIONS:  # its case: the URL alone may have any
        raise invalid_argument(f"Malformed request: {method} {path}")
    return _Call(asked["method"], spec)


def _answer(core: Core, called: _Call, body: bytes) -> bytes:
    if called.method in _PREDICTIONS:
        return _PREDICTIONS[called.method](core, called.spec, body)
    if called.method == "metadata":
        return _metadata(core, called.spec)
    status = core.get_model_status(GetModelStatusRequest(model_spec=called.spec))
    return json.dumps(_as_dict(status), indent=1).encode()


def _predict(core: Core, spec: ModelSpec, body: bytes) -> bytes:
    request = PredictRequest(model_spec=spec)
    form = json_tensor.fill_predict_request(
        body, request, lambda name: core.signature(spec, name).inputs
    )
    return json_tensor.predict_response(core.predict(request).outputs, form)


def _classify(core: Core, spec: ModelSpec, body: bytes) -> bytes:
    request = ClassificationRequest(model_spec=spec)
    json_tensor.fill_examples(body, request)
    return json_tensor.classify_response(core.classify(request).result)


def _regress(core: Core, spec: ModelSpec, body: bytes) -> bytes:
    request = RegressionRequest(model_spec=spec)
    json_tensor.fill_examples(body, request)
    return json_tensor.regress_response(core.regress(request).result)


_PREDICTIONS: dict[str, Callable[[Core, ModelSpec, bytes], bytes]] = {
    "predict": _predict,
    "classify": _classify,
    "regress": _regress,
}


def _metadata(core: Core, spec: ModelSpec) -> bytes:
    request = GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
    response = core.get_model_metadata(request)
    signatures = SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    shown = {
        "model_spec": _as_dict(response.model_spec),
        "metadata": {"signature_def": _as_dict(signatures)},
    }
    return json.dumps(shown, indent=1).encode()


def _as_dict(message: Message) -> dict[str, object]:
    found: dict[str, object] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found

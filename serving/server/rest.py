"""The REST API, and the page of the metrics.

URLs and status codes are TensorFlow Serving's: https://www.tensorflow.org/tfx/serving/api_rest.
HTTP runs in one thread with an event loop; predictions run in threads of a pool.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote, urlsplit

import grpc
from aiohttp import web
from google.protobuf import json_format
from google.protobuf.message import Message
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec

from serving.server import metrics, rest_json
from serving.server.core import METADATA_FIELD, Core
from serving.server.errors import ServingError, invalid_argument

# More than a batch of the largest photos that a camera makes, in base64.
MAX_BODY_BYTES = 128 * 2**20
BODY_SECONDS = 30.0  # for a body to come
IDLE_SECONDS = 75.0  # until an unused connection is closed; proxies close theirs earlier

_log = logging.getLogger(__name__)

# aiohttp logs each malformed request with a traceback.
_http_log = logging.getLogger(f"{__name__}.http")
_http_log.setLevel(logging.CRITICAL)

_TARGET = re.compile(
    r"/v1/models/(?P<name>[^/:]+)"
    r"(?:/versions/(?P<version>[0-9]{1,19})|/labels/(?P<label>[^/:]+))?"
    r"(?P<verb>:predict|/metadata)?"
)
_VERBS = {("POST", ":predict"), ("GET", "/metadata"), ("GET", None)}

_HTTP_STATUS = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
}  # any other code is 500


class RestApi:
    """A running REST server."""

    def __init__(
        self,
        core: Core,
        host: str,
        port: int,
        *,
        timeout_seconds: float,
        max_threads: int,
        metrics_path: str | None,
        drain_seconds: float,
    ) -> None:
        """Starts to answer.

        Args:
            core: what answers.
            host: the address to listen at, "0.0.0.0" or "::" for all.
            port: the port.
            timeout_seconds: a prediction that takes longer gets 504; 0: no bound.
            max_threads: predictions that run at once; more of them wait.
            metrics_path: the URL path of the metrics; None: there is no such page.
            drain_seconds: how long `stop` waits for answers.

        Raises:
            ServingError: UNAVAILABLE; the address can't be had.
        """
        self._pool = ThreadPoolExecutor(max_threads, "rest")
        service = _Service(core, self._pool, timeout_seconds, metrics_path, _is_loopback(host))
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", service.handle)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_http_log,
            keepalive_timeout=IDLE_SECONDS,
            shutdown_timeout=drain_seconds,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rest", daemon=True)
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._listen(host, port), self._loop).result()
        except OSError as error:
            self.stop()
            raise ServingError(
                grpc.StatusCode.UNAVAILABLE,
                f"Failed to start HTTP Server at {host}:{port}: {error.strerror}",
            ) from error

    async def _listen(self, host: str, port: int) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, host.strip("[]"), port).start()

    def stop(self) -> None:
        """Takes no more requests, answers those that it has, and ends."""
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
        timeout_seconds: float,
        metrics_path: str | None,
        is_local: bool,
    ) -> None:
        self._core = core
        self._pool = pool
        self._timeout = timeout_seconds or None
        self._metrics_path = metrics_path
        self._is_local = is_local

    async def handle(self, request: web.Request) -> web.Response:
        """Answers any request; what goes wrong is a status and `{"error": …}`."""
        try:
            self._refuse_other_pages(request)
            if self._metrics_path is not None and request.path == self._metrics_path:
                headers = {"Content-Type": metrics.CONTENT_TYPE}
                return web.Response(body=metrics.render(), headers=headers)
            return await self._answer(request)
        except ServingError as error:
            return _error(_HTTP_STATUS.get(error.code, 500), error.message)
        except web.HTTPException as error:
            return _error(error.status, error.reason)
        except web.RequestPayloadError as error:
            return _error(400, f"Malformed request: {error}")
        except Exception:
            _log.exception("%s %s failed", request.method, request.path)
            return _error(500, "Internal error; see the log")

    def _refuse_other_pages(self, request: web.Request) -> None:
        """Refuses what a page of another site can make a browser send."""
        host = request.headers.get("Host", "")
        if self._is_local and not _is_loopback(urlsplit(f"//{host}").hostname or ""):
            raise web.HTTPForbidden(reason="the Host header has to be a name of this machine")
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise web.HTTPForbidden(reason="pages of other sites may not call this server")
        is_typed = request.method == "POST" and request.headers.get("Content-Type")
        if is_typed and request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(
                reason="send the header Content-Type: application/json"
            )

    async def _answer(self, request: web.Request) -> web.Response:
        path = request.rel_url.raw_path
        found = _TARGET.fullmatch(path)
        if not found or (request.method, found["verb"]) not in _VERBS:
            raise invalid_argument(f"Malformed request: {request.method} {path}")
        spec = _model_spec(found)
        if found["verb"] == "/metadata":
            return _json(_metadata(self._core, spec))
        if found["verb"] is None:
            status = self._core.get_model_status(GetModelStatusRequest(model_spec=spec))
            return _json(_as_dict(status))
        body = await _body(request)
        return await self._predict(spec, body)

    async def _predict(self, spec: ModelSpec, body: bytes) -> web.Response:
        started = time.perf_counter()
        status = "INTERNAL"
        try:
            answering = asyncio.get_running_loop().run_in_executor(
                self._pool, _predict, self._core, spec, body
            )
            text = await asyncio.wait_for(answering, self._timeout)
            status = "OK"
            return web.Response(text=text, content_type="application/json")
        except TimeoutError:
            status = "DEADLINE_EXCEEDED"
            raise ServingError(
                grpc.StatusCode.DEADLINE_EXCEEDED, "Timed out waiting for notification"
            ) from None
        except ServingError as error:
            status = error.code.name
            raise
        finally:
            seconds = time.perf_counter() - started
            metrics.observe_request(spec.name, "predict", status, seconds, "REST")


async def _body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None


def _predict(core: Core, spec: ModelSpec, body: bytes) -> str:
    request, form = rest_json.predict_request(
        body, spec, lambda model_spec: core.signature(model_spec).inputs
    )
    return json.dumps(rest_json.predict_response(core.predict(request).outputs, form))


def _metadata(core: Core, spec: ModelSpec) -> dict[str, Any]:
    request = GetModelMetadataRequest(model_spec=spec, metadata_field=[METADATA_FIELD])
    response = core.get_model_metadata(request)
    signatures = SignatureDefMap()
    response.metadata[METADATA_FIELD].Unpack(signatures)
    return {
        "model_spec": _as_dict(response.model_spec),
        "metadata": {METADATA_FIELD: _as_dict(signatures)},
    }


def _model_spec(found: re.Match[str]) -> ModelSpec:
    spec = ModelSpec(name=unquote(found["name"]))
    if found["label"]:
        spec.version_label = unquote(found["label"])
    if found["version"]:
        try:
            spec.version.value = int(found["version"])
        except ValueError:  # above 2⁶³
            raise invalid_argument(
                f"Failed to convert version: {found['version']} to numeric."
            ) from None
    return spec


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _as_dict(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found


def _json(value: object, status: int = 200) -> web.Response:
    return web.json_response(value, status=status)


def _error(status: int, message: str) -> web.Response:
    return _json({"error": message}, status)

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
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from aiohttp import web
from google.protobuf import json_format
from google.protobuf.message import Message
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec

from serving.server import metrics, rest_json
from serving.server.core import DRAIN_SECONDS, METADATA_FIELD, Core
from serving.server.errors import ServingError, invalid_argument
from serving.server.flags import Flags

# Enough for a batch of the largest photos that a camera makes, in base64.
MAX_BODY_BYTES = 128 * 2**20
BODY_SECONDS = 30.0  # for a body to come
KEEPALIVE_SECONDS = 75.0  # for a connection without a request
LOG_SECONDS = 1.0  # between two lines about errors of the event loop

_VERSIONS = ("", "/versions/{version:[0-9]+}", "/labels/{label}")

_HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}  # any other code is 500

_log = logging.getLogger(__name__)
_http_log = logging.getLogger(f"{__name__}.http")
_http_log.setLevel(logging.CRITICAL)  # aiohttp logs each malformed request with a traceback


class RestApi:
    """A running REST server."""

    def __init__(self, core: Core, flags: Flags, metrics_path: str | None):
        """Starts to answer; without `metrics_path` there is no page of the metrics.

        Raises:
            ServingError: UNAVAILABLE; it can't listen at the address.
        """
        self._pool = ThreadPoolExecutor(flags.grpc_max_threads, "rest")
        self._core = core
        self._timeout = flags.rest_api_timeout_in_ms / 1000 or None
        self._is_local = _is_loopback(flags.host)
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._middleware])
        for version in _VERSIONS:
            target = f"/v1/models/{{name:[^/:]+}}{version}"
            app.router.add_get(target, self._status)
            app.router.add_get(f"{target}/metadata", self._metadata)
            app.router.add_post(f"{target}:predict", self._predict)
        if metrics_path:
            app.router.add_get(metrics_path, _metrics)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_http_log,
            shutdown_timeout=DRAIN_SECONDS,
            keepalive_timeout=KEEPALIVE_SECONDS,
        )
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._log_error)
        self._next_line = 0.0  # on the monotonic clock
        self._thread = threading.Thread(target=self._loop.run_forever, name="rest", daemon=True)
        self._thread.start()
        address = f"{flags.host}:{flags.rest_api_port}"
        try:
            self._wait(self._listen(flags.host.strip("[]"), flags.rest_api_port))
        except OSError as error:
            self.stop()
            raise ServingError(
                grpc.StatusCode.UNAVAILABLE,
                f"Failed to start HTTP Server at {address}: {error.strerror}",
            ) from error
        _log.info("Exporting HTTP/REST API at:%s ...", address)

    async def _listen(self, host: str, port: int) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()

    def _log_error(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Logs an error, but not each: at the limit of open files there are thousands a second."""
        now = time.monotonic()
        if now >= self._next_line:
            self._next_line = now + LOG_SECONDS
            _log.error("%s: %s", context["message"], context.get("exception"))

    def _wait(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def stop(self) -> None:
        """Takes no more requests, and waits up to DRAIN_SECONDS for those that run."""
        self._wait(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    @web.middleware
    async def _middleware(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Refuses requests from pages of other sites. Answers each failure with `{"error": …}`."""
        try:
            self._refuse_other_pages(request)
            return await handler(request)
        except ServingError as error:
            return _error(_HTTP_STATUS.get(error.code, 500), error.message)
        except web.HTTPException as error:
            return _error(error.status, f"{request.method} {request.path}: {error.reason}")
        except web.RequestPayloadError as error:
            return _error(400, f"Malformed request: {error}")
        except Exception:
            _log.exception("%s %s failed", request.method, request.path)
            return _error(500, "Internal error; see the server's log")

    def _refuse_other_pages(self, request: web.Request) -> None:
        """Refuses what a page of another site can make a browser send."""
        host = request.headers.get("Host", "")
        if self._is_local and not _is_loopback(re.sub(r":\d+$", "", host)):
            raise web.HTTPForbidden(reason="the Host header has to name this machine")
        origin = request.headers.get("Origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise web.HTTPForbidden(reason="pages of other sites may not call this server")
        is_typed = request.method == "POST" and "Content-Type" in request.headers
        if is_typed and request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(reason="send Content-Type: application/json")

    async def _status(self, request: web.Request) -> web.Response:
        asked = GetModelStatusRequest(model_spec=_model_spec(request))
        return web.json_response(_as_dict(self._core.get_model_status(asked)))

    async def _metadata(self, request: web.Request) -> web.Response:
        response = self._core.get_model_metadata(
            GetModelMetadataRequest(
                model_spec=_model_spec(request), metadata_field=[METADATA_FIELD]
            )
        )
        signatures = SignatureDefMap()
        response.metadata[METADATA_FIELD].Unpack(signatures)
        return web.json_response(
            {
                "model_spec": _as_dict(response.model_spec),
                "metadata": {METADATA_FIELD: _as_dict(signatures)},
            }
        )

    async def _predict(self, request: web.Request) -> web.Response:
        spec = _model_spec(request)
        if (request.content_length or 0) > MAX_BODY_BYTES:
            raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, request.content_length or 0)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await request.read()
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        started = time.perf_counter()
        code = grpc.StatusCode.INTERNAL
        try:
            answering = asyncio.get_running_loop().run_in_executor(
                self._pool, _predict, self._core, spec, body
            )
            text = await asyncio.wait_for(answering, self._timeout)
            code = grpc.StatusCode.OK
            return web.Response(text=text, content_type="application/json")
        except TimeoutError:
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            raise ServingError(code, "Timed out waiting for notification") from None
        except ServingError as error:
            code = error.code
            raise
        finally:
            seconds = time.perf_counter() - started
            metrics.observe_request(spec.name, "predict", code.name, seconds, "REST")


def _predict(core: Core, spec: ModelSpec, body: bytes) -> str:
    request, form = rest_json.predict_request(
        body, spec, lambda asked: core.signature(asked).inputs
    )
    return json.dumps(rest_json.predict_response(core.predict(request).outputs, form))


async def _metrics(_request: web.Request) -> web.Response:
    return web.Response(body=metrics.render(), headers={"Content-Type": metrics.CONTENT_TYPE})


def _model_spec(request: web.Request) -> ModelSpec:
    asked = request.match_info
    try:
        spec = ModelSpec(name=asked["name"], version_label=asked.get("label"))
        if "version" in asked:
            spec.version.value = int(asked["version"])
    except ValueError:  # the number is too large
        raise invalid_argument(f"Malformed request: {request.path}") from None
    return spec


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _as_dict(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)

"""The gRPC API: PredictionService, ModelService and grpc.health.v1."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from serving.server import metrics
from serving.server.config_files import SSLConfig, parse
from serving.server.core import Core
from serving.server.errors import ServingError, invalid_argument

# As in TensorFlow Serving: a longer text may not fit into HTTP/2's headers.
MESSAGE_LIMIT = 1024
MAX_MESSAGE_BYTES = 2**31 - 1

_log = logging.getLogger(__name__)


class GrpcApi:
    """A running gRPC server."""

    def __init__(
        self,
        core: Core,
        *,
        addresses: list[str],
        max_threads: int,
        channel_arguments: str = "",
        ssl_config_file: str = "",
        with_health: bool = False,
    ):
        """Starts to answer.

        Args:
            core: what answers.
            addresses: `host:port` and `unix:path`.
            max_threads: requests that are answered at once; more of them wait.
            channel_arguments: `name=value` pairs for gRPC, separated by commas.
            ssl_config_file: an SSLConfig as text proto; empty for no encryption.
            with_health: whether to serve grpc.health.v1.

        Raises:
            ServingError: an address is in use, or the configuration is wrong.
        """
        self._server = grpc.server(
            ThreadPoolExecutor(max_threads, thread_name_prefix="grpc"),
            options=_options(channel_arguments),
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            _PredictionService(core), self._server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(core), self._server)
        self._health = health.HealthServicer()
        if with_health:
            self._health.set("", health_pb2.HealthCheckResponse.SERVING)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        credentials = _credentials(ssl_config_file)
        for address in addresses:
            try:
                if credentials is None:
                    self._server.add_insecure_port(address)
                else:
                    self._server.add_secure_port(address, credentials)
            except RuntimeError as error:
                raise ServingError(
                    grpc.StatusCode.UNAVAILABLE, f"can't listen at {address}: is it in use?"
                ) from error
        self._server.start()

    def stop(self, seconds: float) -> None:
        """Takes no more requests, and waits up to `seconds` for those that are being answered."""
        self._health.enter_graceful_shutdown()
        self._server.stop(seconds).wait(seconds)


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Classify, Regress and MultiInference stay UNIMPLEMENTED."""

    def __init__(self, core: Core):
        self._core = core

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        started = time.perf_counter()
        status = "OK"
        try:
            return _answer(self._core.predict, request, context)
        except ServingError as error:
            status = error.code.name
            _abort(error, context)
        finally:
            seconds = time.perf_counter() - started
            metrics.observe_request(request.model_spec.name, "Predict", status, seconds, "GRPC")

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        return _answer_or_abort(self._core.get_model_metadata, request, context)


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, core: Core):
        self._core = core

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        return _answer_or_abort(self._core.get_model_status, request, context)

    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> Any:
        def reload(request: Any) -> Any:
            return self._core.handle_reload_config(request, context.is_active)

        return _answer_or_abort(reload, request, context)


def _answer(method: Callable[[Any], Any], request: Any, context: grpc.ServicerContext) -> Any:
    """Calls `method`; every failure is a ServingError."""
    if not context.is_active():
        # The client went while its request waited for a thread.
        raise ServingError(grpc.StatusCode.CANCELLED, "the client has gone")
    try:
        return method(request)
    except ServingError:
        raise
    except Exception as error:
        _log.exception("%s failed", method.__name__)
        raise ServingError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}") from error


def _answer_or_abort(
    method: Callable[[Any], Any], request: Any, context: grpc.ServicerContext
) -> Any:
    try:
        return _answer(method, request, context)
    except ServingError as error:
        _abort(error, context)


def _abort(error: ServingError, context: grpc.ServicerContext) -> None:
    message = error.message
    if len(message) > MESSAGE_LIMIT:
        message = message[:MESSAGE_LIMIT] + "...TRUNCATED"
    context.abort(error.code, message)


def _options(channel_arguments: str) -> list[tuple[str, int | str]]:
    options: dict[str, int | str] = {
        "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
        "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
        # Else Linux lets a second server listen at the same port, and shares its requests out.
        "grpc.so_reuseport": 0,
    }
    for argument in filter(None, channel_arguments.split(",")):
        name, equals, value = argument.partition("=")
        if not name or not equals:
            raise invalid_argument(f"--grpc_channel_arguments: {argument!r} is not name=value")
        try:
            options[name] = int(value)
        except ValueError:
            options[name] = value
    return list(options.items())


def _credentials(ssl_config_file: str) -> grpc.ServerCredentials | None:
    if not ssl_config_file:
        return None
    config = parse(ssl_config_file, SSLConfig())
    if not (config.server_key and config.server_cert):
        raise invalid_argument(f"{ssl_config_file}: server_key and server_cert are needed")
    if config.client_verify and not config.custom_ca:
        raise invalid_argument(
            f"{ssl_config_file}: client_verify needs custom_ca, the authority of the clients"
        )
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )

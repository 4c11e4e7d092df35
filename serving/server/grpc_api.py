"""The gRPC API: PredictionService, ModelService and grpc.health.v1."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

from serving.server import metrics
from serving.server.config_files import SSLConfig, parse
from serving.server.core import Core
from serving.server.errors import ServingError, invalid_argument

# tensorflow_serving/model_servers/grpc_status_util.cc
MESSAGE_LIMIT = 1024
# TensorFlow Serving sets gRPC's own limit of 4 MiB to the largest number that fits.
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
        health: bool = False,
    ):
        """Starts to answer.

        Args:
            core: what answers.
            addresses: `host:port` and `unix:path`.
            max_threads: requests that are answered at once; more of them wait.
            channel_arguments: `name=value` pairs for gRPC, separated by commas.
            ssl_config_file: an SSLConfig as text proto; empty for no encryption.
            health: whether grpc.health.v1 is there.

        Raises:
            ServingError: an address can't be had, or the configuration is wrong.
        """
        self._health: Any = None
        self._server = grpc.server(
            ThreadPoolExecutor(max_threads, thread_name_prefix="grpc"),
            options=_options(channel_arguments),
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            _PredictionService(core), self._server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(core), self._server)
        if health:
            self._add_health()
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

    def stop(self, grace_seconds: float) -> None:
        """Takes no more requests, and waits so long for those that are being answered."""
        if self._health is not None:
            self._health.enter_graceful_shutdown()
        self._server.stop(grace_seconds).wait()

    def _add_health(self) -> None:
        # As C++'s default service, which TensorFlow Serving switches on: the server as a whole
        # ("") serves; no service is known by name.
        from grpc_health.v1 import health, health_pb2, health_pb2_grpc

        self._health = health.HealthServicer()
        self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, core: Core):
        self._core = core

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        return _answer("Predict", self._core.predict, request, request.model_spec.name, context)

    def Classify(self, request: Any, context: grpc.ServicerContext) -> Any:
        return _answer("Classify", self._core.classify, request, request.model_spec.name, context)

    def Regress(self, request: Any, context: grpc.ServicerContext) -> Any:
        return _answer("Regress", self._core.regress, request, request.model_spec.name, context)

    def MultiInference(self, request: Any, context: grpc.ServicerContext) -> Any:
        model = request.tasks[0].model_spec.name if request.tasks else ""
        return _answer("MultiInference", self._core.multi_inference, request, model, context)

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        return _answer("", self._core.get_model_metadata, request, "", context)


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, core: Core):
        self._core = core

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        return _answer("", self._core.get_model_status, request, "", context)

    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> Any:
        return _answer("", self._core.handle_reload_config, request, "", context)


def _answer(
    entrypoint: str,
    method: Callable[[Any], Any],
    request: Any,
    model: str,
    context: grpc.ServicerContext,
) -> Any:
    """Calls `method`; counts the request where an entrypoint is named, as TensorFlow Serving."""
    started = time.perf_counter()
    error: ServingError | None = None
    response = None
    try:
        if not context.is_active():
            # Its client went while it waited for a thread: no one would read the answer.
            raise ServingError(grpc.StatusCode.CANCELLED, "the client is gone")
        response = method(request)
    except ServingError as raised:
        error = raised
    except Exception as raised:
        _log.exception("%s failed", entrypoint or method.__name__)
        error = ServingError(grpc.StatusCode.INTERNAL, f"{type(raised).__name__}: {raised}")
    if entrypoint:
        status = error.code.name if error else "OK"
        metrics.observe_request(model, entrypoint, status, time.perf_counter() - started, "GRPC")
    if error:
        context.abort(error.code, _bounded(error.message))
    return response


def _bounded(message: str) -> str:
    if len(message) <= MESSAGE_LIMIT:
        return message
    return message[:MESSAGE_LIMIT] + "...TRUNCATED"


def _options(channel_arguments: str) -> list[tuple[str, int | str]]:
    options: dict[str, int | str] = {
        "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
        "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
        # A second server on the same port is a mistake; Linux would share it out between the two.
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
            f"{ssl_config_file}: client_verify needs custom_ca, which signed the clients"
        )
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )

"""The gRPC API: PredictionService, ModelService and grpc.health.v1."""

from __future__ import annotations

import logging
import ssl
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from serving.server import config_files, metrics
from serving.server.core import DRAIN_SECONDS, Core
from serving.server.errors import ServingError, invalid_argument
from serving.server.flags import Flags

MESSAGE_LIMIT = 1024  # a longer text may not fit into HTTP/2's headers
MAX_MESSAGE_BYTES = 2**31 - 1

_log = logging.getLogger(__name__)


class GrpcApi:
    """A running gRPC server."""

    def __init__(self, core: Core, flags: Flags):
        """Starts to answer.

        Raises:
            ServingError: an address is in use, or the configuration is wrong.
        """
        self._server = grpc.server(
            ThreadPoolExecutor(flags.grpc_max_threads, "grpc"),
            options=_options(flags.grpc_channel_arguments),
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            _PredictionService(core), self._server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(core), self._server)
        self._health = health.HealthServicer()
        if flags.enable_grpc_healthcheck_service:
            self._health.set("", health_pb2.HealthCheckResponse.SERVING)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        credentials = _credentials(flags.ssl_config_file) if flags.ssl_config_file else None
        addresses = [f"{flags.host}:{flags.port}"] if flags.port else []
        if flags.grpc_socket_path:
            addresses.append(f"unix:{flags.grpc_socket_path}")
        for address in addresses:
            self._listen(address, credentials)
        self._server.start()
        _log.info("Running gRPC ModelServer at %s ...", ", ".join(addresses))

    def _listen(self, address: str, credentials: grpc.ServerCredentials | None) -> None:
        try:
            if credentials is None:
                self._server.add_insecure_port(address)
            else:
                self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise ServingError(
                grpc.StatusCode.UNAVAILABLE, f"can't listen at {address}: is it in use?"
            ) from error

    def stop(self) -> None:
        """Takes no more requests, and waits up to DRAIN_SECONDS for those that run."""
        self._health.enter_graceful_shutdown()
        self._server.stop(DRAIN_SECONDS).wait(DRAIN_SECONDS)


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Classify, Regress and MultiInference stay UNIMPLEMENTED."""

    def __init__(self, core: Core):
        self._core = core

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        started = time.perf_counter()

        def count(status: str) -> None:
            seconds = time.perf_counter() - started
            metrics.observe_request(request.model_spec.name, "Predict", status, seconds, "GRPC")

        return _answer(self._core.predict, request, context, count)

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        return _answer(self._core.get_model_metadata, request, context)


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, core: Core):
        self._core = core

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        return _answer(self._core.get_model_status, request, context)

    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> Any:
        def reload(request: Any) -> Any:
            return self._core.handle_reload_config(request, context.is_active)

        return _answer(reload, request, context)


def _answer(
    method: Callable[[Any], Any],
    request: Any,
    context: grpc.ServicerContext,
    count: Callable[[str], None] = lambda status: None,
) -> Any:
    """Calls `method`. Tells the client about a failure, and gives `count` the status's name."""
    try:
        if not context.is_active():  # the client went while its request waited for a thread
            raise ServingError(grpc.StatusCode.CANCELLED, "the client has gone")
        response = method(request)
    except ServingError as error:
        count(error.code.name)
        message = error.message
        if len(message) > MESSAGE_LIMIT:
            message = message[:MESSAGE_LIMIT] + "...TRUNCATED"
        context.abort(error.code, message)
    except Exception as error:
        _log.exception("%s failed", method.__name__)
        count(grpc.StatusCode.INTERNAL.name)
        context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}; see the server's log")
    count("OK")
    return response


def _options(channel_arguments: str) -> list[tuple[str, int | str]]:
    options: dict[str, int | str] = {
        "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
        "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
        # Otherwise Linux lets a second server listen at the same port, and gives it some requests.
        "grpc.so_reuseport": 0,
    }
    for argument in filter(None, channel_arguments.split(",")):
        name, equals, value = argument.partition("=")
        if not name or not equals:
            raise invalid_argument(f"--grpc_channel_arguments: {argument!r} is not name=value")
        options[name] = int(value) if value.removeprefix("-").isdecimal() else value
    return list(options.items())


def _credentials(file: str) -> grpc.ServerCredentials:
    config = config_files.parse(file, config_files.SSLConfig())
    if not (config.server_key and config.server_cert):
        raise invalid_argument(f"{file}: server_key and server_cert are needed")
    if config.client_verify and not config.custom_ca:
        raise invalid_argument(f"{file}: client_verify needs custom_ca, the clients' authority")
    _check_tls(file, config)
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )


def _check_tls(file: str, config: config_files.SSLConfig) -> None:
    """Uses key and certificates once. gRPC does not tell them from an address that is in use.

    Raises:
        ServingError: they can't be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    wrong = "server_key and server_cert do not fit together"
    with tempfile.NamedTemporaryFile(suffix=".pem") as pair:  # only its owner may read it
        pair.write(f"{config.server_key}\n{config.server_cert}\n".encode())
        pair.flush()
        try:
            context.load_cert_chain(pair.name, password="")  # "": it does not ask for one
            if config.custom_ca:
                wrong = "custom_ca is no certificate"
                context.load_verify_locations(cadata=config.custom_ca)
        except (ssl.SSLError, ValueError) as error:  # ValueError: not ASCII
            raise invalid_argument(f"{file}: {wrong} ({error})") from None

"""All that runs in a server, put together as the flags say (model_servers/server.cc)."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving.server import config_files, metrics, rest
from serving.server.batching import Batching
from serving.server.core import PLATFORM, Core, Settings
from serving.server.errors import ServingError, invalid_argument
from serving.server.flags import Flags
from serving.server.grpc_api import GrpcApi

# How long a stop waits for requests that are being answered; Kubernetes kills after 30 s.
DRAIN_SECONDS = 25.0

_log = logging.getLogger(__name__)


class Server:
    """All that runs: core, gRPC API, REST API and the look at the configuration file."""

    def __init__(self, flags: Flags):
        """Reads the configuration; `start` does the rest.

        Raises:
            ServingError: what the flags ask for can't be had.
        """
        self._flags = flags
        self._config = _model_config(flags)
        self._core = Core(_settings(flags))
        self._grpc: GrpcApi | None = None
        self._rest: rest.RestServer | None = None
        self._closed = threading.Event()
        self._poller: threading.Thread | None = None

    def __enter__(self) -> Server:
        """The server itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stops, request by request, whatever was started."""
        self._closed.set()
        stops: list[Callable[[], object]] = []
        if self._rest is not None:
            stops.append(self._rest.stop)
        if self._grpc is not None:
            stops.append(functools.partial(self._grpc.stop, DRAIN_SECONDS))
        with ThreadPoolExecutor() as pool:  # together, or the waits would add up
            list(pool.map(lambda stop: stop(), stops))
        self._core.close()
        if self._poller is not None:
            self._poller.join()

    def start(self) -> None:
        """Loads the models, then listens: who can connect is answered.

        Raises:
            ServingError: a model can't be loaded, or an address can't be had.
        """
        flags = self._flags
        self._core.reload(self._config)
        if flags.model_config_file and flags.model_config_file_poll_wait_seconds > 0:
            self._poller = threading.Thread(target=self._poll_config, daemon=True)
            self._poller.start()
        addresses = [f"{flags.host}:{flags.port}"] if flags.port else []
        if flags.grpc_socket_path:
            addresses.append(f"unix:{flags.grpc_socket_path}")
        self._grpc = GrpcApi(
            self._core,
            addresses=addresses,
            max_threads=flags.grpc_max_threads,
            channel_arguments=flags.grpc_channel_arguments,
            ssl_config_file=flags.ssl_config_file,
            health=flags.enable_grpc_healthcheck_service,
        )
        if flags.port:
            _log.info("Running gRPC ModelServer at %s ...", addresses[0])
        if flags.grpc_socket_path:
            _log.info("Running gRPC ModelServer at UNIX socket %s ...", flags.grpc_socket_path)
        if flags.rest_api_port:
            self._start_rest()

    def _start_rest(self) -> None:
        flags = self._flags
        self._rest = rest.start(
            self._core,
            flags.rest_api_port,
            flags.rest_api_timeout_in_ms,
            flags.host,
            _metrics_path(flags),
            num_threads=flags.rest_api_num_threads,
            enable_cors=flags.rest_api_enable_cors_support,
        )
        _log.info("Exporting HTTP/REST API at:%s:%d ...", flags.host, flags.rest_api_port)

    def _poll_config(self) -> None:
        taken = self._config
        while not self._closed.wait(self._flags.model_config_file_poll_wait_seconds):
            try:
                config = _model_config(self._flags)
                if config != taken:
                    self._core.reload(config)
                    taken = config
            except ServingError as error:
                # A label may wait for its version: the same file is tried again.
                _log.error("Failed to reload %s: %s", self._flags.model_config_file, error)


def _model_config(flags: Flags) -> model_server_config_pb2.ModelServerConfig:
    if flags.model_config_file:
        return config_files.parse(
            flags.model_config_file, model_server_config_pb2.ModelServerConfig()
        )
    if not flags.model_base_path:
        raise invalid_argument(
            "Both server_options.model_base_path and server_options.model_config_file are empty!"
        )
    _log.info(
        "Building single TensorFlow model file config:  model_name: %s model_base_path: %s",
        flags.model_name, flags.model_base_path,
    )  # fmt: skip
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(
        name=flags.model_name, base_path=flags.model_base_path, model_platform=PLATFORM
    )
    return config


def _metrics_path(flags: Flags) -> str | None:
    if not flags.monitoring_config_file:
        return None
    config = config_files.parse(flags.monitoring_config_file, config_files.MonitoringConfig())
    asked = config.prometheus_config
    return (asked.path or metrics.DEFAULT_PATH) if asked.enable else None


def _settings(flags: Flags) -> Settings:
    if not (flags.port or flags.grpc_socket_path):
        raise invalid_argument("server_options.grpc_port is not set.")
    for name in ("port", "rest_api_port"):
        if not 0 <= getattr(flags, name) <= 65_535:  # gRPC would take the remainder of it
            raise invalid_argument(f"--{name} must be from 0 to 65535; was {getattr(flags, name)}")
    for name in ("use_alts_credentials", "platform_config_file"):
        if getattr(flags, name):
            raise invalid_argument(f"--{name} is not supported")
    if flags.rest_api_port and flags.rest_api_port == flags.port:
        raise invalid_argument("--rest_api_port must be another than --port")
    if flags.grpc_max_threads < 1:
        raise invalid_argument("--grpc_max_threads must be at least 1")
    return Settings(
        file_system_poll_wait_seconds=flags.file_system_poll_wait_seconds,
        max_num_load_retries=flags.max_num_load_retries,
        load_retry_interval_micros=flags.load_retry_interval_micros,
        num_load_threads=flags.num_load_threads,
        allow_version_labels_for_unavailable_models=(
            flags.allow_version_labels_for_unavailable_models
        ),
        enable_model_warmup=flags.enable_model_warmup,
        num_request_iterations_for_warmup=flags.num_request_iterations_for_warmup,
        enable_signature_method_name_check=flags.enable_signature_method_name_check,
        enable_serialization_as_tensor_content=flags.enable_serialization_as_tensor_content,
        saved_model_tags=flags.saved_model_tags,
        batching=_batching(flags),
        session_config=_session_config(flags),
    )


def _batching(flags: Flags) -> Batching | None:
    if not flags.enable_batching:
        if flags.batching_parameters_file:
            raise invalid_argument(
                "server_options.batching_parameters_file is set without setting "
                "server_options.enable_batching to true."
            )
        return None
    parameters = config_files.BatchingParameters()
    if flags.batching_parameters_file:
        config_files.parse(flags.batching_parameters_file, parameters)
    return Batching.of(parameters)


def _session_config(flags: Flags) -> config_pb2.ConfigProto:
    config = config_pb2.ConfigProto()
    if flags.tensorflow_session_config_file:
        config_files.parse(flags.tensorflow_session_config_file, config)
    both = flags.tensorflow_session_parallelism
    intra, inter = flags.tensorflow_intra_op_parallelism, flags.tensorflow_inter_op_parallelism
    if intra > 0 and inter > 0 and both > 0:
        raise invalid_argument(
            "Either configure server_options.tensorflow_session_parallelism or "
            "(server_options.tensorflow_intra_op_parallelism, "
            "server_options.tensorflow_inter_op_parallelism) separately. You cannot configure all."
        )
    if intra > 0 or inter > 0:
        config.intra_op_parallelism_threads = intra
        config.inter_op_parallelism_threads = inter
    elif both > 0:
        config.intra_op_parallelism_threads = config.inter_op_parallelism_threads = both
    if flags.per_process_gpu_memory_fraction:
        config.gpu_options.per_process_gpu_memory_fraction = flags.per_process_gpu_memory_fraction
    return config

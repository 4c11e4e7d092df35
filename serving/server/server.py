"""All that runs in a server, put together as the flags say."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tensorflow_serving.config import model_server_config_pb2

from serving.server import config_files, metrics
from serving.server.batching import Batching
from serving.server.core import PLATFORM, Core
from serving.server.errors import ServingError
from serving.server.flags import Flags
from serving.server.grpc_api import GrpcApi
from serving.server.rest import RestApi

# How long a stop waits for requests that are being answered; Kubernetes kills after 30 s.
DRAIN_SECONDS = 25.0

_log = logging.getLogger(__name__)


class Server:
    """The core, the gRPC API, the REST API and the look at the configuration file."""

    def __init__(self, flags: Flags):
        """Reads the configuration files; `start` does the rest.

        Raises:
            ServingError: a file is missing or wrong.
        """
        self._flags = flags
        self._config = _model_config(flags)
        self._metrics_path = _metrics_path(flags)
        self._core = Core(
            batching=_batching(flags),
            poll_wait_seconds=flags.file_system_poll_wait_seconds,
            max_num_load_retries=flags.max_num_load_retries,
            load_retry_seconds=flags.load_retry_interval_micros / 1e6,
            enable_model_warmup=flags.enable_model_warmup,
            allow_version_labels_for_unavailable_models=(
                flags.allow_version_labels_for_unavailable_models
            ),
        )
        self._grpc: GrpcApi | None = None
        self._rest: RestApi | None = None
        self._closed = threading.Event()

    def start(self) -> None:
        """Loads the models, then listens: a client that can connect gets an answer.

        Raises:
            ServingError: a model can't be loaded, or an address can't be had.
        """
        flags = self._flags
        self._core.wait_until_available(self._core.reload(self._config))
        if flags.model_config_file and flags.model_config_file_poll_wait_seconds > 0:
            threading.Thread(target=self._poll_config, daemon=True, name="poll_config").start()
        addresses = [f"{flags.host}:{flags.port}"] if flags.port else []
        if flags.grpc_socket_path:
            addresses.append(f"unix:{flags.grpc_socket_path}")
        self._grpc = GrpcApi(
            self._core,
            addresses=addresses,
            max_threads=flags.grpc_max_threads,
            channel_arguments=flags.grpc_channel_arguments,
            ssl_config_file=flags.ssl_config_file,
            with_health=flags.enable_grpc_healthcheck_service,
        )
        for address in addresses:
            _log.info("Running gRPC ModelServer at %s ...", address)
        if flags.rest_api_port:
            self._rest = RestApi(
                self._core,
                flags.host,
                flags.rest_api_port,
                timeout_seconds=flags.rest_api_timeout_in_ms / 1000,
                max_threads=flags.grpc_max_threads,
                metrics_path=self._metrics_path,
                drain_seconds=DRAIN_SECONDS,
            )
            _log.info("Exporting HTTP/REST API at:%s:%d ...", flags.host, flags.rest_api_port)

    def stop(self) -> bool:
        """Takes no new requests and answers those that run, for at most DRAIN_SECONDS.

        Returns:
            Whether all of them were answered.
        """
        until = time.monotonic() + DRAIN_SECONDS
        self._closed.set()
        with ThreadPoolExecutor() as pool:  # together, so that the waits do not add up
            if self._rest is not None:
                pool.submit(self._rest.stop)
            if self._grpc is not None:
                pool.submit(self._grpc.stop, DRAIN_SECONDS)
        return self._core.close(max(0.0, until - time.monotonic()))

    def _poll_config(self) -> None:
        taken = self._config
        while not self._closed.wait(self._flags.model_config_file_poll_wait_seconds):
            try:
                config = _model_config(self._flags)
                if config != taken:
                    # It does not wait for the models: a folder may never appear.
                    self._core.reload(config)
                    taken = config
            except ServingError as error:
                # A label may wait for its version: the same file is tried again.
                _log.error("Failed to reload %s: %s", self._flags.model_config_file, error)


def _model_config(flags: Flags) -> model_server_config_pb2.ModelServerConfig:
    config = model_server_config_pb2.ModelServerConfig()
    if flags.model_config_file:
        return config_files.parse(flags.model_config_file, config)
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


def _batching(flags: Flags) -> Batching | None:
    if not flags.enable_batching:
        return None
    parameters = config_files.BatchingParameters()
    if flags.batching_parameters_file:
        config_files.parse(flags.batching_parameters_file, parameters)
    return Batching.of(parameters)

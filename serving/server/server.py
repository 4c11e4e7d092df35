"""Builds, starts and stops the parts of a server, as the flags say."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.server import config_files, metrics
from serving.server.core import PLATFORM, Core
from serving.server.errors import ServingError
from serving.server.flags import Flags
from serving.server.grpc_api import GrpcApi
from serving.server.rest import RestApi

_log = logging.getLogger(__name__)


class Server:
    """The core, the gRPC API, the REST API and the polling of the configuration file."""

    def __init__(self, flags: Flags):
        """Reads the configuration files; raises ServingError if one is missing or wrong."""
        self.flags = flags
        self._config = _model_config(flags)
        self._metrics_path = _metrics_path(flags)
        self._core = Core(flags)
        self._grpc: GrpcApi | None = None
        self._rest: RestApi | None = None
        self._stopping = threading.Event()

    def start(self) -> None:
        """Loads the models, then listens: a client that can connect gets an answer.

        Raises:
            ServingError: it can't load a model, or can't listen at an address.
        """
        self._core.versions.wait_until_available(self._core.reload(self._config))
        if self.flags.model_config_file and self.flags.model_config_file_poll_wait_seconds > 0:
            threading.Thread(target=self._poll_config, daemon=True, name="poll_config").start()
        self._grpc = GrpcApi(self._core, self.flags)
        if self.flags.rest_api_port:
            self._rest = RestApi(self._core, self.flags, self._metrics_path)

    def stop(self) -> None:
        """Takes no new requests, and answers those that run, for at most DRAIN_SECONDS."""
        self._stopping.set()
        with ThreadPoolExecutor() as pool:  # together, so that the waits do not add up
            for api in (self._grpc, self._rest):
                if api is not None:
                    pool.submit(api.stop)
        self._core.versions.close()

    def _poll_config(self) -> None:
        taken = self._config
        while not self._stopping.wait(self.flags.model_config_file_poll_wait_seconds):
            try:
                config = _model_config(self.flags)
                if config != taken:
                    # It does not wait for the models: a folder may never appear.
                    self._core.reload(config)
                    taken = config
            except ServingError as error:
                # A label may wait for its version: the same file is tried again.
                _log.error("Failed to reload %s: %s", self.flags.model_config_file, error)


def _model_config(flags: Flags) -> ModelServerConfig:
    config = ModelServerConfig()
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

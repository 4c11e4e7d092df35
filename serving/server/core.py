"""The server without its protocols: what gRPC and REST both call."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

import grpc
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
)
from tensorflow_serving.apis.get_model_status_pb2 import (
    GetModelStatusRequest,
    GetModelStatusResponse,
)
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest, ReloadConfigResponse
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from serving.server.batching import Batching
from serving.server.errors import ServingError, failed_precondition, invalid_argument, not_found
from serving.server.flags import Flags
from serving.server.servable import Servable, Signature
from serving.server.versions import AVAILABLE, Versions

PLATFORM = "tensorflow"
METADATA_FIELD = "signature_def"
# How long a stop waits for requests that are being answered; Kubernetes kills after 30 s.
DRAIN_SECONDS = 25.0
RELOAD_SECONDS = 300.0  # how long HandleReloadConfigRequest waits for the models that it adds

_log = logging.getLogger(__name__)


class Core:
    """Answers requests; every method may be called from any thread.

    Methods with the name of an RPC take and return TensorFlow Serving's messages, and raise
    ServingError with its codes.

    Attributes:
        versions: the versions of the models.
    """

    def __init__(self, flags: Flags):
        """Starts with no model; `reload` sets them.

        Raises:
            ServingError: the file of the batching parameters is missing or wrong.
        """
        self._flags = flags
        self._batching = Batching.of(flags)
        self._labels: dict[str, dict[str, int]] = {}
        self._names: set[str] = set()
        self._added: set[str] = set()
        self._reloading = threading.Lock()
        self.versions = Versions(self._load, flags)

    def predict(self, request: PredictRequest) -> PredictResponse:
        """Runs a signature of a model."""
        return self._servable(request.model_spec).predict(request)

    def signature(self, spec: ModelSpec) -> Signature:
        """The signature that would answer; raises ServingError if there is none."""
        return self._servable(spec).signature(spec.signature_name)

    def get_model_metadata(self, request: GetModelMetadataRequest) -> GetModelMetadataResponse:
        """The signatures of a version."""
        if list(request.metadata_field) != [METADATA_FIELD]:
            raise invalid_argument(f"metadata_field has to be {METADATA_FIELD}")
        servable = self._servable(request.model_spec)
        response = GetModelMetadataResponse()
        response.model_spec.name = servable.name
        response.model_spec.version.value = servable.version
        response.metadata[METADATA_FIELD].Pack(servable.signature_defs)
        return response

    def get_model_status(self, request: GetModelStatusRequest) -> GetModelStatusResponse:
        """The state of one version, or of all that are or were there, the newest first."""
        name = _name(request.model_spec)
        states = self.versions.states(name)
        asked = self._version(request.model_spec)
        if asked is not None and asked not in states:
            raise not_found(f"Could not find version {asked} of model {name}")
        if not states:
            raise not_found(f"Could not find any versions of model {name}")
        response = GetModelStatusResponse()
        for version in states if asked is None else [asked]:
            state, error = states[version]
            status = response.model_version_status.add(version=version, state=state)
            status.status.error_code = error.code.value[0] if error else 0
            status.status.error_message = error.message if error else ""
        return response

    def handle_reload_config(
        self, request: ReloadConfigRequest, is_active: Callable[[], bool]
    ) -> ReloadConfigResponse:
        """Takes another configuration, and waits until the models that it adds answer.

        The wait ends after RELOAD_SECONDS, when the client has gone (`is_active`), or when another
        configuration comes. So only one request waits at a time.
        """
        added = self.reload(request.config)

        def check() -> None:
            if not is_active():
                raise ServingError(grpc.StatusCode.CANCELLED, "the client has gone")
            if added is not self._added:
                raise ServingError(grpc.StatusCode.ABORTED, "another configuration has come")

        self.versions.wait_until_available(added, RELOAD_SECONDS, check)
        return ReloadConfigResponse(status={})

    def reload(self, config: ModelServerConfig) -> set[str]:
        """Takes a configuration; returns the names of the models that are new in it.

        Returns before these are loaded: see `Versions.wait_until_available`.

        Raises:
            ServingError: the configuration contradicts itself or what is served; then nothing
                changes.
        """
        if config.WhichOneof("config") != "model_config_list":
            raise invalid_argument("the configuration has to be a model_config_list")
        models = list(config.model_config_list.config)
        _check(models)
        with self._reloading:
            self._labels = self._checked_labels(models)
            names = {model.name for model in models}
            self._added = added = names - self._names
            self._names = names
            self.versions.set_models(models)
        _log.info("Adding/updating models: %s", ", ".join(sorted(names)))
        return added

    def _load(self, name: str, version: int, folder: str) -> Servable:
        servable = Servable(name, version, folder, self._batching)
        if self._flags.enable_model_warmup:
            servable.warm_up(folder)
        return servable

    def _servable(self, spec: ModelSpec) -> Servable:
        name, version = _name(spec), self._version(spec)
        try:
            return self.versions.get(name, version)
        except ServingError:
            moved = self._version(spec)  # the label may have moved meanwhile
            if moved == version:
                raise
            return self.versions.get(name, moved)

    def _version(self, spec: ModelSpec) -> int | None:
        """The version that a request asks for; None: the newest."""
        match spec.WhichOneof("version_choice"):
            case "version":
                return int(spec.version.value)
            case "version_label":
                version = self._labels.get(spec.name, {}).get(spec.version_label)
                if version is None:
                    raise invalid_argument(
                        f"Unrecognized servable version label: {spec.version_label}"
                    )
                return version
        return None

    def _checked_labels(self, models: list[ModelConfig]) -> dict[str, dict[str, int]]:
        """The labels by model.

        A label may point at a version that answers. If the flags allow it, a new label may point at
        any version.
        """
        may_point_ahead = self._flags.allow_version_labels_for_unavailable_models
        for model in models:
            states = self.versions.states(model.name)
            for label, version in model.version_labels.items():
                is_moved = self._labels.get(model.name, {}).get(label, version) != version
                state, _ = states.get(version, (None, None))
                if state != AVAILABLE and (is_moved or not may_point_ahead):
                    raise failed_precondition(
                        f"Request to assign label to version {version} of model {model.name}, "
                        "which is not currently available for inference"
                    )
        return {model.name: dict(model.version_labels) for model in models}


def _name(spec: ModelSpec) -> str:
    if not spec.name:
        raise invalid_argument("Missing ModelSpec: the request names no model")
    return str(spec.name)


def _check(models: list[ModelConfig]) -> None:
    names = [model.name for model in models]
    for model in models:
        if names.count(model.name) > 1:
            raise invalid_argument(
                f"Illegal to list model {model.name} multiple times in config list"
            )
        if not os.path.isabs(model.base_path):
            raise invalid_argument(
                f"Expected model {model.name} to have an absolute path or URI; got "
                f"base_path()={model.base_path}"
            )
        if model.model_platform != PLATFORM:
            raise invalid_argument(
                f"Model {model.name} requests unsupported platform {model.model_platform!r}; it "
                f"has to be {PLATFORM!r}"
            )

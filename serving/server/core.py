"""The server without its protocols: what gRPC and REST both call."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from serving.server.batching import Batching
from serving.server.errors import (
    ServingError,
    failed_precondition,
    invalid_argument,
    not_found,
)
from serving.server.servable import Servable, Signature
from serving.server.versions import AVAILABLE, Versions

PLATFORM = "tensorflow"
METADATA_FIELD = "signature_def"

# How long HandleReloadConfigRequest waits for the models that it adds.
RELOAD_SECONDS = 300.0

_log = logging.getLogger(__name__)

_Models = list[model_server_config_pb2.ModelConfig]


class Core:
    """Answers requests; every method may be called from any thread.

    Methods with the name of an RPC take and return TensorFlow Serving's messages, and raise
    ServingError with its codes.
    """

    def __init__(
        self,
        *,
        batching: Batching | None = None,
        poll_wait_seconds: float = 1,
        max_num_load_retries: int = 5,
        load_retry_seconds: float = 60,
        enable_model_warmup: bool = True,
        allow_version_labels_for_unavailable_models: bool = False,
    ):
        """Starts with no model; `reload` sets them.

        Args:
            batching: None: each request runs by itself.
            poll_wait_seconds: see Versions.
            max_num_load_retries: see Versions.
            load_retry_seconds: see Versions.
            enable_model_warmup: play a version's warm-up requests before it answers.
            allow_version_labels_for_unavailable_models: a new label may point at a version that
                is not loaded yet.
        """
        self._batching = batching
        self._warm_up = enable_model_warmup
        self._allow_labels = allow_version_labels_for_unavailable_models
        self._labels: dict[str, dict[str, int]] = {}
        self._names: set[str] = set()
        self._reloading = threading.Lock()
        self._added: set[str] = set()
        self._versions = Versions(
            self._load,
            poll_wait_seconds=poll_wait_seconds,
            max_num_load_retries=max_num_load_retries,
            load_retry_seconds=load_retry_seconds,
        )

    def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Runs a signature of a model."""
        with self._servable(request.model_spec) as servable:
            return servable.predict(request)

    def get_model_metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """The signatures of a version."""
        if list(request.metadata_field) != [METADATA_FIELD]:
            raise invalid_argument(f"metadata_field has to be {METADATA_FIELD}")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self._servable(request.model_spec) as servable:
            response.model_spec.name = servable.name
            response.model_spec.version.value = servable.version
            response.metadata[METADATA_FIELD].Pack(servable.signature_defs)
        return response

    def get_model_status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """The state of one version, or of all that are or were there, the newest first."""
        name = _name(request.model_spec)
        states = self._versions.states(name)
        version = self._version(request.model_spec)
        if version is not None:
            if version not in states:
                raise not_found(f"Could not find version {version} of model {name}")
            states = {version: states[version]}
        if not states:
            raise not_found(f"Could not find any versions of model {name}")
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, (state, error) in states.items():
            status = response.model_version_status.add(version=version, state=state)
            status.status.error_code = error.code.value[0] if error else 0
            status.status.error_message = error.message if error else ""
        return response

    def handle_reload_config(
        self, request: model_management_pb2.ReloadConfigRequest, is_active: Callable[[], bool]
    ) -> model_management_pb2.ReloadConfigResponse:
        """Takes another configuration, and waits until the models that it adds answer.

        The wait is bounded. It also ends when the client has gone, or when another configuration
        comes: so only one request waits at a time.

        Args:
            request: the configuration.
            is_active: whether the client still waits.
        """
        added = self.reload(request.config)

        def check() -> None:
            if not is_active():
                raise ServingError(grpc.StatusCode.CANCELLED, "the client has gone")
            if added is not self._added:
                raise ServingError(
                    grpc.StatusCode.ABORTED, "another configuration has come meanwhile"
                )

        self._versions.wait_until_available(added, RELOAD_SECONDS, check)
        return model_management_pb2.ReloadConfigResponse(status={})

    def signature(self, spec: model_pb2.ModelSpec) -> Signature:
        """The signature that would answer; raises ServingError where there is none."""
        with self._servable(spec) as servable:
            return servable.signature(spec.signature_name)

    def reload(self, config: model_server_config_pb2.ModelServerConfig) -> set[str]:
        """Takes a configuration; returns the names of the models that are new in it.

        It returns before they are loaded: see `wait_until_available`.

        Raises:
            ServingError: the configuration contradicts itself or what is served; then nothing
                changes.
        """
        if config.WhichOneof("config") != "model_config_list":
            raise invalid_argument("the configuration has to be a model_config_list")
        models = list(config.model_config_list.config)
        _check(models)
        with self._reloading:
            labels = self._checked_labels(models)
            self._labels = labels
            names = {model.name for model in models}
            self._added = added = names - self._names
            self._names = names
            _log.info("Adding/updating models.")
            self._versions.set_models(models)
        return added

    def wait_until_available(self, names: set[str]) -> None:
        """Waits, without bound, until each of these models answers.

        Raises:
            ServingError: one of them can't be loaded.
        """
        self._versions.wait_until_available(names, None, lambda: None)

    def close(self, seconds: float) -> bool:
        """Waits for requests and loads; returns whether all ended within `seconds`."""
        return self._versions.close(seconds)

    def _load(self, name: str, version: int, folder: str) -> Servable:
        servable = Servable(name, version, folder, self._batching)
        if self._warm_up:
            servable.warm_up(folder)
        return servable

    @contextlib.contextmanager
    def _servable(self, spec: model_pb2.ModelSpec) -> Iterator[Servable]:
        with self._versions.acquire(_name(spec), self._version(spec)) as servable:
            yield servable

    def _version(self, spec: model_pb2.ModelSpec) -> int | None:
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

    def _checked_labels(self, models: _Models) -> dict[str, dict[str, int]]:
        """The labels by model.

        A label may point at a version that answers. Where that is allowed, a label that is new
        may point at any version.
        """
        for model in models:
            states = self._versions.states(model.name)
            for label, version in model.version_labels.items():
                is_moved = self._labels.get(model.name, {}).get(label, version) != version
                state, _ = states.get(version, (None, None))
                if state != AVAILABLE and (is_moved or not self._allow_labels):
                    raise failed_precondition(
                        f"Request to assign label to version {version} of model {model.name}, "
                        "which is not currently available for inference"
                    )
        return {model.name: dict(model.version_labels) for model in models}


def _name(spec: model_pb2.ModelSpec) -> str:
    if not spec.name:
        raise invalid_argument("Missing ModelSpec: the request names no model")
    return str(spec.name)


def _check(models: _Models) -> None:
    seen: set[str] = set()
    for model in models:
        if model.name in seen:
            raise invalid_argument(
                f"Illegal to list model {model.name} multiple times in config list"
            )
        seen.add(model.name)
        if not os.path.isabs(model.base_path):
            raise invalid_argument(
                f"Expected model {model.name} to have an absolute path or URI; got "
                f"base_path()={model.base_path}"
            )
        if model.model_platform != PLATFORM:
            raise invalid_argument(
                f"Model {model.name} requests unsupported platform "
                f"{model.model_platform!r}; it has to be {PLATFORM!r}"
            )

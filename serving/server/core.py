"""The server without its APIs: models, their configuration, and what is asked of them."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import grpc
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from serving.server.batching import Batching
from serving.server.errors import ServingError, failed_precondition, invalid_argument
from serving.server.inference import DEFAULT_SIGNATURE, Inference
from serving.server.servable import Servable
from serving.server.versions import AVAILABLE, Versions
from serving.server.warmup import warm_up

__all__ = ["Core", "ServingError", "Settings"]

PLATFORM = "tensorflow"
METADATA_FIELD = "signature_def"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What does not change while the server runs; names and defaults are the flags'.

    Attributes:
        batching: None for a run by request.
        session_config: threads and devices of TensorFlow.
    """

    file_system_poll_wait_seconds: float = 1
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    num_load_threads: int = 0
    allow_version_labels_for_unavailable_models: bool = False
    enable_model_warmup: bool = True
    num_request_iterations_for_warmup: int = 0
    enable_signature_method_name_check: bool = False
    enable_serialization_as_tensor_content: bool = False
    saved_model_tags: str = tf.saved_model.SERVING
    batching: Batching | None = None
    session_config: config_pb2.ConfigProto = field(default_factory=config_pb2.ConfigProto)


class Core:
    """Answers requests; every method may be called from any thread.

    Methods named as TensorFlow Serving's take and return its messages, and raise ServingError
    with its codes and texts.
    """

    def __init__(self, settings: Settings | None = None):
        """Starts with no model; `reload` gives it some."""
        self._settings = settings = settings or Settings()
        self._inference = Inference(
            settings.enable_signature_method_name_check,
            settings.enable_serialization_as_tensor_content,
        )
        self._config = model_server_config_pb2.ModelServerConfig()
        self._labels: dict[str, dict[str, int]] = {}
        self._reloading = threading.Lock()
        self._versions = Versions(
            self._load,
            poll_wait_seconds=settings.file_system_poll_wait_seconds,
            max_num_load_retries=settings.max_num_load_retries,
            load_retry_interval_micros=settings.load_retry_interval_micros,
            num_load_threads=settings.num_load_threads,
        )

    def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Any signature, tensors in and out."""
        _need_spec(request)
        with self._servable(request.model_spec) as servable:
            return self._inference.predict(servable, request)

    def classify(
        self, request: classification_pb2.ClassificationRequest
    ) -> classification_pb2.ClassificationResponse:
        """A signature from tf.Examples to classes, scores or both."""
        _need_spec(request)
        with self._servable(request.model_spec) as servable:
            return self._inference.classify(servable, request)

    def regress(
        self, request: regression_pb2.RegressionRequest
    ) -> regression_pb2.RegressionResponse:
        """A signature from tf.Examples to a number each."""
        _need_spec(request)
        with self._servable(request.model_spec) as servable:
            return self._inference.regress(servable, request)

    def multi_inference(
        self, request: inference_pb2.MultiInferenceRequest
    ) -> inference_pb2.MultiInferenceResponse:
        """Several signatures of one model on the same tf.Examples."""
        spec = request.tasks[0].model_spec if request.tasks else model_pb2.ModelSpec()
        with self._servable(spec) as servable:
            return self._inference.multi_inference(servable, request)

    def get_model_metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """The signatures of a version."""
        _need_spec(request)
        if not request.metadata_field:
            raise invalid_argument(
                "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for name in request.metadata_field:
            if name != METADATA_FIELD:
                # The %s is TensorFlow Serving's.
                raise invalid_argument(f"Metadata field %s is not supported{name}")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self._servable(request.model_spec) as servable:
            response.model_spec.name = servable.name
            response.model_spec.version.value = servable.version
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for name, signature in servable.signatures.items():
                signatures.signature_def[name].CopyFrom(signature)
        response.metadata[METADATA_FIELD].Pack(signatures)
        return response

    def get_model_status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """The state of one version, or of all that are or were there, the newest first."""
        _need_spec(request)
        name = request.model_spec.name
        states = self._versions.states(name)
        if request.model_spec.HasField("version"):
            version = request.model_spec.version.value
            if version not in states:
                raise ServingError(
                    grpc.StatusCode.NOT_FOUND, f"Could not find version {version} of model {name}"
                )
            states = {version: states[version]}
        if not states:
            raise ServingError(
                grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {name}"
            )
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, (state, error) in states.items():
            status = response.model_version_status.add(version=version, state=state)
            status.status.error_code = error.code.value[0] if error else 0
            status.status.error_message = error.message if error else ""
        return response

    def handle_reload_config(
        self, request: model_management_pb2.ReloadConfigRequest
    ) -> model_management_pb2.ReloadConfigResponse:
        """Takes another configuration, and waits until the models that it adds answer."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
                "ModelConfigList is currently supported"
            )
        self.reload(request.config)
        return model_management_pb2.ReloadConfigResponse(status={})

    def signature(
        self, model_spec: model_pb2.ModelSpec, signature_name: str
    ) -> meta_graph_pb2.SignatureDef:
        """A signature of the version that would answer, for who must know types and shapes.

        Args:
            model_spec: as in a request.
            signature_name: empty for the default signature.
        """
        name = signature_name or DEFAULT_SIGNATURE
        with self._servable(model_spec) as servable:
            if name not in servable.signatures:
                # As server/http_rest_api_handler.cc says it.
                raise invalid_argument(
                    f'Serving signature name: "{name}" not found in signature def'
                )
            return servable.signatures[name]

    def reload(self, config: model_server_config_pb2.ModelServerConfig) -> None:
        """Takes a configuration, and waits until the models that it adds answer.

        Raises:
            ServingError: the configuration contradicts itself or what is served, in which case
                nothing changes; or a new model can't be loaded.
        """
        with self._reloading:
            kind = config.WhichOneof("config")
            if kind is None and self._config.WhichOneof("config") is None:
                _log.info("Taking no action for empty config.")
                return
            if kind != "model_config_list":
                raise failed_precondition(
                    "Cannot transition to requested config. It is only legal to transition from "
                    "one ModelConfigList to another."
                )
            models = list(config.model_config_list.config)
            _check(models)
            self._labels = self._checked_labels(models)
            _log.info("Adding/updating models.")
            before = {model.name for model in self._config.model_config_list.config}
            self._config = config
            self._versions.set_models(models)
        # Not under the lock: a model that never comes must not keep the next configuration out.
        self._versions.wait_until_available({model.name for model in models} - before)
        _log.info("Finished adding/updating models")

    def close(self) -> None:
        """Waits for the requests that are being answered, and unloads all models."""
        self._versions.close()

    def _load(self, name: str, version: int, folder: str) -> Servable:
        settings = self._settings
        servable = Servable(
            name,
            version,
            folder,
            tags=settings.saved_model_tags.split(","),
            batching=settings.batching,
            session_config=settings.session_config,
        )
        try:
            if settings.enable_model_warmup:
                repetitions = max(1, settings.num_request_iterations_for_warmup)
                warm_up(servable, folder, self._inference, repetitions)
        except BaseException:
            servable.close()
            raise
        return servable

    @contextlib.contextmanager
    def _servable(self, spec: model_pb2.ModelSpec) -> Iterator[Servable]:
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        version: int | None = None
        match spec.WhichOneof("version_choice"):
            case "version":
                version = spec.version.value
            case "version_label":
                version = self._labels.get(spec.name, {}).get(spec.version_label)
                if version is None:
                    raise invalid_argument(
                        f"Unrecognized servable version label: {spec.version_label}"
                    )
        with self._versions.acquire(spec.name, version) as servable:
            yield servable

    def _checked_labels(
        self, models: list[model_server_config_pb2.ModelConfig]
    ) -> dict[str, dict[str, int]]:
        """The labels by model.

        A version that answers may get one; where that is allowed, a new label may point at any.
        """
        for model in models:
            states = self._versions.states(model.name) if model.version_labels else {}
            for label, version in model.version_labels.items():
                moved = self._labels.get(model.name, {}).get(label, version) != version
                state, _ = states.get(version, (None, None))
                allowed = self._settings.allow_version_labels_for_unavailable_models and not moved
                if state != AVAILABLE and not allowed:
                    raise failed_precondition(
                        f"Request to assign label to version {version} of model {model.name}, "
                        "which is not currently available for inference"
                    )
        return {model.name: dict(model.version_labels) for model in models}


def _check(models: list[model_server_config_pb2.ModelConfig]) -> None:
    seen: set[str] = set()
    for model in models:
        if model.name in seen:
            raise invalid_argument(
                f"Illegal to list model {model.name} multiple times in config list"
            )
        seen.add(model.name)
    for model in models:
        if not os.path.isabs(model.base_path):
            raise invalid_argument(
                f"Expected model {model.name} to have an absolute path or URI; got "
                f"base_path()={model.base_path}"
            )
    for model in models:
        _check_platform(model)


def _check_platform(model: model_server_config_pb2.ModelConfig) -> None:
    message = "ModelServerConfig::model_type (deprecated)"
    platform = model.model_platform
    if model.model_type != model_server_config_pb2.MODEL_TYPE_UNSPECIFIED:
        if platform:
            raise invalid_argument(
                f"Illegal setting both {message} and ModelServerConfig::model_platform."
            )
        if model.model_type != model_server_config_pb2.TENSORFLOW:
            raise invalid_argument(
                f"ModelServerConfig::model_type choice {model.model_type} not supported."
            )
        platform = PLATFORM
    if not platform:
        raise invalid_argument(
            f"Illegal setting neither {message} nor ModelServerConfig::model_platform."
        )
    if platform != PLATFORM:
        raise invalid_argument(f"Model {model.name} requests unsupported platform {platform}")


def _need_spec(
    request: predict_pb2.PredictRequest
    | classification_pb2.ClassificationRequest
    | regression_pb2.RegressionRequest
    | get_model_metadata_pb2.GetModelMetadataRequest
    | get_model_status_pb2.GetModelStatusRequest,
) -> None:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")

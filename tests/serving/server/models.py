"""A small SavedModel with signatures like ours, and servers and clients for it."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import tensorflow as tf
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, ModelVersionStatus
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.server.flags import Flags
from serving.server.server import Server
from tests.ports import free_port

IMAGES = [tf.TensorSpec([None], tf.string, name="image")]
POISON = b"poison"


class Photos(tf.Module):
    """A photo's age is its length; `model_version` is the version of the model."""

    def __init__(self, version: int):
        super().__init__()
        self._version = tf.Variable(str(version))

    @tf.function(input_signature=IMAGES)
    def serving_default(self, image):
        length = tf.cast(tf.strings.length(image), tf.float32)
        with tf.control_dependencies([tf.debugging.assert_none_equal(image, POISON)]):
            valid = length > 2
        return {
            "age": tf.where(valid, length, float("nan")),
            "valid": valid,
            "model_version": tf.fill(tf.shape(image), self._version.read_value()),
        }

    @tf.function(input_signature=IMAGES)
    def same(self, image):
        return {"same_bytes": image}

    @tf.function(input_signature=IMAGES)
    def text(self, image):
        return {"text": image}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 2], tf.int64, name="size"),
            tf.TensorSpec([], tf.bool, name="swap"),
        ]
    )
    def pair(self, size, swap):
        return {"size": tf.reverse(size, [1]) if swap else size, "count": tf.shape(size)[0]}

    @tf.function(input_signature=IMAGES)
    def slow(self, image):
        """Takes a second or so."""
        square = tf.fill([512, 512], tf.cast(tf.size(image), tf.float32))
        for _ in tf.range(150):
            square = tf.tanh(square @ square)
        return {"age": tf.fill(tf.shape(image), square[0, 0])}


SIGNATURES = ("serving_default", "same", "text", "pair", "slow")


class ModelFolders:
    """SavedModels that are written once, and copied to where a test wants them."""

    def __init__(self, folder: Path):
        self._folder = folder

    def put(self, base: Path, version: int) -> Path:
        """Puts the complete `base/version` in place by one rename, as a push does."""
        kept = self._folder / str(version)
        if not kept.exists():
            module = Photos(version)
            signatures = {name: getattr(module, name) for name in SIGNATURES}
            tf.saved_model.save(module, str(kept), signatures=signatures)
        base.mkdir(parents=True, exist_ok=True)
        aside = base / f".aside-{version}"
        shutil.copytree(kept, aside)
        return aside.rename(base / str(version))


def config(**bases: Path | str) -> ModelServerConfig:
    """A configuration that serves these models."""
    made = ModelServerConfig()
    for name, base in bases.items():
        made.model_config_list.config.add(
            name=name, base_path=str(base), model_platform="tensorflow"
        )
    return made


def request(*photos: bytes, model: str = "photos", **spec: Any) -> PredictRequest:
    """A request for the ages of photos; `spec` are more fields of the ModelSpec."""
    made = PredictRequest()
    made.model_spec.name = model
    for name, value in spec.items():
        field = getattr(made.model_spec, name)
        if name == "version":
            field.value = value
        else:
            setattr(made.model_spec, name, value)
    made.inputs["image"].CopyFrom(tf.make_tensor_proto(list(photos), tf.string))
    return made


class Client:
    """Calls both services of a server."""

    def __init__(self, channel: grpc.Channel):
        self.channel = channel
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(channel)

    def predict(self, asked: PredictRequest) -> PredictResponse:
        return self.prediction.Predict(asked, timeout=60)

    def version(self, model: str = "photos", **spec: Any) -> int:
        """The version that answers."""
        response = self.predict(request(b"photo", model=model, **spec))
        assert list(response.outputs["age"].float_val) == [5.0]
        assert response.outputs["model_version"].string_val[0].decode() == str(
            response.model_spec.version.value
        )
        return int(response.model_spec.version.value)

    def states(self, model: str = "photos") -> dict[int, str]:
        """State by version."""
        asked = GetModelStatusRequest()
        asked.model_spec.name = model
        try:
            found = self.models.GetModelStatus(asked, timeout=60).model_version_status
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.NOT_FOUND
            return {}
        return {s.version: ModelVersionStatus.State.Name(s.state) for s in found}

    def reload(self, models: ModelServerConfig) -> None:
        self.models.HandleReloadConfigRequest(ReloadConfigRequest(config=models), timeout=60)


def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    """Code and text of the error that a call ends with."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name, str(error.details())
    raise AssertionError("it was answered")


@contextlib.contextmanager
def serving(folder: Path, models: ModelServerConfig, **flags: Any) -> Iterator[Client]:
    """A server in this process; `flags` as on the command line.

    Args:
        folder: takes the configuration file.
        models: what to serve.
        flags: beside those that a test always needs.
    """
    file = folder / "models.config"
    file.write_text(str(models))
    server = Server(flags_of(model_config_file=str(file), **flags))
    try:
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{server.flags.port}") as channel:
            yield Client(channel)
    finally:
        server.stop()


def flags_of(**values: Any) -> Flags:
    """Flags of a server that looks for versions every second and gives up at once."""
    return dataclasses.replace(
        Flags(), **{"port": free_port(), "max_num_load_retries": 0, **values}
    )


def eventually(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Waits until `condition` holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.02)

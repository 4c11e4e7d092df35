"""Small SavedModels, of TF1 and TF2, and what else a server under test needs."""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

from serving.server.core import Core, Settings
from serving.server.grpc_api import GrpcApi
from serving.server.warmup import REQUESTS

FEATURES = {"x": tf.io.FixedLenFeature([1], tf.float32)}


class HalfPlus(tf.Module):
    """Halves and adds its version, so that an answer shows which version gave it."""

    def __init__(self, version: int):
        super().__init__()
        self.added = tf.Variable(float(version))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def serving_default(self, x):
        return {"y": x * 0.5 + self.added}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.float32, name="a"),
            tf.TensorSpec([None], tf.float32, name="b"),
        ]
    )
    def pair(self, a, b):
        return {"sum": a + b, "difference": a - b}

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, name="rows")])
    def rows(self, rows):
        return {"total": tf.reduce_sum(rows, axis=1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def photos(self, image):
        sizes = tf.map_fn(
            lambda photo: tf.shape(tf.io.decode_jpeg(photo))[0], image, fn_output_signature=tf.int32
        )
        return {"height": sizes}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(self, inputs):
        x = tf.io.parse_example(inputs, FEATURES)["x"]
        classes = tf.tile(tf.constant([["low", "high"]]), [tf.shape(x)[0], 1])
        return {"classes": classes, "scores": tf.concat([1 - x, x], axis=1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def regress(self, inputs):
        x = tf.io.parse_example(inputs, FEATURES)["x"]
        return {"outputs": x * 0.5 + self.added}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def slow(self, x):
        """Takes a second or so."""
        square = tf.fill([512, 512], tf.reduce_sum(x))
        for _ in tf.range(150):
            square = tf.tanh(square @ square)
        return {"y": x + 0.0 * square[0, 0]}


def write_tf2(folder: Path, version: int) -> Path:
    """A TF2 SavedModel with a handful of signatures."""
    module = HalfPlus(version)
    names = ("serving_default", "pair", "rows", "photos", "classify", "regress", "slow")
    tf.saved_model.save(module, str(folder), signatures={n: getattr(module, n) for n in names})
    return folder


def write_tf1(folder: Path) -> Path:
    """A TF1 SavedModel: variables of both kinds, a table with initialisers, method names."""
    v1 = tf.compat.v1
    sm = v1.saved_model
    with tf.Graph().as_default(), v1.Session() as session:
        examples = v1.placeholder(tf.string, [None], "examples")
        x = tf.io.parse_example(examples, FEATURES)["x"]
        half = v1.get_variable("half", initializer=0.5, use_resource=False)
        two = v1.get_variable("two", initializer=2.0, use_resource=True)
        y = tf.identity(x * half + two, "y")
        table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(tf.constant([0, 1], tf.int64), ["no", "yes"]), "?"
        )
        classes = table.lookup(tf.cast(x, tf.int64))
        number = v1.placeholder(tf.float32, [None], "number")
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        info = sm.utils.build_tensor_info

        def signature(inputs, outputs, method):
            return sm.signature_def_utils.build_signature_def(
                {name: info(tensor) for name, tensor in inputs.items()},
                {name: info(tensor) for name, tensor in outputs.items()},
                f"tensorflow/serving/{method}",
            )

        builder = sm.Builder(str(folder))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map={
                "serving_default": signature({"x": number}, {"y": number * half + two}, "predict"),
                "regress": signature({"inputs": examples}, {"outputs": y}, "regress"),
                "classify": signature({"inputs": examples}, {"classes": classes}, "classify"),
            },
            main_op=v1.tables_initializer(),
        )
        builder.save()
    return folder


class ModelFolders:
    """SavedModels written once, and copied to where a test wants them."""

    def __init__(self, folder: Path):
        self._folder = folder

    def put(self, base: Path, version: int, *, tf1: bool = False) -> Path:
        """Makes `base/version` appear whole, as a push does."""
        kept = self._folder / ("tf1" if tf1 else str(version))
        if not kept.exists():
            write_tf1(kept) if tf1 else write_tf2(kept, version)
        base.mkdir(parents=True, exist_ok=True)
        aside = base / f".aside-{version}"
        shutil.copytree(kept, aside)
        return aside.rename(base / str(version))


def config(**bases: Path | str) -> model_server_config_pb2.ModelServerConfig:
    """A configuration that serves these models."""
    made = model_server_config_pb2.ModelServerConfig()
    for name, base in bases.items():
        made.model_config_list.config.add(
            name=name, base_path=str(base), model_platform="tensorflow"
        )
    return made


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Client:
    """Both services of a server."""

    def __init__(self, channel: grpc.Channel):
        self.channel = channel
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(channel)

    def predict(self, model: str, **inputs: Any) -> predict_pb2.PredictResponse:
        return self.prediction.Predict(predict_request(model, **inputs), timeout=60)

    def y(self, model: str, x: float = 0.0) -> float:
        """What the default signature makes of a number."""
        return float(self.predict(model, x=np.array([x], np.float32)).outputs["y"].float_val[0])

    def states(self, model: str) -> dict[int, str]:
        """State by version."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        states = get_model_status_pb2.ModelVersionStatus.State
        return {
            status.version: states.Name(status.state)
            for status in self.models.GetModelStatus(request, timeout=60).model_version_status
        }


def predict_request(model: str, **inputs: Any) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def write_warm_up(folder: Path, logs: list[prediction_log_pb2.PredictionLog]) -> None:
    """Has a version play these before it is available."""
    (folder / REQUESTS).parent.mkdir()
    with tf.io.TFRecordWriter(str(folder / REQUESTS)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())


def predict_log(request: predict_pb2.PredictRequest) -> prediction_log_pb2.PredictionLog:
    return prediction_log_pb2.PredictionLog(
        predict_log=prediction_log_pb2.PredictLog(request=request)
    )


@contextlib.contextmanager
def serving(
    models: model_server_config_pb2.ModelServerConfig,
    settings: Settings | None = None,
    **grpc_arguments: Any,
) -> Iterator[tuple[Core, Client]]:
    """A core with these models behind a gRPC server, and a client of it."""
    core = Core(settings or Settings(file_system_poll_wait_seconds=0.05, max_num_load_retries=0))
    try:
        core.reload(models)
        address = f"127.0.0.1:{free_port()}"
        api = GrpcApi(core, addresses=[address], max_threads=32, **grpc_arguments)
        try:
            with grpc.insecure_channel(address) as channel:
                yield core, Client(channel)
        finally:
            api.stop(5)
    finally:
        core.close()


def eventually(condition: Any, seconds: float = 60) -> None:
    """Waits until `condition` holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came to be"
        time.sleep(0.02)

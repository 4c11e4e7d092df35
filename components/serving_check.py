"""ServingCheck: a model server loads the candidate and answers what a point of sale would ask."""

import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2 as status_pb2
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import Examples, InfraBlessing, Model
from tfx.utils import path_utils

from components.gate import REASON
from schemas import features

MODEL_NAME = "candidate"
PATIENCE = 300  # seconds without an answer before the server counts as hung
TOLERANCE = 0.05  # years between a photo's age from the server and from the model itself
ALONE = 5  # photos that are sent one at a time
# By default gRPC waits longer and longer before it tries again to connect to a server.
CONNECT_OFTEN = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100)]


class Unservable(Exception):
    """Why a model can't be served, in one line."""


@component
def ServingCheck(
    model: InputArtifact[Model],
    examples: InputArtifact[Examples],
    blessing: OutputArtifact[InfraBlessing],
    max_batch_size: Parameter[int],
) -> None:
    """Blesses a model that `goodseed serve` loads, and that gives the same ages there as here.

    It sends photos of the test split one at a time, then the largest batch with a broken photo in
    it. TFX's InfraValidator does something similar, but needs Docker or a pod of its own.

    Args:
        model: the candidate.
        examples: raw examples.
        blessing: its custom property `blessed` is 1 or 0, as TFX's Pusher expects; `reason` says
            why.
        max_batch_size: photos in the largest batch.
    """
    folder = Path(path_utils.serving_model_dir(model.uri))
    photos = _photos(examples, max_batch_size)
    try:
        # The server and this process load the model at the same time.
        with ThreadPoolExecutor(1) as pool:
            ages = pool.submit(_ages, folder, photos)
            with _server(folder) as channel:
                _compare(channel, photos, ages.result())
        reason = ""
    except Unservable as error:
        reason = str(error)
    blessing.set_int_custom_property("blessed", int(not reason))
    blessing.set_string_custom_property(REASON, reason)


def _photos(examples: Examples, count: int) -> list[bytes]:
    """`count` photos of the test split, repeated if it has fewer."""
    pattern = artifact_utils.get_split_uri([examples], features.TEST) + "/*"
    records = tf.data.TFRecordDataset(tf.io.gfile.glob(pattern), "GZIP").take(count)
    spec = {features.IMAGE: tf.io.FixedLenFeature([], tf.string)}
    found = [tf.io.parse_single_example(r, spec)[features.IMAGE].numpy() for r in records]
    return list(itertools.islice(itertools.cycle(found), count))


def _ages(folder: Path, photos: list[bytes]) -> np.ndarray:
    """What the model says without a server, years."""
    model = tf.saved_model.load(str(folder))  # its signatures need it
    try:
        serve = model.signatures["serving_default"]
        ages: np.ndarray = serve(**{features.IMAGE: tf.constant(photos)})[features.AGE].numpy()
    except KeyError as error:
        raise Unservable(f"it has no {error.args[0]}") from None
    return ages


@contextmanager
def _server(model: Path) -> Iterator[grpc.Channel]:
    """A channel to a model server in a process of its own, once it has loaded the model."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "model")
        base.mkdir()
        (base / "1").symlink_to(model.absolute())
        socket = Path(folder, "socket")
        command = [
            sys.executable, "-m", "serving.server.main", "--port=0",
            f"--grpc_socket_path={socket}", f"--model_name={MODEL_NAME}",
            f"--model_base_path={base}", "--max_num_load_retries=0",
        ]  # fmt: skip
        log = Path(folder, "log")
        with log.open("w") as file, subprocess.Popen(command, stderr=file) as server:
            try:
                with grpc.insecure_channel(f"unix:{socket}", CONNECT_OFTEN) as channel:
                    _wait(server, log, channel)
                    yield channel
            finally:
                server.kill()


def _wait(server: subprocess.Popen[bytes], log: Path, channel: grpc.Channel) -> None:
    request = status_pb2.GetModelStatusRequest()
    request.model_spec.name = MODEL_NAME
    AVAILABLE = status_pb2.ModelVersionStatus.State.AVAILABLE
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if server.poll() is not None:
            lines = log.read_text(errors="replace").splitlines()
            raise Unservable(f"the model server ended: {lines[-1] if lines else server.returncode}")
        try:
            answer = ModelServiceStub(channel).GetModelStatus(request, timeout=PATIENCE)
        except grpc.RpcError:  # it listens once it has loaded the model
            answer = status_pb2.GetModelStatusResponse()
        if any(version.state == AVAILABLE for version in answer.model_version_status):
            return
        time.sleep(0.1)
    raise Unservable(f"it was not loaded within {PATIENCE} seconds")


def _compare(channel: grpc.Channel, photos: list[bytes], ages: np.ndarray) -> None:
    for photo, age in zip(photos[:ALONE], ages, strict=False):
        _expect(channel, [photo], [age])
    # The broken photo is in the middle, so that the ages after it show rows that got out of place.
    middle = len(photos) // 2
    broken = [*photos[:middle], photos[middle][:100], *photos[middle + 1 :]]
    _expect(channel, broken, [*ages[:middle], np.nan, *ages[middle + 1 :]])


def _expect(channel: grpc.Channel, photos: list[bytes], expected: list[float]) -> None:
    request = PredictRequest()
    request.model_spec.name = MODEL_NAME
    request.inputs[features.IMAGE].CopyFrom(tf.make_tensor_proto(photos))
    try:
        outputs = PredictionServiceStub(channel).Predict(request, timeout=PATIENCE).outputs
    except grpc.RpcError as error:
        said = f"{error.code().name}: {error.details()}".splitlines()[0]
        raise Unservable(f"{len(photos)} photos: {said}") from None
    missing = {features.AGE, features.VALID} - set(outputs)
    if missing:
        raise Unservable(f"it has no output {' and '.join(sorted(missing))}")
    ages, valid = (tf.make_ndarray(outputs[name]) for name in (features.AGE, features.VALID))
    if not np.array_equal(valid, np.isfinite(expected)):
        raise Unservable(f"{len(photos)} photos, one of them broken: others are marked invalid")
    if not np.allclose(ages, expected, rtol=0, atol=TOLERANCE, equal_nan=True):
        off = np.nanmax(np.abs(ages - np.array(expected)))
        raise Unservable(f"the server's ages are up to {off:.2f} years off the model's own")

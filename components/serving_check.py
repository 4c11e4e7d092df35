"""ServingCheck: a model server loads the candidate and answers what a point of sale would ask."""

import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
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

from components import no_faces
from components.gate import REASON
from schemas import features
from serving.versions import push

MODEL_NAME = "candidate"
SIGNATURE = "serving_default"
OUTPUTS = {
    features.AGE: tf.float32,
    features.VALID: tf.bool,
    features.OBJECTION: tf.string,
    features.CHALLENGE: tf.bool,
    features.AGE_LOW: tf.float32,
    features.AGE_HIGH: tf.float32,
    features.P_MINOR: tf.float32,
}
BROKEN: dict[str, float | bytes] = {  # the answer for a broken photo
    features.AGE: np.nan,
    features.VALID: False,
    features.OBJECTION: features.NO_PHOTO.encode(),
    features.CHALLENGE: True,
    features.AGE_LOW: np.nan,
    features.AGE_HIGH: np.nan,
    features.P_MINOR: np.nan,
}
PATIENCE = 300  # seconds without an answer before the server counts as hung
TOLERANCE = 0.05  # years between a photo's age from the server and from the model itself
ALONE = 5  # photos that are sent one at a time
DRAWN = 8  # pictures of each kind
# The kinds that each model has to object to, by `transform.face`. Without a face finder, a model
# knows only how far a picture is from those that it was trained on.
OBJECTED = {
    "find": ("noise", "flat colour", "gradients", "text"),
    "as_is": ("noise", "flat colour"),
}
# Custom property of the blessing: JSON, kind of picture → [how many the model objected to, how many
# were sent]. It is missing if the model could not be asked.
REFUSED = "refused"
# By default gRPC waits longer and longer before it tries again to connect to a server.
CONNECT_OFTEN = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100)]

Answers = dict[str, np.ndarray]  # the OUTPUTS, each of shape [photos]


class Unservable(Exception):
    """Why a model can't be served, in one line."""


@component
def ServingCheck(
    model: InputArtifact[Model],
    examples: InputArtifact[Examples],
    blessing: OutputArtifact[InfraBlessing],
    max_batch_size: Parameter[int],
    face: Parameter[str],
) -> None:
    """Blesses a model that `goodseed serve` loads, and that gives the same answers there as here.

    It sends photos of the test split one at a time, then the largest batch with a broken photo in
    it, then pictures that are no faces. TFX's InfraValidator does something similar, but needs
    Docker or a pod of its own.

    Args:
        model: the candidate.
        examples: raw examples.
        blessing: its custom property `blessed` is 1 or 0, as TFX's Pusher expects; `reason` says
            why; REFUSED says what the model objected to.
        max_batch_size: photos in the largest batch.
        face: `transform.face`; it decides which pictures the model has to object to.
    """
    folder = Path(path_utils.serving_model_dir(model.uri))
    photos = _photos(examples, max_batch_size)
    try:
        # The server and this process load the model at the same time.
        with ThreadPoolExecutor(1) as pool:
            own = pool.submit(_own_answers, folder, photos)
            with _server(folder) as channel:
                _compare(channel, photos, own.result())
                refused = _refused(channel, _no_faces(photos, own.result()))
        blessing.set_string_custom_property(REFUSED, json.dumps(refused))
        reason = _let_through({kind: refused[kind] for kind in OBJECTED[face]})
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


def _own_answers(folder: Path, photos: Sequence[bytes]) -> Answers:
    """What the model says without a server."""
    model = tf.saved_model.load(str(folder))  # its signatures need it
    serve = model.signatures.get(SIGNATURE)
    if serve is None:
        raise Unservable(f"it has no {SIGNATURE}")
    _, inputs = serve.structured_input_signature
    if set(inputs) != {features.IMAGE}:
        raise Unservable(f"its input is {' and '.join(sorted(inputs))}, not {features.IMAGE}")
    for name, dtype in OUTPUTS.items():
        output = serve.structured_outputs.get(name)
        if output is None:
            raise Unservable(f"it has no output {name}")
        if output.dtype != dtype:
            raise Unservable(f"its output {name} is {output.dtype.name}, not {dtype.name}")
    outputs = serve(**{features.IMAGE: tf.constant(photos)})
    answers = {name: outputs[name].numpy() for name in OUTPUTS}
    good = answers[features.VALID] & np.isfinite(answers[features.AGE])
    if not good.all():
        raise Unservable(f"it gives no age for {np.sum(~good)} of {len(photos)} good photos")
    return answers


@contextmanager
def _server(model: Path) -> Iterator[grpc.Channel]:
    """A channel to a model server in a process of its own, once it has loaded the model."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "model")
        push(model, base)
        socket = Path(folder, "socket")
        command = [
            sys.executable, "-m", "serving.server.main", "--port=0",
            f"--grpc_socket_path={socket}", f"--model_name={MODEL_NAME}",
            f"--model_base_path={base}", "--max_num_load_retries=0",
        ]  # fmt: skip
        log = Path(folder, "log")
        with log.open("wb") as file, subprocess.Popen(command, stderr=file) as server:
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
            lines = log.read_text("utf-8", "replace").splitlines()
            raise Unservable(f"the model server ended: {lines[-1] if lines else server.returncode}")
        try:
            answer = ModelServiceStub(channel).GetModelStatus(request, timeout=PATIENCE)
        except grpc.RpcError:  # it listens once it has loaded the model
            answer = status_pb2.GetModelStatusResponse()
        if any(version.state == AVAILABLE for version in answer.model_version_status):
            return
        time.sleep(0.1)
    raise Unservable(f"it was not loaded within {PATIENCE} seconds")


def _compare(channel: grpc.Channel, photos: Sequence[bytes], own: Answers) -> None:
    """Checks the server's answers.

    Raises:
        Unservable: they are not the model's own answers, or those for a broken photo.
    """
    for i in range(min(ALONE, len(photos))):
        _expect(channel, photos[i : i + 1], {name: own[name][i : i + 1] for name in own})
    # The broken photo is in the middle, so that the answers after it show rows out of place.
    middle = len(photos) // 2
    with_broken = [*photos[:middle], photos[middle][:100], *photos[middle + 1 :]]
    is_broken = np.arange(len(photos)) == middle
    _expect(
        channel, with_broken, {name: np.where(is_broken, BROKEN[name], own[name]) for name in own}
    )


def _expect(channel: grpc.Channel, photos: Sequence[bytes], expected: Answers) -> None:
    answers = _ask(channel, photos)
    age, valid, objection = features.AGE, features.VALID, features.OBJECTION
    if not np.array_equal(answers[valid], expected[valid]):
        raise Unservable(f"{len(photos)} photos, one of them broken: others are marked invalid")
    if not np.allclose(answers[age], expected[age], rtol=0, atol=TOLERANCE, equal_nan=True):
        off = np.nanmax(np.abs(answers[age] - expected[age]))
        raise Unservable(f"the server's ages are up to {off:.2f} years off the model's own")
    for said, wanted in zip(answers[objection], expected[objection], strict=True):
        if said != wanted:
            raise Unservable(
                f"the server's objection to a photo is '{said.decode()}', not '{wanted.decode()}'"
            )


def _ask(channel: grpc.Channel, photos: Sequence[bytes]) -> Answers:
    """The server's answers on photos.

    Raises:
        Unservable: there is no answer, or one that makes no sense.
    """
    request = PredictRequest()
    request.model_spec.name = MODEL_NAME
    request.inputs[features.IMAGE].CopyFrom(tf.make_tensor_proto(photos))
    try:
        outputs = PredictionServiceStub(channel).Predict(request, timeout=PATIENCE).outputs
    except grpc.RpcError as error:
        said = f"{error.code().name}: {error.details()}".splitlines()[0]
        raise Unservable(f"{len(photos)} photos: {said}") from None
    answers = {name: tf.make_ndarray(outputs[name]) for name in OUTPUTS}
    doubtful = ~answers[features.VALID] | (answers[features.OBJECTION] != b"")
    if unasked := np.sum(doubtful & ~answers[features.CHALLENGE]):
        raise Unservable(
            f"{unasked} of {len(photos)} photos are invalid or have an objection, and "
            f"{features.CHALLENGE} is false"
        )
    return answers


def _no_faces(photos: Sequence[bytes], own: Answers) -> dict[str, list[bytes]]:
    """Pictures by kind: drawn ones, and photos without an objection that are no longer faces."""
    accepted = [
        photo
        for photo, objection in zip(photos, own[features.OBJECTION], strict=True)
        if not objection
    ]
    return {
        kind: [no_faces.jpeg(image) for image in no_faces.drawn(kind, DRAWN)]
        for kind in no_faces.DRAWN
    } | {
        "upside down": [no_faces.upside_down(photo) for photo in dict.fromkeys(accepted)],
        "half a face": [no_faces.half(photo) for photo in dict.fromkeys(accepted)],
    }


def _refused(channel: grpc.Channel, pictures: dict[str, list[bytes]]) -> dict[str, tuple[int, int]]:
    """How many pictures of each kind the model objects to, and how many were sent."""
    refused = {}
    for kind, sent in pictures.items():
        objections = _ask(channel, sent)[features.OBJECTION] if sent else np.array([])
        refused[kind] = int(np.sum(objections != b"")), len(sent)
    return refused


def _let_through(refused: dict[str, tuple[int, int]]) -> str:
    """Why the model must not go live; empty if it objects to each of these pictures."""
    missed = [f"{sent - n} of {sent} {kind}" for kind, (n, sent) in refused.items() if n < sent]
    if not missed:
        return ""
    return f"it has no objection to pictures that are no faces: {', '.join(missed)}"

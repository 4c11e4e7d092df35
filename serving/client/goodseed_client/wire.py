"""TensorFlow Serving's Predict as bytes, and the channel that they go through."""

from __future__ import annotations

import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from goodseed_client.advice import Failure, Reason
from goodseed_client.predict_pb2 import (
    DT_BOOL,
    DT_FLOAT,
    DT_STRING,
    DataType,
    ModelSpec,
    PredictRequest,
    PredictResponse,
    TensorProto,
)
from schemas import features

PREDICT = "/tensorflow.serving.PredictionService/Predict"

# gRPC itself takes what is none for an address that it can't reach, and 65536 more for a port.
_ADDRESS = re.compile(r"unix:.+|(dns:///)?[^\s/]+:(?P<port>[0-9]{1,5})")

# Beside the age: whether the photo could be read, and (not of every model) whether the model
# itself would rather have ID asked for.
VALID, CHALLENGE = "valid", "challenge"

# A server that was away is tried once a second, so that a call may wait for it; gRPC's default
# pauses grow to two minutes. The minimum is also the time that a connection may take to be made.
# Keepalive finds a peer that vanished between two sales, and its timeout is the kernel's for
# unanswered data, too. A server that thinks that a minute is too often ends the idle connection,
# and the next call makes another.
_CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
)

_NUMPY = {DT_FLOAT: np.dtype("<f4"), DT_BOOL: np.dtype("?")}


class Prediction(NamedTuple):
    """What a model says about one photo; the age is as it came, NaN or worse."""

    age: float  # years
    valid: bool
    challenge: bool

    def check(self) -> None:
        """Raises the Failure why this is no answer: BAD_PHOTO or BAD_ANSWER."""
        if not self.valid:
            raise Failure(Reason.BAD_PHOTO, "the model could not read the photo")
        if not 0 <= self.age <= features.MAX_AGE:  # which NaN is not either
            raise Failure(Reason.BAD_ANSWER, f"an age of {self.age} years")


def open_channel(
    server: str,
    tls_ca: str | PathLike[str] | None,
    tls_cert: str | PathLike[str] | None,
    tls_key: str | PathLike[str] | None,
) -> grpc.Channel:
    """A channel to a server; it connects at the first call.

    Args:
        server: host:port, dns:///host:port or unix:path.
        tls_ca: PEM file of the authorities that the server's certificate is checked against;
            None: no TLS.
        tls_cert: PEM file of the client's own certificate chain, for mutual TLS.
        tls_key: PEM file of its key.

    Raises:
        ValueError: the address is none of these, or a PEM file is missing or unreadable.
    """
    address = _ADDRESS.fullmatch(server)
    if address is None or not 0 < int(address["port"] or 1) <= 65_535:
        raise ValueError(f"server {server!r} is not host:port, with a port from 1 to 65535")
    if (tls_cert is None) != (tls_key is None) or (tls_cert and not tls_ca):
        raise ValueError("mutual TLS takes all of tls_ca, tls_cert and tls_key")
    if tls_ca is None:
        return grpc.insecure_channel(server, _CHANNEL_OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_pem(tls_ca),
        private_key=_pem(tls_key) if tls_key else None,
        certificate_chain=_pem(tls_cert) if tls_cert else None,
    )
    return grpc.secure_channel(server, credentials, _CHANNEL_OPTIONS)


def _pem(path: str | PathLike[str]) -> bytes:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    if b"-----BEGIN " not in data:
        raise ValueError(f"{path} is no PEM file")
    return data


def make_request(jpegs: Sequence[bytes], model: str, signature: str, label: str) -> bytes:
    """The bytes of a PredictRequest; without a label it asks for the newest version."""
    spec = ModelSpec(name=model, signature_name=signature)
    if label:
        spec.version_label = label
    request = PredictRequest(model_spec=spec)
    image = request.inputs[features.IMAGE]
    image.dtype = DT_STRING
    image.tensor_shape.dim.add(size=len(jpegs))
    image.string_val.extend(jpegs)
    return request.SerializeToString()


def read_answer(answer: bytes, photos: int) -> tuple[list[Prediction], int | None]:
    """What the model says about each photo, and its version where the server tells it.

    Outputs that are not known here are ignored: newer models may have more.

    Args:
        answer: the bytes of a PredictResponse.
        photos: how many were asked about.

    Raises:
        Failure: BAD_ANSWER, for anything but known outputs of known types and one row a photo.
    """
    try:
        response = PredictResponse.FromString(answer)
    except DecodeError as error:
        raise Failure(Reason.BAD_ANSWER, f"the answer is no PredictResponse: {error}") from None
    ages = _column(response, features.AGE, DT_FLOAT, photos)
    valid = _column(response, VALID, DT_BOOL, photos)
    if CHALLENGE in response.outputs:
        challenge = _column(response, CHALLENGE, DT_BOOL, photos)
    else:
        challenge = [0.0] * photos
    spec = response.model_spec
    version = spec.version.value if spec.HasField("version") else None
    rows = zip(ages, valid, challenge, strict=True)
    return [Prediction(age, bool(ok), bool(ask)) for age, ok, ask in rows], version


def _column(response: PredictResponse, name: str, dtype: DataType, rows: int) -> list[float]:
    """An output [rows]; its values stand in the field of their type, or as raw memory."""
    if name not in response.outputs:
        found = ", ".join(sorted(response.outputs)) or "none"
        raise Failure(Reason.BAD_ANSWER, f"no output {name}; there are: {found}")
    tensor = response.outputs[name]
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.dtype != dtype or shape != [rows] or tensor.tensor_shape.unknown_rank:
        raise Failure(
            Reason.BAD_ANSWER,
            f"output {name} has type {tensor.dtype} and shape {shape}, not {dtype} and [{rows}]",
        )
    values = _values(tensor)
    if len(values) != rows:
        raise Failure(Reason.BAD_ANSWER, f"output {name} has {len(values)} values, not {rows}")
    return values


def _values(tensor: TensorProto) -> list[float]:
    if not tensor.tensor_content:
        return list(tensor.float_val if tensor.dtype == DT_FLOAT else tensor.bool_val)
    dtype = _NUMPY[tensor.dtype]
    if len(tensor.tensor_content) % dtype.itemsize:
        return []
    values: list[float] = np.frombuffer(tensor.tensor_content, dtype).tolist()
    return values

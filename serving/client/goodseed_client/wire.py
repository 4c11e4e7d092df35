"""The bytes of TensorFlow Serving's Predict, and the channel for them."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from goodseed_client.advice import Failure, Reason
from goodseed_client.ages import MAX_AGE
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

PREDICT = "/tensorflow.serving.PredictionService/Predict"

# gRPC does not report a malformed address: it tries to reach it. It also takes ports modulo 65536.
_ADDRESS = re.compile(r"unix:.+|(dns:///)?(?P<host>[^\s/]+):(?P<port>[0-9]{1,5})")

# The ends of names that are known inside a shop or a cluster only.
_PRIVATE_NAMES = (".localhost", ".local", ".internal", ".svc", ".lan", ".home.arpa")

# The signature's input and outputs. Models without a guard lack OBJECTION and CHALLENGE.
IMAGE = "image"
AGE, VALID, OBJECTION, CHALLENGE = "age", "valid", "objection", "challenge"

# gRPC tries to connect to a lost server once a second, so that a waiting call gets through soon.
# Its default pauses grow to two minutes. The minimum is also the time limit of one attempt.
# Keepalive notices a server that disappeared between two sales. Its timeout also limits how long
# the kernel waits for sent data to be acknowledged. A server may find one ping a minute too many
# and close the idle connection; the next call then opens a new one.
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
    """What a model says about one photo. The age is unchecked: it may be NaN or out of range."""

    age: float  # years
    valid: bool
    objection: str | None  # empty: there is none; None: the model has no such output
    challenge: bool | None  # None: the model has no such output

    def check(self) -> None:
        """Checks that this is an age.

        Raises:
            Failure: BAD_PHOTO or BAD_ANSWER.
        """
        if not self.valid:
            raise Failure(Reason.BAD_PHOTO, "the model could not read the photo")
        if not 0 <= self.age <= MAX_AGE:  # also true for NaN
            raise Failure(Reason.BAD_ANSWER, f"an age of {self.age} years")


def open_channel(
    server: str,
    tls_ca: str | PathLike[str] | None,
    tls_cert: str | PathLike[str] | None,
    tls_key: str | PathLike[str] | None,
) -> grpc.Channel:
    """Opens a channel to a server. It connects at the first call.

    gRPC connects through the proxy of $http_proxy or $https_proxy. But a proxy for the web seldom
    reaches a private address, so for these only $grpc_proxy counts.

    Args:
        server: host:port, dns:///host:port or unix:path.
        tls_ca: PEM file of the certificate authorities to trust; None: no TLS.
        tls_cert: PEM file of the client's own certificate chain, for mutual TLS.
        tls_key: PEM file of its private key.

    Raises:
        ValueError: the address has none of these forms, a PEM file can't be read or used, or the
            key does not fit the certificate.
    """
    address = _ADDRESS.fullmatch(server)
    if address is None or not 0 < int(address["port"] or 1) <= 65_535:
        raise ValueError(f"server {server!r} is not host:port, with a port from 1 to 65535")
    if (tls_cert is None) != (tls_key is None) or (tls_cert and not tls_ca):
        raise ValueError("mutual TLS needs all of tls_ca, tls_cert and tls_key")
    direct = _is_private(address["host"] or "") and not os.environ.get("grpc_proxy")  # noqa: SIM112
    options = (*_CHANNEL_OPTIONS, ("grpc.enable_http_proxy", int(not direct)))
    if tls_ca is None:
        return grpc.insecure_channel(server, options)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_read(tls_ca),
        private_key=_read(tls_key) if tls_key else None,
        certificate_chain=_read(tls_cert) if tls_cert else None,
    )
    _check_tls(tls_ca, tls_cert, tls_key)
    return grpc.secure_channel(server, credentials, options)


def _is_private(host: str) -> bool:
    """Whether a name or an address is known inside a shop or a cluster only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_private
    except ValueError:
        return "." not in host or host.lower().endswith(_PRIVATE_NAMES)


def _read(path: str | PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None


def _check_tls(
    tls_ca: str | PathLike[str],
    tls_cert: str | PathLike[str] | None,
    tls_key: str | PathLike[str] | None,
) -> None:
    """Uses the files once. gRPC would find a mistake at each call, and not say in which file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        file, mistake = tls_ca, "holds no certificate"
        context.load_verify_locations(tls_ca)
        if tls_cert:
            file, mistake = tls_cert, f"can't be used with the key {tls_key}"
            context.load_cert_chain(tls_cert, tls_key, password="")  # "": it does not ask for one
    except ssl.SSLError as error:
        raise ValueError(f"{file} {mistake} ({error.reason or 'not PEM'})") from None


def make_request(jpegs: Sequence[bytes], model: str, signature: str, label: str) -> bytes:
    """The bytes of a PredictRequest. An empty label asks for the newest version."""
    spec = ModelSpec(name=model, signature_name=signature)
    if label:
        spec.version_label = label
    request = PredictRequest(model_spec=spec)
    image = request.inputs[IMAGE]
    image.dtype = DT_STRING
    image.tensor_shape.dim.add(size=len(jpegs))
    image.string_val.extend(jpegs)
    return request.SerializeToString()


def read_answer(answer: bytes, photos: int) -> tuple[list[Prediction], int | None]:
    """What the model says about each photo, and the model's version if the server tells it.

    Other outputs are ignored: newer models may have more.

    Args:
        answer: the bytes of a PredictResponse.
        photos: number of photos in the request.

    Raises:
        Failure: BAD_ANSWER: an output is missing, has another type or not one value per photo.
    """
    try:
        response = PredictResponse.FromString(answer)
    except DecodeError as error:
        raise Failure(Reason.BAD_ANSWER, f"the answer is not a PredictResponse: {error}") from None
    columns = (
        _column(response, AGE, DT_FLOAT, photos),
        _column(response, VALID, DT_BOOL, photos),
        _column_if_any(response, OBJECTION, DT_STRING, photos),
        _column_if_any(response, CHALLENGE, DT_BOOL, photos),
    )
    spec = response.model_spec
    version = spec.version.value if spec.HasField("version") else None
    return [Prediction(*row) for row in zip(*columns, strict=True)], version


def _column_if_any(response: PredictResponse, name: str, dtype: DataType, rows: int) -> list[Any]:
    """The values of an output that older models do not have; then None for each row."""
    return _column(response, name, dtype, rows) if name in response.outputs else [None] * rows


def _column(response: PredictResponse, name: str, dtype: DataType, rows: int) -> list[Any]:
    """The values of one output of shape [rows]: float, bool or str."""
    if name not in response.outputs:
        found = ", ".join(sorted(response.outputs)) or "none"
        raise Failure(Reason.BAD_ANSWER, f"no output {name}; the outputs are: {found}")
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


def _values(tensor: TensorProto) -> list[Any]:
    """A tensor's values, from raw memory (`tensor_content`) or from the field of its type.

    Strings are never raw memory.
    """
    if tensor.dtype == DT_STRING:
        return [value.decode(errors="replace") for value in tensor.string_val]
    if not tensor.tensor_content:
        return list(tensor.float_val if tensor.dtype == DT_FLOAT else tensor.bool_val)
    dtype = _NUMPY[tensor.dtype]
    if len(tensor.tensor_content) % dtype.itemsize:
        return []
    values: list[Any] = np.frombuffer(tensor.tensor_content, dtype).tolist()
    return values

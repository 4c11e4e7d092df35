"""The command line, in the form of `tensorflow_model_server`: `--flag=value`.

These are the flags that k8s/ and the documentation use. Any other flag is an error.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Any


class FlagError(ValueError):
    """A mistake in the command line; its text is one line."""


def _flag(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class Flags:
    """What the command line says; the defaults are TensorFlow Serving's, or the text says so."""

    port: int = _flag(8500, "TCP port of the gRPC API; 0: none.")
    host: str = _flag(
        "127.0.0.1",
        "Address that the gRPC and REST APIs listen at. tensorflow_model_server has no such flag: "
        "it listens everywhere, which here takes --host=0.0.0.0.",
    )
    grpc_socket_path: str = _flag("", "UNIX socket to serve the gRPC API at, too.")
    rest_api_port: int = _flag(0, "Port of the REST API, other than --port; 0: none.")
    rest_api_timeout_in_ms: int = _flag(
        30_000, "Longest time of a REST call in milliseconds; 0: no bound."
    )
    model_name: str = _flag("default", "Name of the model (without --model_config_file).")
    model_base_path: str = _flag(
        "", "Folder with the version folders of the model (without --model_config_file)."
    )
    model_config_file: str = _flag(
        "",
        "ModelServerConfig as text proto: the models, their version policies and labels. "
        "--model_name and --model_base_path are then ignored.",
    )
    model_config_file_poll_wait_seconds: int = _flag(
        0, "Seconds between two looks at --model_config_file; 0: it is read once."
    )
    file_system_poll_wait_seconds: int = _flag(
        1, "Seconds between two looks for new versions; 0: one look; below 0: no look."
    )
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, "Let a new version label point at a version that is not loaded yet."
    )
    max_num_load_retries: int = _flag(5, "How often a load that failed is tried again.")
    load_retry_interval_micros: int = _flag(60_000_000, "Wait before each try, microseconds.")
    enable_model_warmup: bool = _flag(
        True, "Play assets.extra/tf_serving_warmup_requests before a version answers."
    )
    enable_batching: bool = _flag(False, "Run requests that meet in one batch.")
    batching_parameters_file: str = _flag(
        "",
        "BatchingParameters as text proto. max_batch_size and max_enqueued_batches count. The "
        "others have no effect: batches do not wait, one runs at a time, and none is padded.",
    )
    tensorflow_intra_op_parallelism: int = _flag(0, "Threads in an operation; 0: one per core.")
    tensorflow_inter_op_parallelism: int = _flag(0, "Operations at once; 0: one per core.")
    grpc_max_threads: int = _flag(
        64, "gRPC requests that are answered at once, and REST requests; more of them wait."
    )
    grpc_channel_arguments: str = _flag(
        "", "Arguments for gRPC, name=value, separated by commas (grpc.max_connection_age_ms=2000)."
    )
    ssl_config_file: str = _flag(
        "", "SSLConfig as text proto: TLS for the gRPC API; with client_verify, mutual TLS."
    )
    enable_grpc_healthcheck_service: bool = _flag(False, "Serve grpc.health.v1.")
    monitoring_config_file: str = _flag(
        "", "MonitoringConfig as text proto: Prometheus metrics at the REST API's port."
    )
    version: bool = _flag(False, "Print the version and exit.")


_FIELDS = {field.name: field for field in dataclasses.fields(Flags)}


def parse(arguments: Sequence[str]) -> Flags:
    """Reads the arguments.

    Raises:
        FlagError: an argument is unknown, or a value does not fit.
    """
    values: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.removeprefix("--").partition("=")
        field = _FIELDS.get(name)
        if field is None or not argument.startswith("--"):
            raise FlagError(f"unknown argument: {argument}")
        if not equals:
            if not isinstance(field.default, bool):
                raise FlagError(f"unknown argument: {argument} (it takes a value: {argument}=…)")
            text = "true"
        try:
            values[name] = _value(type(field.default), text)
        except ValueError as error:
            raise FlagError(f"Couldn't interpret value {text} for flag {name}.") from error
    flags = Flags(**values)
    if not flags.version:
        _check(flags)
    return flags


def _value(kind: type, text: str) -> Any:
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError(text)
        return text == "true"
    value = kind(text)
    if kind is int and abs(value) >= 2**63:
        raise ValueError(text)
    return value


def _check(flags: Flags) -> None:
    if not (flags.model_base_path or flags.model_config_file):
        raise FlagError("--model_base_path or --model_config_file is needed")
    for name in ("port", "rest_api_port"):
        if not 0 <= getattr(flags, name) <= 65_535:  # gRPC would take the remainder
            raise FlagError(f"--{name} must be from 0 to 65535; was {getattr(flags, name)}")
    if not (flags.port or flags.grpc_socket_path):
        raise FlagError("--port=0 needs --grpc_socket_path")
    if flags.rest_api_port and flags.rest_api_port == flags.port:
        raise FlagError("--rest_api_port must be another than --port")
    if flags.batching_parameters_file and not flags.enable_batching:
        raise FlagError("--batching_parameters_file needs --enable_batching")
    for name in ("rest_api_timeout_in_ms", "tensorflow_intra_op_parallelism",
                 "tensorflow_inter_op_parallelism"):  # fmt: skip
        if getattr(flags, name) < 0:
            raise FlagError(f"--{name} must be at least 0")
    if flags.grpc_max_threads < 1:
        raise FlagError("--grpc_max_threads must be at least 1")


def usage() -> str:
    """All flags with defaults and texts."""
    lines = ["usage: goodseed serve --model_base_path=DIR [--model_name=NAME] [--flag=value …]"]
    for name, field in _FIELDS.items():
        lines.append(f"  --{name}={_shown(field.default)}")
        lines += textwrap.wrap(
            field.metadata["help"], 96, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)

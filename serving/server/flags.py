"""The command line, in the form of `tensorflow_model_server`: `--flag=value`.

These are the flags that k8s/ and the documentation use. Any other flag is an error.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any


def _flag(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class Flags:
    """What the command line says; the defaults are TensorFlow Serving's, or the text says so."""

    port: int = _flag(8500, "TCP port of the gRPC API; 0: none")
    host: str = _flag(
        "127.0.0.1",
        "address of the gRPC and REST APIs; tensorflow_model_server, which has no such flag, "
        "listens everywhere: that is --host=0.0.0.0",
    )
    grpc_socket_path: str = _flag("", "UNIX socket that also serves the gRPC API")
    rest_api_port: int = _flag(0, "port of the REST API, other than --port; 0: none")
    rest_api_timeout_in_ms: int = _flag(30_000, "longest time of a REST call; 0: no bound")
    model_name: str = _flag("default", "name of the model")
    model_base_path: str = _flag("", "folder with the version folders of the model")
    model_config_file: str = _flag(
        "", "ModelServerConfig, text proto: models with version policies and labels, instead of "
        "--model_name and --model_base_path",
    )  # fmt: skip
    model_config_file_poll_wait_seconds: int = _flag(
        0, "seconds between two looks at --model_config_file; 0: it is read once"
    )
    file_system_poll_wait_seconds: int = _flag(
        1, "seconds between two looks for new versions; 0: one look; below 0: none"
    )
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, "let a new version label point at a version that is not loaded yet"
    )
    max_num_load_retries: int = _flag(5, "how often a load that failed is tried again")
    load_retry_interval_micros: int = _flag(60_000_000, "wait before each try, microseconds")
    enable_model_warmup: bool = _flag(
        True, "run the requests of assets.extra/tf_serving_warmup_requests before a version answers"
    )
    enable_batching: bool = _flag(False, "run requests that meet in one batch")
    batching_parameters_file: str = _flag(
        "", "BatchingParameters, text proto; of these, only max_batch_size and "
        "max_enqueued_batches have an effect: batches do not wait, one runs at a time, and none "
        "is padded or split",
    )  # fmt: skip
    tensorflow_intra_op_parallelism: int = _flag(0, "threads in an operation; 0: one per core")
    tensorflow_inter_op_parallelism: int = _flag(0, "operations at once; 0: one per core")
    grpc_max_threads: int = _flag(64, "gRPC requests answered at once, and REST requests as well")
    grpc_channel_arguments: str = _flag(
        "", "arguments for gRPC, name=value, separated by commas: grpc.max_connection_age_ms=2000"
    )
    ssl_config_file: str = _flag(
        "", "SSLConfig, text proto: TLS for the gRPC API; with client_verify, mutual TLS"
    )
    enable_grpc_healthcheck_service: bool = _flag(False, "serve grpc.health.v1")
    monitoring_config_file: str = _flag(
        "", "MonitoringConfig, text proto: Prometheus metrics at the REST API's port"
    )
    version: bool = _flag(False, "print the version and exit")


_BOUNDS = {
    "port": (0, 65_535),  # gRPC would take the remainder
    "rest_api_port": (0, 65_535),
    "rest_api_timeout_in_ms": (0, 86_400_000),
    "tensorflow_intra_op_parallelism": (0, 1024),
    "tensorflow_inter_op_parallelism": (0, 1024),
    "grpc_max_threads": (1, 10_000),
}


def parse(arguments: Sequence[str]) -> Flags:
    """Reads the arguments. A mistake in them ends the process with one line and status 2."""
    parser = argparse.ArgumentParser(
        "goodseed serve", "goodseed serve --model_base_path=DIR [--flag=value …]",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    for field in dataclasses.fields(Flags):
        options: dict[str, Any] = {"default": field.default, "help": field.metadata["help"]}
        if isinstance(field.default, bool):
            options |= {"nargs": "?", "const": True, "type": _boolean, "metavar": "true|false"}
        else:
            options |= {"type": type(field.default), "metavar": "VALUE"}
        parser.add_argument(f"--{field.name}", **options)
    flags = Flags(**vars(parser.parse_args(arguments)))
    if not flags.version:
        _check(flags, parser)
    return flags


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text == "true"


def _check(flags: Flags, parser: argparse.ArgumentParser) -> None:
    if not (flags.model_base_path or flags.model_config_file):
        parser.error("--model_base_path or --model_config_file is needed")
    if not (flags.port or flags.grpc_socket_path):
        parser.error("--port=0 needs --grpc_socket_path")
    if flags.rest_api_port and flags.rest_api_port == flags.port:
        parser.error("--rest_api_port must differ from --port")
    if flags.batching_parameters_file and not flags.enable_batching:
        parser.error("--batching_parameters_file needs --enable_batching")
    for name, (least, most) in _BOUNDS.items():
        if not least <= getattr(flags, name) <= most:
            parser.error(f"--{name} must be from {least} to {most}; was {getattr(flags, name)}")

"""The command line of `tensorflow_model_server`, flag by flag (model_servers/main.cc, server.h).

Written as there: `--flag=value`; of a flag that is true or false also `--flag` alone.
"""

from __future__ import annotations

import dataclasses
import os
import textwrap
from collections.abc import Sequence
from typing import Any

_NO_EFFECT = "No effect here: "
_INT64 = 2**63 - 1
_CORES = os.cpu_count() or 1
# There: four for each core, and what comes in beyond them is refused as RESOURCE_EXHAUSTED. Here it
# waits, and a thread that waits for its batch costs nothing: there are enough of them to fill one.
_GRPC_THREADS = max(64, 4 * _CORES)


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
        "Address that the gRPC and REST APIs listen at. The one flag that tensorflow_model_server "
        "does not have: it listens at 0.0.0.0, everywhere, which here takes --host=0.0.0.0.",
    )
    grpc_socket_path: str = _flag("", "UNIX socket to serve the gRPC API at, too.")
    rest_api_port: int = _flag(0, "Port of the REST API, other than --port; 0: none.")
    rest_api_num_threads: int = _flag(4 * _CORES, "REST calls answered at once; more wait.")
    rest_api_timeout_in_ms: int = _flag(
        30_000,
        "Timeout of REST calls, milliseconds. A prediction that runs by then goes on, unanswered; "
        "there it is stopped, unless others are in its batch.",
    )
    rest_api_enable_cors_support: bool = _flag(
        False, "Let pages from elsewhere call the REST API from a browser (CORS)."
    )
    enable_batching: bool = _flag(False, "Run requests of several clients in one batch.")
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, "Let a new version label point at a version that is not available yet."
    )
    batching_parameters_file: str = _flag(
        "",
        "BatchingParameters, text proto. pad_variable_length_inputs has no effect: requests whose "
        "shapes differ are run by themselves.",
    )
    enable_per_model_batching_parameters: bool = _flag(
        False, _NO_EFFECT + "--batching_parameters_file is for all models."
    )
    model_config_file: str = _flag(
        "",
        "ModelServerConfig, text proto: the models to serve, their version policies and labels. "
        "--model_name and --model_base_path are then ignored.",
    )
    model_config_file_poll_wait_seconds: int = _flag(
        0, "Seconds between two looks at --model_config_file; 0: it is read once."
    )
    model_name: str = _flag("default", "Name of the model (without --model_config_file).")
    model_base_path: str = _flag(
        "", "Folder with the version folders of the model (without --model_config_file)."
    )
    num_load_threads: int = _flag(0, "Versions that are loaded at once; 0 counts as 1.")
    num_unload_threads: int = _flag(0, _NO_EFFECT + "each version is unloaded by itself.")
    max_num_load_retries: int = _flag(5, "How often a load that failed is tried again.")
    load_retry_interval_micros: int = _flag(
        60_000_000, "Wait before each further try, microseconds; below 0: none."
    )
    file_system_poll_wait_seconds: int = _flag(
        1,
        "Seconds between two looks for new versions; 0: one look; below 0: no look, so that the "
        "server waits for ever.",
    )
    flush_filesystem_caches: bool = _flag(True, _NO_EFFECT + "the system sees to its caches.")
    tensorflow_session_parallelism: int = _flag(
        0, "Threads of TensorFlow, both within and between operations; 0: one per core."
    )
    tensorflow_session_config_file: str = _flag("", "ConfigProto of the sessions, text proto.")
    tensorflow_intra_op_parallelism: int = _flag(0, "Threads within an operation; 0: see above.")
    tensorflow_inter_op_parallelism: int = _flag(0, "Operations at once; 0: see above.")
    use_alts_credentials: bool = _flag(False, "Not supported here: an error if true.")
    ssl_config_file: str = _flag(
        "", "SSLConfig, text proto: TLS for the gRPC API, with client_verify mutual TLS."
    )
    platform_config_file: str = _flag("", "Not supported here: an error if set.")
    per_process_gpu_memory_fraction: float = _flag(
        0.0, "Share of a GPU's memory to take; 0: as much as is needed."
    )
    saved_model_tags: str = _flag("serve", "Tags of the graph to load, separated by commas.")
    grpc_channel_arguments: str = _flag(
        "", "Arguments for gRPC, name=value, separated by commas (grpc.max_connection_age_ms=2000)."
    )
    grpc_max_threads: int = _flag(
        _GRPC_THREADS,
        "gRPC requests that are answered at once; more wait. There: four for each core, and more "
        "are refused.",
    )
    enable_model_warmup: bool = _flag(
        True, "Play assets.extra/tf_serving_warmup_requests before a version is available."
    )
    num_request_iterations_for_warmup: int = _flag(0, "How often each is played; 0 counts as 1.")
    version: bool = _flag(False, "Print the version and exit.")
    monitoring_config_file: str = _flag(
        "", "MonitoringConfig, text proto: Prometheus metrics at the REST API's port."
    )
    remove_unused_fields_from_bundle_metagraph: bool = _flag(
        True, _NO_EFFECT + "nothing but the signatures is kept."
    )
    prefer_tflite_model: bool = _flag(False, _NO_EFFECT + "saved_model.pb is loaded.")
    num_tflite_pools: int = _flag(_CORES, _NO_EFFECT + "no TFLite models.")
    num_tflite_interpreters_per_pool: int = _flag(1, _NO_EFFECT + "no TFLite models.")
    enable_signature_method_name_check: bool = _flag(
        False, "Refuse a signature made for another method than is called; not for TF2 models."
    )
    xla_cpu_compilation_enabled: bool = _flag(False, _NO_EFFECT + "as TensorFlow decides.")
    xla_gpu_compilation_enabled: bool = _flag(False, _NO_EFFECT + "as TensorFlow decides.")
    enable_profiler: bool = _flag(True, _NO_EFFECT + "there is no profiler service.")
    thread_pool_factory_config_file: str = _flag("", _NO_EFFECT + "TensorFlow's own pools.")
    mixed_precision: str = _flag("", _NO_EFFECT + "models run as they were saved.")
    skip_initialize_tpu: bool = _flag(False, _NO_EFFECT + "no TPUs.")
    enable_grpc_healthcheck_service: bool = _flag(False, "Serve grpc.health.v1.")
    enable_serialization_as_tensor_content: bool = _flag(
        False, "Answer Predict's numbers as tensor_content instead of one by one."
    )


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
    return Flags(**values)


def _value(kind: type, text: str) -> Any:
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError(text)
        return text == "true"
    value = kind(text)
    if kind is int and abs(value) > _INT64:
        raise ValueError(text)
    return value


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

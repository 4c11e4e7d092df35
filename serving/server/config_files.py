"""Text protos that the flags name.

tensorflow-serving-api does not ship SSLConfig, MonitoringConfig and BatchingParameters: they are
described here as in TensorFlow Serving's ssl_config.proto, monitoring_config.proto and
session_bundle_config.proto.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message,
    message_factory,
    text_format,
    wrappers_pb2,
)

from serving.server.errors import invalid_argument, not_found

M = TypeVar("M", bound=message.Message)

# Fields in the order of their numbers; a name of a message is its type.
_FILE = """
name: "serving/server/config_files.proto" package: "tensorflow.serving" syntax: "proto3"
dependency: "google/protobuf/wrappers.proto"
"""
_MESSAGES = {
    "SSLConfig": {
        "server_key": "STRING",
        "server_cert": "STRING",
        "custom_ca": "STRING",
        "client_verify": "BOOL",
    },
    "PrometheusConfig": {"enable": "BOOL", "path": "STRING"},
    "MonitoringConfig": {"prometheus_config": ".tensorflow.serving.PrometheusConfig"},
    "BatchingParameters": {
        "max_batch_size": ".google.protobuf.Int64Value",
        "batch_timeout_micros": ".google.protobuf.Int64Value",
        "max_enqueued_batches": ".google.protobuf.Int64Value",
        "num_batch_threads": ".google.protobuf.Int64Value",
        "thread_pool_name": ".google.protobuf.StringValue",
        "allowed_batch_sizes": "repeated INT64",
        "pad_variable_length_inputs": "BOOL",
        "enable_large_batch_splitting": ".google.protobuf.BoolValue",
        "max_execution_batch_size": ".google.protobuf.Int64Value",
    },
}


def _classes() -> dict[str, Any]:
    file = text_format.Parse(_FILE, descriptor_pb2.FileDescriptorProto())
    for name, fields in _MESSAGES.items():
        described = file.message_type.add(name=name)
        for number, (field, text) in enumerate(fields.items(), start=1):
            kind = text.removeprefix("repeated ")
            added = described.field.add(name=field, number=number)
            added.label = added.LABEL_REPEATED if kind != text else added.LABEL_OPTIONAL
            if kind.startswith("."):
                added.type_name = kind
            else:
                added.type = added.Type.Value(f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClassesForFiles([file.name], pool)


_CLASSES = _classes()
SSLConfig: Any = _CLASSES["tensorflow.serving.SSLConfig"]
MonitoringConfig: Any = _CLASSES["tensorflow.serving.MonitoringConfig"]
BatchingParameters: Any = _CLASSES["tensorflow.serving.BatchingParameters"]


def parse(path: str, into: M) -> M:
    """Fills `into` from the text proto at `path`, and returns it.

    Raises:
        ServingError: it can't be read, or is not such a message; the text says where.
    """
    try:
        return text_format.Parse(Path(path).read_text(encoding="utf-8"), into)
    except OSError as error:
        raise not_found(f"{path}; {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise invalid_argument(f"Invalid protobuf file: '{path}': not UTF-8") from error
    except text_format.ParseError as error:
        raise invalid_argument(f"Invalid protobuf file: '{path}': {error}") from error

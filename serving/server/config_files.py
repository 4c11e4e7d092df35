"""Text protos that the flags name.

tensorflow-serving-api does not ship SSLConfig, MonitoringConfig and BatchingParameters: they are
described here as in TensorFlow Serving's ssl_config.proto, monitoring_config.proto and
session_bundle_config.proto.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import message, message_factory, text_format, wrappers_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from serving.server.errors import invalid_argument, not_found

M = TypeVar("M", bound=message.Message)

_NUMBER = ".google.protobuf.Int64Value"

# Fields in the order of their numbers: a scalar type, or the name of a message.
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
        "max_batch_size": _NUMBER,
        "batch_timeout_micros": _NUMBER,
        "max_enqueued_batches": _NUMBER,
        "num_batch_threads": _NUMBER,
        "thread_pool_name": ".google.protobuf.StringValue",
        "allowed_batch_sizes": "INT64",
        "pad_variable_length_inputs": "BOOL",
        "enable_large_batch_splitting": ".google.protobuf.BoolValue",
        "max_execution_batch_size": _NUMBER,
    },
}
_REPEATED = "allowed_batch_sizes"


def _classes() -> dict[str, Any]:
    file = FileDescriptorProto(name="config_files", package="tensorflow.serving", syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    for name, fields in _MESSAGES.items():
        described = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), start=1):
            added = described.field.add(name=field, number=number)
            added.label = added.LABEL_REPEATED if field == _REPEATED else added.LABEL_OPTIONAL
            if kind.startswith("."):
                added.type_name = kind
            else:
                added.type = added.Type.Value(f"TYPE_{kind}")
    pool = DescriptorPool()
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
    except (UnicodeDecodeError, text_format.ParseError) as error:
        raise invalid_argument(f"Invalid protobuf file: '{path}': {error}") from error

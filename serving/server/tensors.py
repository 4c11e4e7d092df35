"""TensorProto to numpy and back.

A tensor from outside is checked here, by its type, its shape and the number of its values, before
any memory is taken for it and before TensorFlow sees it.
"""

from __future__ import annotations

import math

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from serving.server.errors import ServingError, invalid_argument

# TensorFlow's conversion of strings crashes on more dimensions than that.
_MAX_RANK = 32

_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int64: "int64_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
    **dict.fromkeys((tf.int32, tf.int16, tf.int8, tf.uint16, tf.uint8), "int_val"),
    **dict.fromkeys((tf.float16, tf.bfloat16), "half_val"),
}


def to_array(name: str, proto: tensor_pb2.TensorProto, spec: tf.TensorSpec) -> np.ndarray:
    """The tensor in a message.

    Args:
        name: of the input, for the error's text.
        proto: the message.
        spec: what the signature takes.

    Raises:
        ServingError: INVALID_ARGUMENT; the message does not fit `spec` or contradicts itself.
    """
    if proto.dtype != spec.dtype.as_datatype_enum:
        raise invalid_argument(f"input {name} has to be of type {spec.dtype.name}")
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or len(shape) > _MAX_RANK:
        raise invalid_argument(f"input {name} has to have 0 to {_MAX_RANK} dimensions")
    if min(shape, default=0) < 0 or not spec.shape.is_compatible_with(shape):
        raise invalid_argument(f"input {name} has the shape {shape}, expected is {spec.shape}")
    _check_values(name, proto, spec.dtype, math.prod(shape))
    try:
        return np.asarray(tf.make_ndarray(proto))
    except (TypeError, ValueError, OverflowError) as error:
        raise invalid_argument(f"input {name}: {error}") from error


def _check_values(name: str, proto: tensor_pb2.TensorProto, dtype: tf.DType, expected: int) -> None:
    """Refuses a message that carries more or fewer values than its shape has."""
    carried = len(getattr(proto, _field(dtype)))
    if proto.tensor_content:
        if dtype is tf.string:
            raise invalid_argument(f"input {name}: strings belong in string_val")
        carried, rest = divmod(len(proto.tensor_content), dtype.size)
        if rest:
            raise invalid_argument(f"input {name}: tensor_content ends within a value")
    if carried != expected:
        raise invalid_argument(
            f"input {name}: its shape has {expected} values, the message has {carried}"
        )


def to_proto(array: np.ndarray, dtype: tf.DType) -> tensor_pb2.TensorProto:
    """The message of a tensor, its values one by one in the field of their type.

    Raises:
        ServingError: UNIMPLEMENTED; messages here have no field for `dtype`.
    """
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    values = array.reshape(-1)
    if dtype in (tf.float16, tf.bfloat16):
        values = values.view(np.uint16)  # half_val holds the bits
    getattr(proto, _field(dtype)).extend(values.tolist())
    return proto


def _field(dtype: tf.DType) -> str:
    if dtype not in _FIELDS:
        raise ServingError(
            grpc.StatusCode.UNIMPLEMENTED, f"tensors of type {dtype.name} are not supported"
        )
    return _FIELDS[dtype]

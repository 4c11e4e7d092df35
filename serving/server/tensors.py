"""TensorProto to numpy and back, as TensorFlow Serving's C++ does it."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

# A message may name a huge shape and carry a single value, which then counts for all: more than
# this is not believed. What a message carries itself is bounded by gRPC's message size.
MAX_REPEATED_BYTES = 64 * 2**20

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
    tf.complex64: "scomplex_val",
    tf.complex128: "dcomplex_val",
}
_TYPES = {kind.as_datatype_enum: kind for kind in _FIELDS}
# Two numbers for each complex one; the bits of a half.
_VIEWS = {
    tf.float16: np.uint16,
    tf.bfloat16: np.uint16,
    tf.complex64: np.float32,
    tf.complex128: np.float64,
}


def type_name(kind: int) -> str:
    """TensorFlow's own name of a DataType, as float, int64 and string."""
    return str(types_pb2.DataType.Name(kind)).removeprefix("DT_").lower()


def to_array(proto: tensor_pb2.TensorProto) -> np.ndarray:
    """The tensor in a message.

    As in TensorFlow, the last value stands for those that are missing.

    Raises:
        ValueError: no tensor can be made of it.
    """
    kind = _TYPES.get(proto.dtype)
    if kind is None or proto.tensor_shape.unknown_rank:
        raise ValueError("not a dense tensor")
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if min(shape, default=0) < 0:
        raise ValueError("negative dimension")
    elements = math.prod(shape)
    if not proto.tensor_content:
        carried = len(getattr(proto, _FIELDS[kind]))
        if carried > elements and kind not in (tf.complex64, tf.complex128):
            raise ValueError("more values than the shape has places")
        if elements > max(carried, MAX_REPEATED_BYTES // (kind.size or 8)):
            raise ValueError("too large")
        if not carried and kind is not tf.string:
            return np.zeros(shape, kind.as_numpy_dtype)
    elif kind is tf.string:
        raise ValueError("strings are carried in string_val")
    return np.asarray(tf.make_ndarray(proto))


def to_proto(array: np.ndarray, kind: int, *, as_content: bool = False) -> tensor_pb2.TensorProto:
    """The message of a tensor.

    Args:
        array: what a session gave.
        kind: its DataType.
        as_content: numbers as raw bytes instead of one by one.
    """
    proto = tensor_pb2.TensorProto(dtype=kind)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    element = _TYPES[kind]
    if as_content and element is not tf.string:
        proto.tensor_content = array.tobytes()
        return proto
    flat = array.reshape(-1)
    if element in _VIEWS:
        flat = np.ascontiguousarray(flat).view(_VIEWS[element])
    getattr(proto, _FIELDS[element]).extend(flat.tolist())
    return proto

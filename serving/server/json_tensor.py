"""JSON of the REST API ↔ the messages of the gRPC API, by TensorFlow Serving's rules.

Formats: https://www.tensorflow.org/tfx/serving/api_rest. Rules and messages of errors where that
is silent: tensorflow_serving/util/json_tensor.cc. Where the two differ, the page counts: a whole
number that a float can't hold exactly is rounded, not refused.

Known differences: a string that is not UTF-8 is an error; a name that an object has twice counts
once; a number too large for int8, uint8 or int16 is an error, not cut off; JSON quoted in an error
message is cut off after some hundred characters (a photo is long).
"""

from __future__ import annotations

import binascii
import codecs
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal

import grpc
import numpy as np
import rapidjson
import tensorflow as tf
from tensorflow.core.example.example_pb2 import Example
from tensorflow.core.example.feature_pb2 import Feature
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest, ClassificationResult
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.regression_pb2 import RegressionRequest, RegressionResult

from serving.server.errors import ServingError, invalid_argument
from serving.server.tensors import type_name

# Row format ("instances", "predictions") or columnar ("inputs", "outputs").
Format = Literal["row", "columnar"]

_QUOTED = 500  # characters of JSON that an error message quotes

_FLOATS: dict[int, Any] = {tf.float32.as_datatype_enum: np.float32}
_FLOATS[tf.float64.as_datatype_enum] = np.float64
_INTEGERS: dict[int, Any] = {
    dtype.as_datatype_enum: dtype.as_numpy_dtype
    for dtype in (tf.int8, tf.uint8, tf.int16, tf.int32, tf.uint32, tf.int64, tf.uint64)
}
_FLOAT_MAX = float(np.finfo(np.float32).max)
_BOOL = tf.bool.as_datatype_enum
_STRING = tf.string.as_datatype_enum


class _BadItem(Exception):
    """The first of some tensors that can't be had from its JSON value: which and why."""

    def __init__(self, index: int, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.index = index
        self.error = ServingError(code, message)


def fill_predict_request(
    body: bytes, request: PredictRequest, inputs_of: Callable[[str], Mapping[str, TensorInfo]]
) -> Format:
    """Puts the signature's name and the input tensors of a `:predict` body into `request`.

    Args:
        body: JSON, UTF-8.
        request: has the model's name and version already.
        inputs_of: a signature's inputs by name of the signature, "" for the default one.

    Returns:
        The format of the request, which the response has to have, too.

    Raises:
        ServingError: INVALID_ARGUMENT for what the client has to mend, UNIMPLEMENTED for a dtype
            that JSON has no form for, and whatever `inputs_of` raises.
        RecursionError: the JSON is nested too deep.
    """
    document = _parse(body)
    _fill_signature(document, request)
    name = request.model_spec.signature_name
    inputs = inputs_of(name)
    if not inputs:
        raise invalid_argument(f"Failed to get input map for signature: {name or 'DEFAULT'}")
    if "instances" in document and "inputs" in document:
        raise _invalid_value(
            document,
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
        )
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list):
            raise _invalid_value(document, "Excepting 'instances' to be an list/array")
        if not instances:
            raise _invalid_value(document, "No values in 'instances' array")
        _fill_rows(instances, inputs, request)
        return "row"
    if "inputs" in document:
        _fill_columns(document["inputs"], inputs, request)
        return "columnar"
    raise invalid_argument("Missing 'inputs' or 'instances' key")


def fill_examples(body: bytes, request: ClassificationRequest | RegressionRequest) -> None:
    """Puts the signature's name and the examples of a `:classify` or `:regress` body in `request`.

    Raises:
        ServingError: INVALID_ARGUMENT, with what the client has to mend.
        RecursionError: the JSON is nested too deep.
    """
    document = _parse(body)
    _fill_signature(document, request)
    listed = request.input.example_list
    if "context" in document:
        listed = request.input.example_list_with_context
        listed.context.CopyFrom(_example(document["context"]))
    if "examples" not in document:
        raise _invalid_value(
            document, "When method is classify, key 'examples' is expected and was not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise _invalid_value(document, "Expecting 'examples' value to be an list/array")
    if not examples:
        raise _invalid_value(document, "'examples' value is an empty array")
    listed.examples.extend(map(_example, examples))


def predict_response(outputs: Mapping[str, TensorProto], form: Format) -> bytes:
    """The body for the output tensors of `:predict`.

    One tensor comes without its name. Strings come as JSON strings, or as `{"b64": …}` where the
    name ends in `_bytes`.

    Raises:
        ServingError: INVALID_ARGUMENT for tensors that JSON, or the row format, has no form for.
    """
    if not outputs:
        raise invalid_argument("Cannot convert empty tensor map to JSON")
    names = sorted(outputs)
    if form == "columnar":
        columns = [_nested(_texts(name, outputs[name]), outputs[name], 0)[0] for name in names]
        value = columns[0] if len(names) == 1 else _object(names, columns)
        return _document("outputs", value)
    batch = -1
    for name in names:
        shape = outputs[name].tensor_shape.dim
        if not shape:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        if batch not in (-1, shape[0].size):
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {shape[0].size} "
                f"expecting: {batch}"
            )
        batch = shape[0].size
    rows = [_nested(_texts(name, outputs[name]), outputs[name], 1) for name in names]
    return _document(
        "predictions",
        _array(
            rows[0] if len(names) == 1 else [_object(names, row) for row in zip(*rows, strict=True)]
        ),
    )


def classify_response(result: ClassificationResult) -> bytes:
    """The body for the classes of `:classify`: `[label, score]` pairs for each example."""
    if not result.classifications:
        raise invalid_argument("Cannot convert empty ClassificationResults to JSON")
    found = []
    for classes in (each.classes for each in result.classifications):
        scores = _float_texts(np.array([c.score for c in classes], np.float32))
        pairs = zip(classes, scores, strict=True)
        found.append(_array([_array([_quoted(c.label), score]) for c, score in pairs]))
    return _document("results", _array(found))


def regress_response(result: RegressionResult) -> bytes:
    """The body for the values of `:regress`, one for each example."""
    if not result.regressions:
        raise invalid_argument("Cannot convert empty RegressionResults to JSON")
    values = np.array([each.value for each in result.regressions], np.float32)
    return _document("results", _array(_float_texts(values)))


def error_response(message: str) -> bytes:
    """The body that says what went wrong."""
    return _document("error", _quoted(message))


# ---- JSON → messages


def _parse(body: bytes) -> dict[str, Any]:
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    text = body.removeprefix(codecs.BOM_UTF8)
    try:
        document = rapidjson.loads(text, number_mode=rapidjson.NM_NAN)
    except UnicodeDecodeError as error:
        offset, reason = str(error.start), "Invalid encoding in string."
    except ValueError as error:
        offset, reason = str(error).removeprefix("Parse error at offset ").split(": ", 1)
    else:
        if not isinstance(document, dict):
            raise _invalid_value(document, "Is not object")
        return document
    at = int(offset) + len(body) - len(text)
    raise invalid_argument(f"JSON Parse error: {reason} at offset: {at}")


def _fill_signature(document: dict[str, Any], request: Any) -> None:
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise _invalid_value(
            document, "not formatted correctly. 'signature_name' key must be a string value."
        )
    request.model_spec.signature_name = name


def _fill_rows(
    instances: list[Any], inputs: Mapping[str, TensorInfo], request: PredictRequest
) -> None:
    names = sorted(inputs)
    if not isinstance(instances[0], dict) and len(names) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    if _is_named(instances[0]):
        columns: dict[str, list[Any]] = {name: [] for name in names}
        for index, element in enumerate(instances):
            _fill_row(index, element, columns)
    else:
        for index, element in enumerate(instances):
            if _is_named(element):
                raise invalid_argument(
                    f"Expecting value/list but got object at item {index} of input list"
                )
        columns = {names[0]: instances}
    for name, values in columns.items():
        try:
            tensor = _tensor(values, inputs[name].dtype)
        except _BadItem as bad:
            key = f" key: {name}" if _is_named(instances[0]) else ""
            raise _invalid_element(f"{bad.index}{key}", bad.error) from None
        request.inputs[name].CopyFrom(tensor)


def _fill_row(index: int, element: Any, columns: dict[str, list[Any]]) -> None:
    if not _is_named(element):
        raise invalid_argument(f"Expecting object but got list at item {index} of input list")
    for name, value in element.items():
        if name not in columns:
            raise _invalid_element(
                f"{index} key: {name}",
                invalid_argument(f"JSON object: does not have named input: {name}"),
            )
        columns[name].append(value)
    if len(element) != len(columns):
        raise invalid_argument(
            f"Failed to process element: {index} of 'instances' list. JSON object: "
            f"{_shown(element)} keys must be equal to: {','.join(columns)}"
        )


def _fill_columns(value: Any, inputs: Mapping[str, TensorInfo], request: PredictRequest) -> None:
    if not _is_named(value):
        if len(inputs) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        value = dict.fromkeys(inputs, value)
    for name in sorted(inputs):
        if name not in value:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
        try:
            tensor = _tensor([value[name]], inputs[name].dtype)
        except _BadItem as bad:
            raise bad.error from None
        del tensor.tensor_shape.dim[0]
        request.inputs[name].CopyFrom(tensor)


def _is_named(value: Any) -> bool:
    """Whether `value` is an object of names and not one of binary data."""
    return isinstance(value, dict) and not _is_b64(value)


def _is_b64(value: dict[str, Any]) -> bool:
    return len(value) == 1 and isinstance(value.get("b64"), str)


def _tensor(items: list[Any], dtype: int) -> TensorProto:
    """The tensor [len(items), …] of `items`, which have to be of one shape.

    Whole lists go through C loops: a batch of images as nested lists has a million numbers.

    Raises:
        _BadItem: an item is ragged, of another shape than the first, or not of `dtype`.
    """
    shape = _shape(items[0])
    leaves = _leaves(items, shape)
    if leaves is None:
        _raise_nesting(items, shape)
        raise AssertionError("unreachable: the nesting is wrong")
    tensor = TensorProto(dtype=dtype)
    for size in (len(items), *shape):
        tensor.tensor_shape.dim.add(size=size)
    try:
        if dtype == _STRING:
            tensor.string_val.extend(map(_bytes_of, leaves))
        else:
            tensor.tensor_content = _numbers(leaves, dtype).tobytes()
    except _BadValue as bad:
        at = next(index for index, leaf in enumerate(leaves) if leaf is bad.value)
        raise _BadItem(at // math.prod(shape), bad.code, str(bad)) from None
    return tensor


def _shape(value: Any) -> list[int]:
    """The shape that the first elements suggest."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return shape


def _leaves(items: list[Any], shape: Sequence[int]) -> list[Any] | None:
    """What is inside of `items` in order, or None where one of them is not of `shape`."""
    for size in shape:
        if not all(type(item) is list and len(item) == size for item in items):
            return None
        items = list(chain.from_iterable(items))
    return None if list in set(map(type, items)) else items


def _raise_nesting(items: list[Any], shape: list[int]) -> None:
    """Raises _BadItem for the first of `items` that is ragged or not of `shape`."""
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    for index, item in enumerate(items):
        own = _shape(item)
        try:
            _raise_ragged(item, own, level=0)
        except ServingError as error:
            raise _BadItem(index, error.code, error.message) from None
        if math.prod(own) != math.prod(shape):
            raise _BadItem(
                index,
                invalid,
                f"Expecting tensor size: {math.prod(shape)} but got: {math.prod(own)}",
            )
        if own != shape:
            wanted, got = (f"[{','.join(map(str, each))}]" for each in (shape, own))
            raise _BadItem(index, invalid, f"Expecting shape {wanted} but got: {got}")


def _raise_ragged(value: Any, shape: list[int], level: int) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise _invalid_value(
                value,
                f"found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}",
            )
        return
    if level >= len(shape):
        raise invalid_argument(
            f"Encountered list at unexpected level: {level} expected < {len(shape)}"
        )
    if len(value) != shape[level]:
        raise invalid_argument(
            f"Encountered list at unexpected size: {len(value)} at level: {level} "
            f"expected size: {shape[level]}"
        )
    for element in value:
        _raise_ragged(element, shape, level + 1)


class _BadValue(Exception):
    """A JSON value that is no element of the tensor."""

    def __init__(
        self, value: Any, message: str, code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT
    ) -> None:
        super().__init__(message)
        self.value = value
        self.code = code


def _bad_type(value: Any, dtype: int) -> _BadValue:
    return _BadValue(
        value,
        f"JSON Value: {_shown(value)} Type: {_kind(value)} is not of expected type: "
        f"{type_name(dtype)}",
    )


def _numbers(leaves: list[Any], dtype: int) -> np.ndarray[Any, Any]:
    if dtype in _FLOATS:
        return _floats(leaves, dtype)
    if dtype in _INTEGERS:
        limits = np.iinfo(_INTEGERS[dtype])
        for leaf in leaves if leaves and set(map(type, leaves)) != {int} else ():
            if type(leaf) is not int:
                raise _bad_type(leaf, dtype)
        if leaves and not limits.min <= min(leaves) <= max(leaves) <= limits.max:
            raise _bad_type(next(n for n in leaves if not limits.min <= n <= limits.max), dtype)
        return np.array(leaves, _INTEGERS[dtype])
    if dtype == _BOOL:
        for leaf in leaves:
            if type(leaf) is not bool:
                raise _bad_type(leaf, dtype)
        return np.array(leaves, np.bool_)
    if leaves:
        raise _BadValue(
            leaves[0],
            f"Conversion of JSON Value: {_shown(leaves[0])} to type: {type_name(dtype)}",
            grpc.StatusCode.UNIMPLEMENTED,
        )
    return np.array([])


def _floats(leaves: list[Any], dtype: int) -> np.ndarray[Any, Any]:
    for leaf in leaves if set(map(type, leaves)) - {int, float} else ():
        if type(leaf) not in (int, float):
            raise _bad_type(leaf, dtype)
    try:
        values = np.array(leaves, np.float64)
    except OverflowError:
        raise _too_large(next(n for n in leaves if _overflows(n)), dtype) from None
    largest = float(np.finfo(_FLOATS[dtype]).max)
    too_large = np.isfinite(values) & (np.abs(values) > largest)
    if too_large.any():
        raise _too_large(leaves[int(too_large.argmax())], dtype)
    return values.astype(_FLOATS[dtype])


def _overflows(number: float) -> bool:
    try:
        float(number)
    except OverflowError:
        return True
    return False


def _too_large(value: float, dtype: int) -> _BadValue:
    return _BadValue(
        value,
        f"Cannot convert JSON value: {_shown(value)} to {type_name(dtype)} "
        "without loss of precision.",
    )


def _bytes_of(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, dict):
        raise _bad_type(value, _STRING)
    if not _is_b64(value):
        raise _BadValue(
            value, f"JSON Value: {_shown(value)} not formatted correctly for base64 data"
        )
    try:
        return _decode_b64(value["b64"])
    except ValueError:
        raise _BadValue(value, "Unable to base64 decode") from None


def _decode_b64(text: str) -> bytes:
    """The bytes of standard base64; as in Abseil, padding and white space are as one likes.

    Raises:
        ValueError: the text is something else.
    """
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # binascii.Error is one
        bare = "".join(text.split()).rstrip("=")
        return binascii.a2b_base64(bare + "=" * (-len(bare) % 4), strict_mode=True)


def _example(value: Any) -> Example:
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {_kind(value)}")
    example = Example()
    for name, content in value.items():
        values = content if isinstance(content, list) else [content]
        example.features.feature[name].CopyFrom(_feature(name, values))
    return example


def _feature(name: str, values: list[Any]) -> Feature:
    """A feature of the type that the first value has: bytes, float or int64."""
    feature = Feature()
    for value in values:
        kind, element = _feature_value(name, value)
        if feature.WhichOneof("kind") not in (None, f"{kind}_list"):
            expected = str(feature.WhichOneof("kind")).removesuffix("_list")
            raise invalid_argument(
                f"Unexpected element type in feature: {name} expecting type: {expected}"
            )
        getattr(feature, f"{kind}_list").value.append(element)
    return feature


def _feature_value(name: str, value: Any) -> tuple[str, Any]:
    if isinstance(value, str) or (isinstance(value, dict) and _is_b64(value)):
        try:
            return "bytes", _bytes_of(value)
        except _BadValue as bad:
            raise ServingError(bad.code, str(bad)) from None
    if isinstance(value, bool) or (isinstance(value, int) and -(2**63) <= value < 2**63):
        return "int64", int(value)
    if isinstance(value, int) and 0 < value < 2**64:
        raise invalid_argument(f"Feature: {name} has uint64 element. Only int64 is supported.")
    if isinstance(value, int | float):
        if _overflows(value) or _FLOAT_MAX < abs(float(value)) < math.inf:
            raise invalid_argument(str(_too_large(value, tf.float32.as_datatype_enum)))
        return "float", float(value)
    raise invalid_argument(f"Feature: {name} has element with unexpected JSON type: {_kind(value)}")


# ---- messages → JSON


def _texts(name: str, tensor: TensorProto) -> list[str]:
    """The elements of a tensor as JSON, in order."""
    if tensor.dtype == _STRING:
        as_bytes = name.endswith("_bytes")
        return [
            _b64(element) if as_bytes else _quoted(element.decode("utf-8", "surrogateescape"))
            for element in tf.make_ndarray(tensor).ravel()
        ]
    if tensor.dtype in _FLOATS:
        return _float_texts(tf.make_ndarray(tensor).ravel())
    if tensor.dtype in _INTEGERS:
        return list(map(str, tf.make_ndarray(tensor).ravel().tolist()))
    if tensor.dtype == _BOOL:
        return ["true" if element else "false" for element in tf.make_ndarray(tensor).ravel()]
    raise invalid_argument(f"Failed to write JSON value for tensor type: {type_name(tensor.dtype)}")


def _float_texts(values: np.ndarray[Any, Any]) -> list[str]:
    """Six digits where they are enough to get the same number back, else all that it takes."""
    texts = [f"{value:.6g}" for value in values.tolist()]
    digits = 9 if values.dtype == np.float32 else 17
    for index in np.flatnonzero(np.array(texts, dtype=values.dtype) != values):
        texts[index] = f"{values[index]:.{digits}g}"
    return [_SPECIAL.get(text) or (text if _DECIMAL(text) else f"{text}.0") for text in texts]


_SPECIAL = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_DECIMAL = re.compile("[.e]").search


def _nested(texts: list[str], tensor: TensorProto, first: int) -> list[str]:
    """Joins elements to JSON lists, up to but not including the dimensions before `first`."""
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    for axis in range(len(shape) - 1, first - 1, -1):
        size = shape[axis]
        texts = [
            _array(texts[at * size : (at + 1) * size]) for at in range(math.prod(shape[:axis]))
        ]
    return texts


def _array(texts: Sequence[str]) -> str:
    return f"[{', '.join(texts)}]"


def _object(names: Sequence[str], texts: Sequence[str]) -> str:
    pairs = zip(names, texts, strict=True)
    return "{" + ", ".join(f"{_quoted(name)}: {text}" for name, text in pairs) + "}"


def _document(key: str, text: str) -> bytes:
    # Strings of a model that are no UTF-8 leave as they are, as from TensorFlow Serving.
    return f'{{\n    "{key}": {text}\n}}'.encode("utf-8", "surrogateescape")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _b64(value: bytes) -> str:
    return f'{{"b64": "{binascii.b2a_base64(value, newline=False).decode()}"}}'


# ---- messages of errors


def _invalid_value(value: Any, message: str) -> ServingError:
    return invalid_argument(f"JSON Value: {_shown(value)} {message}")


def _invalid_element(which: str, cause: ServingError) -> ServingError:
    return invalid_argument(
        f"Failed to process element: {which} of 'instances' list. Error: {cause}"
    )


def _shown(value: Any) -> str:
    """The JSON of a value, its beginning where it is long."""
    text = ""
    for chunk in json.JSONEncoder(ensure_ascii=False, indent=4).iterencode(value):
        text += chunk[:_QUOTED]
        if len(text) >= _QUOTED:
            return f"{text[:_QUOTED]}…"
    return text


def _kind(value: Any) -> str:
    """What RapidJSON calls the type of a value."""
    if value is None or isinstance(value, bool):
        return {None: "Null", False: "False", True: "True"}[value]
    kinds: dict[type, str] = {dict: "Object", list: "Array", str: "String"}
    return kinds.get(type(value), "Number")

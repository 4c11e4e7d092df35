"""JSON of the REST API ↔ the messages of the gRPC API, in the forms that photos need.

A request has rows (`instances`) or columns (`inputs`); bytes are `{"b64": …}`. The answer has the
form of the request. See https://www.tensorflow.org/tfx/serving/api_rest.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from serving.server.errors import invalid_argument
from serving.server.tensors import to_proto

Form = Literal["row", "column"]
Specs = Mapping[str, tf.TensorSpec]


def predict_request(
    body: bytes, spec: ModelSpec, inputs_of: Callable[[ModelSpec], Specs]
) -> tuple[PredictRequest, Form]:
    """The request in a body of `:predict`.

    Args:
        body: JSON.
        spec: the model and version, from the URL.
        inputs_of: the inputs of the signature that a ModelSpec names.

    Raises:
        ServingError: INVALID_ARGUMENT, and what is wrong; or what `inputs_of` raises.
    """
    document = _document(body)
    request = PredictRequest(model_spec=spec)
    request.model_spec.signature_name = document.get("signature_name", "")
    inputs = inputs_of(request.model_spec)
    form: Form = "row" if "instances" in document else "column"
    if form == "row":
        columns = _columns(document["instances"], list(inputs))
    else:
        columns = _named(document["inputs"], list(inputs), "'inputs'")
    for name, value in columns.items():
        dtype = inputs[name].dtype
        request.inputs[name].CopyFrom(to_proto(_array(name, value, dtype), dtype))
    return request, form


def predict_response(outputs: Mapping[str, TensorProto], form: Form) -> dict[str, Any]:
    """The body of the answer, for `json.dumps`; a single output comes without its name.

    Strings are JSON strings, or `{"b64": …}` where the output's name ends in `_bytes`.

    Raises:
        ServingError: INVALID_ARGUMENT; the outputs do not fit into this form.
    """
    arrays = {name: tf.make_ndarray(outputs[name]) for name in sorted(outputs)}
    values = {name: _json_value(name, array) for name, array in arrays.items()}
    if form == "column":
        return {"outputs": values if len(values) > 1 else next(iter(values.values()))}
    rows_of = {array.shape[:1] for array in arrays.values()}
    if len(rows_of) != 1 or () in rows_of:
        raise invalid_argument("the outputs have no common number of rows: ask with 'inputs'")
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    rows = zip(*values.values(), strict=True)
    return {"predictions": [dict(zip(values, row, strict=True)) for row in rows]}


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid_argument(f"JSON Parse error: {error}") from None
    if not isinstance(document, dict):
        raise invalid_argument("the body has to be a JSON object")
    if ("instances" in document) == ("inputs" in document):
        raise invalid_argument("the body has to have either 'instances' or 'inputs'")
    name = document.get("signature_name", "")
    if not (isinstance(name, str) and name.isprintable()):  # protobuf takes no lone surrogates
        raise invalid_argument("'signature_name' has to be a string")
    return document


def _columns(instances: Any, names: list[str]) -> dict[str, list[Any]]:
    if not isinstance(instances, list) or not instances:
        raise invalid_argument("'instances' has to be a list with at least one element")
    rows = [_named(row, names, f"instances[{index}]") for index, row in enumerate(instances)]
    return {name: [row[name] for row in rows] for name in names}


def _named(value: Any, names: list[str], where: str) -> dict[str, Any]:
    """Values by the names of the inputs. If there is only one input, its name may be left out."""
    if isinstance(value, dict) and set(value) == set(names):
        return value
    if len(names) == 1 and (not isinstance(value, dict) or _is_b64(value)):
        return {names[0]: value}
    raise invalid_argument(f"{where} has to be an object with the names {', '.join(sorted(names))}")


def _is_b64(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def _array(name: str, value: Any, dtype: tf.DType) -> np.ndarray:
    """Nested lists as an array; raises ServingError if they are ragged or of another type."""
    shape: list[int] = []
    leaves = [value]
    try:
        while leaves and isinstance(leaves[0], list):
            if len({len(item) if isinstance(item, list) else None for item in leaves}) > 1:
                raise ValueError("its lists have different lengths")
            shape.append(len(leaves[0]))
            leaves = list(chain.from_iterable(leaves))
        if dtype is tf.string:
            return np.array([_bytes(leaf) for leaf in leaves], object).reshape(shape)
        kinds = (bool,) if dtype.is_bool else (int,) if dtype.is_integer else (int, float)
        if not all(type(leaf) in kinds for leaf in leaves):
            raise ValueError(f"its values have to be of type {dtype.name}")
        with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite
            return np.array(leaves, dtype.as_numpy_dtype).reshape(shape)
    except (ValueError, OverflowError) as error:
        raise invalid_argument(f"input {name}: {error}") from error


def _bytes(leaf: Any) -> bytes:
    if isinstance(leaf, str):
        return leaf.encode()
    if _is_b64(leaf):
        text = "".join(leaf["b64"].split()).rstrip("=")  # line breaks and padding are optional
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    raise ValueError('its values have to be strings or {"b64": …}')


def _json_value(name: str, array: np.ndarray) -> Any:
    if array.dtype != object:
        return array.tolist()
    texts = np.array([_text(name, value) for value in array.reshape(-1)], object)
    return texts.reshape(array.shape).tolist()


def _text(name: str, value: bytes) -> Any:
    if name.endswith("_bytes"):
        return {"b64": base64.b64encode(value).decode()}
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise invalid_argument(f"output {name} is not UTF-8; name it {name}_bytes") from error

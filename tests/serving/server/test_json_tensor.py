"""JSON becomes the messages that TensorFlow Serving makes of it, and back; errors read the same."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest, ClassificationResult
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.regression_pb2 import RegressionRequest, RegressionResult

from serving.server import json_tensor
from serving.server.errors import ServingError

DTYPES = [
    tf.bool, tf.float32, tf.float64, tf.int8, tf.int16, tf.int32, tf.int64,
    tf.uint8, tf.uint32, tf.uint64,
]  # fmt: skip

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def inputs(**dtypes: tf.DType) -> dict[str, TensorInfo]:
    return {name: TensorInfo(dtype=dtype.as_datatype_enum) for name, dtype in dtypes.items()}


def filled(body: str | bytes, infos: Mapping[str, TensorInfo]) -> tuple[PredictRequest, str]:
    request = PredictRequest()
    body = body.encode() if isinstance(body, str) else body
    form = json_tensor.fill_predict_request(body, request, lambda _: infos)
    return request, form


def tensors(body: str, **dtypes: tf.DType) -> dict[str, Any]:
    request, _ = filled(body, inputs(**dtypes))
    return {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}


def error_of(body: str | bytes, **dtypes: tf.DType) -> str:
    with pytest.raises(ServingError) as caught:
        filled(body, inputs(**dtypes))
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT
    return str(caught.value.message)


def test_rows_of_one_input() -> None:
    request, form = filled('{"instances": [[1,2],[3,4],[5,6]]}', inputs(x=tf.int32))
    assert form == "row"
    assert list(request.inputs) == ["x"]
    assert request.model_spec.signature_name == ""
    tensor = tf.make_ndarray(request.inputs["x"])
    assert tensor.dtype == np.int32
    assert tensor.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_rows_of_named_inputs() -> None:
    found = tensors(
        """{"instances": [
          {"whole": [[1,2],[3,4]], "text": ["foo", "bär"], "part": [1.0, NaN], "flag": true},
          {"flag": false, "whole": [[7,8],[9,0]], "text": ["baz", ""], "part": [2, -Infinity]}
        ]}""",
        whole=tf.int32,
        text=tf.string,
        part=tf.float32,
        flag=tf.bool,
    )
    assert found["whole"].tolist() == [[[1, 2], [3, 4]], [[7, 8], [9, 0]]]
    assert found["text"].tolist() == [[b"foo", "bär".encode()], [b"baz", b""]]
    np.testing.assert_array_equal(found["part"], np.array([[1, np.nan], [2, -np.inf]], np.float32))
    assert found["flag"].tolist() == [True, False]


def test_columns() -> None:
    request, form = filled(
        '{"signature_name": "s", "inputs": {"a": [[1,2]], "b": {"b64": "aGVsbG8="}, "c": 7}}',
        inputs(a=tf.int64, b=tf.string, c=tf.float64),
    )
    assert form == "columnar"
    assert request.model_spec.signature_name == "s"
    found = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
    assert found["a"].tolist() == [[1, 2]]
    assert found["b"].shape == () and found["b"].item() == b"hello"
    assert found["c"].shape == () and found["c"].item() == 7.0
    assert tensors('{"inputs": [[1, 2]]}', x=tf.uint8)["x"].tolist() == [[1, 2]]
    assert tensors('{"inputs": []}', x=tf.float32)["x"].shape == (0,)


@pytest.mark.parametrize("text", ["aGVsbG8=", "aGVsbG8", " aGVs\\nbG8= "])
def test_base64_as_abseil_takes_it(text: str) -> None:
    body = f'{{"instances": [{{"b64": "{text}"}}, "plain"]}}'
    assert tensors(body, x=tf.string)["x"].tolist() == [b"hello", b"plain"]


def test_binary_strings_in_rows() -> None:
    body = '{"instances": [{"x": [{"b64": "aGVsbG8="}]}, {"x": [{"b64": "/w=="}]}]}'
    assert tensors(body, x=tf.string)["x"].tolist() == [[b"hello"], [b"\xff"]]


def test_the_document_may_begin_with_a_byte_order_mark() -> None:
    assert tensors('\ufeff{"instances": [1]}', x=tf.int32)["x"].tolist() == [1]


def test_whole_numbers_are_rounded_to_floats() -> None:
    assert tensors('{"instances": [1435774380]}', x=tf.float32)["x"].tolist() == [1435774336.0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "JSON Parse error: The document is empty"),
        (" ", "JSON Parse error: The document is empty. at offset: 1"),
        ('{"instances": [1, ü', "JSON Parse error: Invalid value. at offset: 18"),
        ("\ufeff{", "JSON Parse error: Missing a name for object member. at offset: 4"),
        (
            '{"instances": [1 2]}',
            "JSON Parse error: Missing a comma or ']' after an array element. at offset: 17",
        ),
        (
            '{"instances": [1]} x',
            "JSON Parse error: The document root must not be followed by other values. "
            "at offset: 19",
        ),
        (
            '{"instances": [1e999]}',
            "JSON Parse error: Number too big to be stored in double. at offset: 15",
        ),
        (
            f'{{"instances": [{"1" * 5000}]}}',
            "JSON Parse error: Invalid integer value at offset: 15",
        ),
        (b'{"instances": ["\xff"]}', "JSON Parse error: Invalid encoding in string. at offset: 16"),
        (
            '{"signature_name": "\\ud800", "instances": [1]}',
            "JSON Parse error: The surrogate pair in string is invalid. at offset: 20",
        ),
        ("[1]", "JSON Value: [\n    1\n] Is not object"),
        (
            '{"signature_name": 5}',
            'JSON Value: {\n    "signature_name": 5\n} not formatted correctly. '
            "'signature_name' key must be a string value.",
        ),
        ("{}", "Missing 'inputs' or 'instances' key"),
        (
            '{"instances": 1, "inputs": 2}',
            'JSON Value: {\n    "instances": 1,\n    "inputs": 2\n} Not formatted correctly '
            "expecting only one of 'inputs' or 'instances' keys to exist ",
        ),
        (
            '{"instances": 1}',
            "JSON Value: {\n    \"instances\": 1\n} Excepting 'instances' to be an list/array",
        ),
        (
            '{"instances": []}',
            "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array",
        ),
        (
            '{"instances": [[1,2],[3,4],[5,6,7]]}',
            "Failed to process element: 2 of 'instances' list. "
            "Error: INVALID_ARGUMENT: Expecting tensor size: 2 but got: 3",
        ),
        (
            '{"instances": [[1,2],[3,4],[[5,6]]]}',
            "Failed to process element: 2 of 'instances' list. "
            "Error: INVALID_ARGUMENT: Expecting shape [2] but got: [1,2]",
        ),
        (
            '{"instances": [1, [1]]}',
            "Failed to process element: 1 of 'instances' list. "
            "Error: INVALID_ARGUMENT: Expecting shape [] but got: [1]",
        ),
        (
            '{"instances": [[1,2],["a", "b"]]}',
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
            'JSON Value: "a" Type: String is not of expected type: int32',
        ),
        (
            '{"instances": [{"x": 1}, 2]}',
            "Expecting object but got list at item 1 of input list",
        ),
        (
            '{"instances": [2, {"x": 1}]}',
            "Expecting value/list but got object at item 1 of input list",
        ),
        (
            '{"instances": [{"x": 1, "y": 1}]}',
            "Failed to process element: 0 key: y of 'instances' list. "
            "Error: INVALID_ARGUMENT: JSON object: does not have named input: y",
        ),
        (
            '{"instances": [{"x": 1}, {}]}',
            "Failed to process element: 1 of 'instances' list. JSON object: {} "
            "keys must be equal to: x",
        ),
        (
            '{"inputs": [[1, [2]]]}',
            "Encountered list at unexpected level: 2 expected < 2",
        ),
        (
            '{"inputs": [[1], 2]}',
            "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
        ),
        (
            '{"inputs": [[1], [2, 3]]}',
            "Encountered list at unexpected size: 2 at level: 1 expected size: 1",
        ),
        ('{"inputs": {"y": 1}}', "Missing named input: x in 'inputs' object."),
        ('{"inputs": null}', "JSON Value: null Type: Null is not of expected type: int32"),
        ('{"inputs": true}', "JSON Value: true Type: True is not of expected type: int32"),
        ('{"inputs": 1.5}', "JSON Value: 1.5 Type: Number is not of expected type: int32"),
        (
            '{"inputs": [7, 2147483648]}',
            "JSON Value: 2147483648 Type: Number is not of expected type: int32",
        ),
        (
            '{"inputs": {"x": {"a": 1}}}',
            'JSON Value: {\n    "a": 1\n} Type: Object is not of expected type: int32',
        ),
    ],
)
def test_errors_of_an_int32_input(body: str | bytes, message: str) -> None:
    assert error_of(body, x=tf.int32) == message


@pytest.mark.parametrize(
    ("dtype", "body", "message"),
    [
        (
            tf.float32,
            '{"inputs": [1, 1e39]}',
            "Cannot convert JSON value: 1e+39 to float without loss of precision.",
        ),
        (
            tf.float64,
            f'{{"inputs": 1{"0" * 400}}}',
            f"Cannot convert JSON value: 1{'0' * 400} to double without loss of precision.",
        ),
        (tf.float32, '{"inputs": [1, true]}', "JSON Value: true Type: True is not of expected"),
        (tf.bool, '{"inputs": 1}', "JSON Value: 1 Type: Number is not of expected type: bool"),
        (
            tf.uint64,
            '{"inputs": -1}',
            "JSON Value: -1 Type: Number is not of expected type: uint64",
        ),
        (
            tf.uint8,
            '{"inputs": 256}',
            "JSON Value: 256 Type: Number is not of expected type: uint8",
        ),
        (tf.string, '{"inputs": 1}', "JSON Value: 1 Type: Number is not of expected type: string"),
        (tf.string, '{"inputs": [{"b64": "a"}]}', "Unable to base64 decode"),
        (tf.string, '{"inputs": [{"b64": "aGVs_w=="}]}', "Unable to base64 decode"),
        (
            tf.string,
            '{"inputs": [{"b64": "", "c": 1}]}',
            'JSON Value: {\n    "b64": "",\n    "c": 1\n} not formatted correctly for base64 data',
        ),
    ],
)
def test_errors_of_other_inputs(dtype: tf.DType, body: str, message: str) -> None:
    assert error_of(body, x=dtype).startswith(message)


def test_two_inputs_want_names() -> None:
    assert error_of('{"instances": [1]}', x=tf.int32, y=tf.int32).startswith(
        "instances is a plain list, but expecting list of objects"
    )
    assert error_of('{"inputs": [1]}', x=tf.int32, y=tf.int32).startswith(
        "inputs is a plain value/list, but expecting an object"
    )
    assert error_of('{"inputs": [1]}') == "Failed to get input map for signature: DEFAULT"


def test_a_dtype_without_a_json_form() -> None:
    with pytest.raises(ServingError) as caught:
        filled('{"inputs": [0]}', inputs(x=tf.float16))
    assert caught.value.code == grpc.StatusCode.UNIMPLEMENTED
    assert caught.value.message == "Conversion of JSON Value: 0 to type: half"


def test_an_error_quotes_the_beginning_of_a_photo() -> None:
    photo = "A" * 100_000
    message = error_of(f'{{"instances": [{{"b64": "{photo}"}}]}}', x=tf.float32)
    assert len(message) < 1000
    assert message.endswith("… Type: Object is not of expected type: float")


@pytest.mark.parametrize("request_type", [ClassificationRequest, RegressionRequest])
def test_examples_with_context_and_signature(request_type: type) -> None:
    request = request_type()
    body = """{
      "signature_name": "custom",
      "context": {"query": "pizza", "location": ["sfo"]},
      "examples": [
        {"names": ["foo", {"b64": "aGVsbG8="}], "ratings": [8.0, NaN, Infinity], "age": 20},
        {"mix": [1, true, false], "none": []}
      ]
    }"""
    json_tensor.fill_examples(body.encode(), request)
    expected = text_format.Parse(
        """
        model_spec { signature_name: "custom" }
        input { example_list_with_context {
          context { features {
            feature { key: "query" value { bytes_list { value: "pizza" } } }
            feature { key: "location" value { bytes_list { value: "sfo" } } }
          } }
          examples { features {
            feature { key: "names" value { bytes_list { value: "foo" value: "hello" } } }
            feature { key: "ratings" value { float_list { value: [8.0, nan, inf] } } }
            feature { key: "age" value { int64_list { value: 20 } } }
          } }
          examples { features {
            feature { key: "mix" value { int64_list { value: [1, 1, 0] } } }
            feature { key: "none" value { } }
          } }
        } }
        """,
        request_type(),
    )
    assert str(request) == str(expected)


def test_examples_without_context() -> None:
    request = RegressionRequest()
    json_tensor.fill_examples(b'{"examples": [{"age": 1}, {"age": 2}]}', request)
    features = [e.features.feature["age"] for e in request.input.example_list.examples]
    assert [f.int64_list.value[0] for f in features] == [1, 2]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"context": [{}]}', "Example must be JSON object but got JSON Array"),
        ("{}", "When method is classify, key 'examples' is expected and was not found"),
        ('{"examples": {}}', "Expecting 'examples' value to be an list/array"),
        ('{"examples": []}', "'examples' value is an empty array"),
        ('{"examples": [[]]}', "Example must be JSON object but got JSON Array"),
        (
            '{"examples": [{"names": [10, null]}]}',
            "Feature: names has element with unexpected JSON type: Null",
        ),
        (
            '{"examples": [{"names": [10, 10.0]}]}',
            "Unexpected element type in feature: names expecting type: int64",
        ),
        (
            '{"examples": [{"names": ["a", 1]}]}',
            "Unexpected element type in feature: names expecting type: bytes",
        ),
        (
            '{"examples": [{"names": [10, {"test": 10}]}]}',
            "Feature: names has element with unexpected JSON type: Object",
        ),
        (
            '{"examples": [{"names": [[10], 20]}]}',
            "Feature: names has element with unexpected JSON type: Array",
        ),
        (
            '{"examples": [{"names": [20, 18446744073709551603]}]}',
            "Feature: names has uint64 element. Only int64 is supported.",
        ),
        (
            '{"examples": [{"names": 1.7976931348623157e308}]}',
            "Cannot convert JSON value: 1.7976931348623157e+308 to float "
            "without loss of precision.",
        ),
        ('{"examples": [{"names": {"b64": "a"}}]}', "Unable to base64 decode"),
    ],
)
def test_errors_of_examples(body: str, message: str) -> None:
    with pytest.raises(ServingError) as caught:
        json_tensor.fill_examples(body.encode(), ClassificationRequest())
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.message.endswith(message)


def test_one_output_has_no_name() -> None:
    outputs = {"y": tf.make_tensor_proto(np.array([2.5, 3.0, 4.5], np.float32))}
    assert json_tensor.predict_response(outputs, "row") == (
        b'{\n    "predictions": [2.5, 3.0, 4.5]\n}'
    )
    assert json_tensor.predict_response(outputs, "columnar") == (
        b'{\n    "outputs": [2.5, 3.0, 4.5]\n}'
    )


def test_several_outputs_have_names() -> None:
    outputs = {
        "age": tf.make_tensor_proto(np.array([21.5, np.nan], np.float32)),
        "valid": tf.make_tensor_proto([True, False]),
        "parts": tf.make_tensor_proto(np.array([[1, 2], [3, 4]], np.int64)),
        "text": tf.make_tensor_proto(["ä\n", '"']),
        "raw_bytes": tf.make_tensor_proto([b"\xff", b"hello"]),
    }
    rows = json.loads(json_tensor.predict_response(outputs, "row"))["predictions"]
    assert rows[0] == {
        "age": 21.5, "valid": True, "parts": [1, 2], "text": "ä\n", "raw_bytes": {"b64": "/w=="},
    }  # fmt: skip
    assert math.isnan(rows[1]["age"])
    columns = json.loads(json_tensor.predict_response(outputs, "columnar"))["outputs"]
    assert columns["parts"] == [[1, 2], [3, 4]]
    assert columns["raw_bytes"] == [{"b64": "/w=="}, {"b64": "aGVsbG8="}]


def test_numbers_are_written_as_there() -> None:
    values = [9000000, 999999, 0.5, 0.0003, 0.00003, 555557.5, 0.2, 55.34567, 3, np.nan, np.inf]
    outputs = {"y": tf.make_tensor_proto(np.array([*values, -np.inf], np.float32))}
    text = json_tensor.predict_response(outputs, "columnar").decode()
    assert re.findall(r"[^\[\], ]+", text.split(":")[1].strip(" }\n")) == [
        "9e+06", "999999.0", "0.5", "0.0003", "3e-05", "555557.5", "0.2", "55.3456688", "3.0",
        "NaN", "Infinity", "-Infinity",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({}, "Cannot convert empty tensor map to JSON"),
        (
            {"y": np.array([1], np.complex64)},
            "Failed to write JSON value for tensor type: complex64",
        ),
        ({"y": np.int32(1)}, "Tensor name: y has no shape information "),
        (
            {"a": np.array([1, 2], np.int32), "b": np.array([1], np.int32)},
            "Tensor name: b has inconsistent batch size: 1 expecting: 2",
        ),
    ],
)
def test_outputs_without_a_row_form(outputs: dict[str, Any], message: str) -> None:
    protos = {name: tf.make_tensor_proto(value) for name, value in outputs.items()}
    with pytest.raises(ServingError) as caught:
        json_tensor.predict_response(protos, "row")
    assert caught.value.message == message


def test_classes_and_values() -> None:
    result = ClassificationResult()
    for pairs in ([("car", 0.2), ("bike", 0.7)], [("", np.nan)], []):
        classes = result.classifications.add().classes
        for label, score in pairs:
            classes.add(label=label, score=score)
    assert json_tensor.classify_response(result) == (
        b'{\n    "results": [[["car", 0.2], ["bike", 0.7]], [["", NaN]], []]\n}'
    )
    values = RegressionResult()
    for value in (0.2, np.inf, 1.0):
        values.regressions.add(value=value)
    assert json_tensor.regress_response(values) == b'{\n    "results": [0.2, Infinity, 1.0]\n}'
    with pytest.raises(ServingError, match="empty ClassificationResults"):
        json_tensor.classify_response(ClassificationResult())
    with pytest.raises(ServingError, match="empty RegressionResults"):
        json_tensor.regress_response(RegressionResult())


@unhurried
@given(st.data())
def test_tensors_survive_the_way_there_and_back(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES)).as_numpy_dtype
    shape = data.draw(arrays.array_shapes(min_dims=1, max_dims=4, max_side=4))
    values = data.draw(arrays.arrays(dtype, shape))
    # Its nine digits are a little more than it is; TensorFlow Serving refuses what it wrote, too.
    assume(dtype != np.float32 or not (np.abs(values) == np.finfo(dtype).max).any())
    sent = {"x_bytes": tf.make_tensor_proto(values)}
    for form, key in (("row", "instances"), ("columnar", "inputs")):
        text = json_tensor.predict_response(sent, form)  # type: ignore[arg-type]
        body = re.sub(rb'"(predictions|outputs)"', f'"{key}"'.encode(), text, count=1)
        request, found = filled(body, {"x": TensorInfo(dtype=sent["x_bytes"].dtype)})
        assert found == form
        back = tf.make_ndarray(request.inputs["x"])
        assert back.dtype == values.dtype
        np.testing.assert_array_equal(back, values)


@unhurried
@given(arrays.arrays(object, arrays.array_shapes(max_dims=3, max_side=3), elements=st.binary()))
def test_bytes_survive_the_way_there_and_back(values: np.ndarray[Any, Any]) -> None:
    sent = {"x_bytes": tf.make_tensor_proto(values, dtype=tf.string)}
    text = json_tensor.predict_response(sent, "row").replace(b"predictions", b"instances", 1)
    request, _ = filled(text, inputs(x=tf.string))
    assert tf.make_ndarray(request.inputs["x"]).tolist() == values.tolist()


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.builds(lambda raw: {"b64": base64.b64encode(raw).decode()}, st.binary())
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["x", "y", "b64"]), inner),
    max_leaves=20,
)
DOCUMENTS = st.dictionaries(
    st.sampled_from(["signature_name", "instances", "inputs", "examples", "context"]), VALUES
)


@unhurried
@given(DOCUMENTS, st.lists(st.sampled_from([*DTYPES, tf.string, tf.float16]), max_size=2))
def test_whatever_the_json_there_is_a_message_or_an_error(
    document: dict[str, Any], dtypes: list[tf.DType]
) -> None:
    infos = inputs(**dict(zip("xy", dtypes, strict=False)))
    body = json.dumps(document)
    try:
        request, form = filled(body, infos)
    except ServingError as error:
        assert error.code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED)
        assert error.message
    else:
        key = "instances" if form == "row" else "inputs"
        for tensor in request.inputs.values():
            assert tf.make_ndarray(tensor).size <= body.count(",") + 1
            assert form == "columnar" or len(tf.make_ndarray(tensor)) == len(document[key])


@unhurried
@given(DOCUMENTS)
def test_whatever_the_json_there_are_examples_or_an_error(document: dict[str, Any]) -> None:
    request = RegressionRequest()
    try:
        json_tensor.fill_examples(json.dumps(document).encode(), request)
    except ServingError as error:
        assert error.code == grpc.StatusCode.INVALID_ARGUMENT
    else:
        assert request.input.WhichOneof("kind")


@unhurried
@given(st.binary())
def test_whatever_the_bytes_there_is_an_error(body: bytes) -> None:
    assert error_of(body, x=tf.int32)

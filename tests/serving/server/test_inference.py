"""Requests are answered, and refused, as TensorFlow Serving does it; texts are from its source."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    predict_pb2,
    regression_pb2,
)

from tests.serving.server.models import Client, predict_request


def example(x: float) -> tf.train.Example:
    return tf.train.Example(
        features=tf.train.Features(
            feature={"x": tf.train.Feature(float_list=tf.train.FloatList(value=[x]))}
        )
    )


def examples(*values: float) -> input_pb2.Input:
    return input_pb2.Input(
        example_list=input_pb2.ExampleList(examples=[example(x) for x in values])
    )


def refusal(call: Any, request: Any) -> tuple[str, str]:
    """Name of the code and the text that a request is refused with."""
    with pytest.raises(grpc.RpcError) as raised:
        call(request, timeout=60)
    return raised.value.code().name, str(raised.value.details())


def with_spec(request: Any, model: str = "half", **spec: Any) -> Any:
    request.model_spec.name = model
    for name, value in spec.items():
        if name == "version":
            request.model_spec.version.value = value
        else:
            setattr(request.model_spec, name, value)
    return request


def predict(**spec: Any) -> predict_pb2.PredictRequest:
    return with_spec(predict_request("half", x=np.array([2], np.float32)), **spec)


def test_predict_answers_with_the_version_and_numbers_one_by_one(client: Client) -> None:
    response = client.predict("half", x=np.array([1, 2], np.float32))
    assert response.model_spec.name == "half"
    assert response.model_spec.version.value == 3
    assert response.model_spec.signature_name == "serving_default"
    assert list(response.outputs["y"].float_val) == [3.5, 4.0]
    assert not response.outputs["y"].tensor_content
    assert [dim.size for dim in response.outputs["y"].tensor_shape.dim] == [2]


def test_tf1_saved_models_answer_too(client: Client) -> None:
    assert client.y("old", 1) == 2.5


def test_output_filter(client: Client) -> None:
    request = with_spec(
        predict_request("half", a=np.array([5], np.float32), b=np.array([3], np.float32)),
        signature_name="pair",
    )
    assert set(client.prediction.Predict(request).outputs) == {"sum", "difference"}
    request.output_filter.append("difference")
    response = client.prediction.Predict(request)
    assert {name: list(v.float_val) for name, v in response.outputs.items()} == {
        "difference": [2.0]
    }


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (predict_pb2.PredictRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (predict(model=""), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (predict(model="xyz"), "NOT_FOUND", "Servable not found for request: Latest(xyz)"),
        (predict(version=7), "NOT_FOUND", "Servable not found for request: Specific(half, 7)"),
        (
            predict(version_label="stable"),
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: stable",
        ),
        (
            predict(signature_name="nope"),
            "FAILED_PRECONDITION",
            'Serving signature key "nope" not found.',
        ),
        (
            predict_request("half"),
            "INVALID_ARGUMENT",
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. "
            "Missing but required: {x}.",
        ),
        (
            predict_request("half", x=[1.0], z=[1], a=[2]),
            "INVALID_ARGUMENT",
            "input size does not match signature: 3!=1 len({a,x,z}) != len({x}). "
            "Sent extra: {a,z}. Missing but required: {}.",
        ),
        (
            predict_request("half", z=[1.0]),
            "INVALID_ARGUMENT",
            "Signature input alias: x(feed name: serving_default_x:0) not found in request and no "
            "default value provided. Inputs expected to be in the request {z}, or default input "
            "alias set: ",
        ),
        (
            predict_request("half", x=np.array([1], np.int64)),
            "INVALID_ARGUMENT",
            "Expects arg[0] to be float but int64 is provided",
        ),
        (
            predict_request("half", x=["1"]),
            "INVALID_ARGUMENT",
            "Expects arg[0] to be float but string is provided",
        ),
    ],
)
def test_predict_refuses(client: Client, request_: Any, code: str, text: str) -> None:
    assert refusal(client.prediction.Predict, request_) == (code, text)


def test_predict_refuses_a_wrong_shape_with_what_the_graph_says(client: Client) -> None:
    request = with_spec(
        predict_request("half", rows=np.array([1], np.float32)), signature_name="rows"
    )
    code, text = refusal(client.prediction.Predict, request)
    assert code == "INVALID_ARGUMENT"
    assert "reduction dimension" in text


@pytest.mark.parametrize(
    ("filtered", "text"),
    [
        (
            ["nope"],
            "output tensor alias not found in signature: nope Outputs expected to be in the set "
            "{y}.",
        ),
        (["y", "y"], "duplicate output tensor alias: y"),
    ],
)
def test_predict_refuses_an_output_filter(client: Client, filtered: list[str], text: str) -> None:
    request = predict_request("half", x=np.array([1], np.float32))
    request.output_filter.extend(filtered)
    assert refusal(client.prediction.Predict, request) == ("INVALID_ARGUMENT", text)


@pytest.mark.parametrize(
    ("tensor", "shape"),
    [
        ({"dtype": 1}, [-1]),
        ({"dtype": 1, "tensor_content": b"abc"}, [3]),
        ({"dtype": 1, "float_val": [1]}, [10**9, 10**9]),
        ({"dtype": 1, "float_val": [1, 2]}, [1]),
        ({"dtype": 7, "tensor_content": b"abcd"}, [1]),
        ({"dtype": 20}, []),
        ({"dtype": 9999}, []),
    ],
)
def test_predict_refuses_what_is_no_tensor(client: Client, tensor: Any, shape: Any) -> None:
    request = predict_request("half")
    request.inputs["x"].CopyFrom(tensor_pb2.TensorProto(**tensor))
    for size in shape:
        request.inputs["x"].tensor_shape.dim.add(size=size)
    expected = ("INVALID_ARGUMENT", "tensor parsing error: x")
    assert refusal(client.prediction.Predict, request) == expected


def test_the_last_value_stands_for_those_that_are_missing(client: Client) -> None:
    request = predict_request("half")
    request.inputs["x"].CopyFrom(tensor_pb2.TensorProto(dtype=1, float_val=[2, 4]))
    request.inputs["x"].tensor_shape.dim.add(size=3)
    assert list(client.prediction.Predict(request).outputs["y"].float_val) == [4.0, 5.0, 5.0]
    del request.inputs["x"].float_val[:]
    assert list(client.prediction.Predict(request).outputs["y"].float_val) == [3.0, 3.0, 3.0]


@pytest.mark.parametrize("model", ["half", "old"])
def test_classify_and_regress(client: Client, model: str) -> None:
    added = {"half": 3, "old": 2}[model]
    regression = with_spec(
        regression_pb2.RegressionRequest(input=examples(0, 1)), model, signature_name="regress"
    )
    response = client.prediction.Regress(regression)
    assert [r.value for r in response.result.regressions] == [added, added + 0.5]
    assert response.model_spec.signature_name == "regress"
    if model == "half":
        classification = with_spec(
            classification_pb2.ClassificationRequest(input=examples(0.25)),
            signature_name="classify",
        )
        (found,) = client.prediction.Classify(classification).result.classifications
        assert [(c.label, c.score) for c in found.classes] == [("low", 0.75), ("high", 0.25)]


def test_examples_with_a_context(client: Client) -> None:
    request = with_spec(regression_pb2.RegressionRequest(), signature_name="regress")
    request.input.example_list_with_context.context.CopyFrom(example(4))
    request.input.example_list_with_context.examples.add()
    assert [r.value for r in client.prediction.Regress(request).result.regressions] == [5.0]


def test_classify_and_regress_refuse(client: Client) -> None:
    def regress(given: input_pb2.Input | None = None, **spec: Any) -> Any:
        return with_spec(regression_pb2.RegressionRequest(input=given or examples(1)), **spec)

    def classify(**spec: Any) -> Any:
        return with_spec(classification_pb2.ClassificationRequest(input=examples(1)), **spec)

    call = client.prediction
    assert refusal(call.Regress, regress(input_pb2.Input(), signature_name="regress")) == (
        "INVALID_ARGUMENT",
        "Input is empty.",
    )
    assert refusal(call.Regress, regress(signature_name="nope")) == (
        "INVALID_ARGUMENT",
        "No signature was found with the name: nope",
    )
    assert refusal(call.Regress, regress(signature_name="pair")) == (
        "INVALID_ARGUMENT",
        "Expected one input Tensor.",
    )
    code, text = refusal(call.Regress, regress())
    assert code == "FAILED_PRECONDITION"
    assert text.startswith("No regression inputs found in SignatureDef: ")
    code, text = refusal(call.Classify, classify(signature_name="regress"))
    assert code == "FAILED_PRECONDITION"
    assert text.startswith("Expected classification signature outputs to contain at least one of")
    # Of [N], where [N, classes] is meant.
    classification = classify(model="old", signature_name="classify")
    (one,) = call.Classify(classification).result.classifications
    assert [c.label for c in one.classes] == ["yes"]


def test_multi_inference(client: Client) -> None:
    request = inference_pb2.MultiInferenceRequest(input=examples(0.5, 1))
    for method in ("regress", "classify"):
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        with_spec(task, "old", signature_name=method)
    regressed, classified = client.prediction.MultiInference(request).results
    assert [r.value for r in regressed.regression_result.regressions] == [2.25, 2.5]
    labels = [c.classes[0].label for c in classified.classification_result.classifications]
    assert labels == ["no", "yes"]
    assert classified.model_spec.version.value == 1

    call = client.prediction.MultiInference
    request.tasks[1].model_spec.signature_name = "regress"
    assert refusal(call, request) == (
        "INVALID_ARGUMENT",
        "Duplicate evaluation of signature: regress",
    )
    request.tasks[1].model_spec.signature_name = "nope"
    assert refusal(call, request) == (
        "INVALID_ARGUMENT",
        "Requested signature not found in model graph: nope",
    )
    request.tasks[1].model_spec.name = "half"
    assert refusal(call, request) == (
        "INVALID_ARGUMENT",
        "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
    )
    request.tasks[0].method_name = "tensorflow/serving/predict"
    assert refusal(call, request) == (
        "UNIMPLEMENTED",
        "Unsupported signature method_name: tensorflow/serving/predict",
    )
    assert refusal(call, inference_pb2.MultiInferenceRequest()) == (
        "INVALID_ARGUMENT",
        "ModelSpec has no name specified.",
    )
    # Of a TF2 model each signature has an input tensor of its own.
    for task in request.tasks:
        method = {"regress": "regress", "nope": "classify"}[task.model_spec.signature_name]
        task.method_name = f"tensorflow/serving/{method}"
        with_spec(task, "half", signature_name=method)
    assert refusal(call, request) == (
        "INVALID_ARGUMENT",
        "Input tensor must be the same for all Signatures.",
    )


def test_metadata(client: Client) -> None:
    request = with_spec(get_model_metadata_pb2.GetModelMetadataRequest())
    call = client.prediction.GetModelMetadata
    assert refusal(call, request) == (
        "INVALID_ARGUMENT",
        "GetModelMetadataRequest must specify at least one metadata_field",
    )
    request.metadata_field.append("signature_def")
    response = call(request)
    assert response.model_spec.version.value == 3
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["pair"].inputs["a"].dtype == tf.float32
    request.metadata_field.append("weights")
    assert refusal(call, request) == (
        "INVALID_ARGUMENT",
        "Metadata field %s is not supportedweights",
    )


def test_status_refuses(client: Client) -> None:
    call = client.models.GetModelStatus
    request = get_model_status_pb2.GetModelStatusRequest()
    assert refusal(call, request) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    assert refusal(call, with_spec(request, "xyz")) == (
        "NOT_FOUND",
        "Could not find any versions of model xyz",
    )
    assert refusal(call, with_spec(request, version=7)) == (
        "NOT_FOUND",
        "Could not find version 7 of model half",
    )


def test_long_texts_are_cut(client: Client) -> None:
    _, text = refusal(client.prediction.Predict, predict(signature_name="n" * 3000))
    assert len(text) == 1024 + len("...TRUNCATED")
    assert text.endswith("...TRUNCATED")


@pytest.mark.parametrize("dtype", [
    "float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32",
    "uint32", "int64", "uint64", "bool", "complex64", "complex128",
])  # fmt: skip
def test_tensors_of_every_type_are_as_tensorflow_writes_them(dtype: str) -> None:
    from serving.server.tensors import to_array, to_proto

    kind = tf.as_dtype(dtype)
    array = np.array([[0, 1], [2, 3]]).astype(kind.as_numpy_dtype)
    for as_content in (False, True):
        proto = to_proto(array, kind.as_datatype_enum, as_content=as_content)
        assert bool(proto.tensor_content) is as_content
        np.testing.assert_array_equal(tf.make_ndarray(proto), array)
        np.testing.assert_array_equal(to_array(proto), array)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=300))
def test_any_bytes_as_a_request_get_a_status(client: Client, data: bytes) -> None:
    channel_call = client.prediction.Predict
    request = predict(signature_name="photos")
    request.inputs.clear()
    request.inputs["image"].CopyFrom(tf.make_tensor_proto([data]))
    code, _ = refusal(channel_call, request)
    assert code == "INVALID_ARGUMENT"


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(start=st.integers(0, 200), replaced=st.binary(max_size=40), cut=st.integers(0, 40))
def test_any_bytes_for_a_message_get_a_status(
    client: Client, raw_predict: Any, start: int, replaced: bytes, cut: int
) -> None:
    whole = predict_request("half", x=np.array([1, 2, 3], np.float32)).SerializeToString()
    at = start % len(whole)
    try:
        raw_predict(whole[:at] + replaced + whole[at + cut :], timeout=60)
    except grpc.RpcError as error:
        # INTERNAL is gRPC's for what is no message of the type.
        assert error.code().name in (
            "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "INTERNAL"
        )  # fmt: skip
    assert client.y("half") == 3.0


@pytest.fixture(scope="module")
def raw_predict(client: Client) -> Any:
    """Predict without a serializer."""
    return client.channel.unary_unary(
        "/tensorflow.serving.PredictionService/Predict",
        request_serializer=None,
        response_deserializer=None,
    )

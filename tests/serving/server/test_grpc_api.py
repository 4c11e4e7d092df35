"""The gRPC API with a real model: what is answered, what is refused, and by which code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from tests.serving.server.models import POISON, Client, config, refusal, request, serving

DT_STRING, DT_INT64 = tf.string.as_datatype_enum, tf.int64.as_datatype_enum


def pair(size: Any, **inputs: Any) -> PredictRequest:
    asked = PredictRequest()
    asked.model_spec.name = "photos"
    asked.model_spec.signature_name = "pair"
    for name, value in {"size": tf.make_tensor_proto(size, tf.int64), **inputs}.items():
        asked.inputs[name].CopyFrom(value)
    return asked


YES = tf.make_tensor_proto(True)


def test_predict(client: Client) -> None:
    response = client.predict(request(b"photo", b"-", b"another"))
    assert response.model_spec.name == "photos"
    assert response.model_spec.version.value == 3
    assert response.model_spec.signature_name == "serving_default"
    age, _, last = response.outputs["age"].float_val
    assert (age, last) == (5.0, 7.0)
    assert list(response.outputs["valid"].bool_val) == [True, False, True]
    assert [d.size for d in response.outputs["age"].tensor_shape.dim] == [3]


def test_other_signatures_and_types(client: Client) -> None:
    response = client.predict(pair([[1, 2], [3, 4]], swap=YES))
    assert list(response.outputs["size"].int64_val) == [2, 1, 4, 3]
    assert list(response.outputs["count"].int_val) == [2]
    photos = [b"\xff\xd8\x00", b""]
    same = client.predict(request(*photos, signature_name="same")).outputs["same_bytes"]
    assert list(same.string_val) == photos


def test_no_photos(client: Client) -> None:
    assert [d.size for d in client.predict(request()).outputs["age"].tensor_shape.dim] == [0]


def test_output_filter(client: Client) -> None:
    asked = request(b"photo")
    asked.output_filter.append("age")
    assert set(client.predict(asked).outputs) == {"age"}
    asked.output_filter.append("age")
    assert refusal(lambda: client.predict(asked))[0] == "INVALID_ARGUMENT"
    asked.output_filter[:] = ["gender"]
    assert "alias not found in signature: gender" in refusal(lambda: client.predict(asked))[1]


@pytest.mark.parametrize(
    ("asked", "code", "text"),
    [
        (request(b"", model="gone"), "NOT_FOUND", "Servable not found for request: Latest(gone)"),
        (request(b"", version=8), "NOT_FOUND", "not found for request: Specific(photos, 8)"),
        (
            request(b"", version_label="x"),
            "INVALID_ARGUMENT",
            "Unrecognized servable version label",
        ),
        (request(b"", model=""), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (request(b"", signature_name="x"), "FAILED_PRECONDITION", 'signature key "x" not found'),
        (request(POISON), "INVALID_ARGUMENT", "assertion failed"),
        (PredictRequest(model_spec=request().model_spec), "INVALID_ARGUMENT", "required: {image}"),
        (pair([[1, 2, 3]], swap=YES), "INVALID_ARGUMENT", "has the shape [1, 3]"),
        (pair([[1, 2]], swap=tf.make_tensor_proto([True])), "INVALID_ARGUMENT", "the shape [1]"),
        (pair([[1, 2]], swap=tf.make_tensor_proto(1)), "INVALID_ARGUMENT", "be of type bool"),
    ],
)
def test_refusals(client: Client, asked: PredictRequest, code: str, text: str) -> None:
    found = refusal(lambda: client.predict(asked))
    assert found[0] == code
    assert text in found[1]
    assert client.version() == 3


def tensor(dtype: int, shape: list[int], **values: Any) -> TensorProto:
    made = TensorProto(dtype=dtype, **values)
    for size in shape:
        made.tensor_shape.dim.add(size=size)
    return made


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (tensor(DT_STRING, [10**6]), "its shape has 1000000 values, the message has 0"),
        (tensor(DT_STRING, [3], string_val=[b"x"]), "has 3 values, the message has 1"),
        (tensor(DT_STRING, [1], string_val=[b"x", b"y"]), "has 1 values, the message has 2"),
        (tensor(DT_STRING, [1] * 33, string_val=[b"x"]), "0 to 32 dimensions"),
        (tensor(DT_STRING, [1, 1], string_val=[b"x"]), "has the shape [1, 1]"),
        (tensor(DT_STRING, [-1], string_val=[b"x"]), "has the shape [-1]"),
        (tensor(DT_STRING, [1], tensor_content=b"x"), "strings belong in string_val"),
        (tensor(DT_INT64, [1], int64_val=[1]), "has to be of type string"),
        (tensor(999, [1]), "has to be of type string"),
        (TensorProto(dtype=DT_STRING, tensor_shape={"unknown_rank": True}), "dimensions"),
    ],
)
def test_a_tensor_that_contradicts_itself(client: Client, image: TensorProto, text: str) -> None:
    asked = request()
    asked.inputs["image"].CopyFrom(image)
    code, found = refusal(lambda: client.predict(asked))
    assert code == "INVALID_ARGUMENT"
    assert text in found


def test_numbers_as_raw_memory(client: Client) -> None:
    raw = tensor(DT_INT64, [1, 2], tensor_content=b"\x01" + b"\0" * 7 + b"\x02" + b"\0" * 7)
    asked = pair([[0, 0]], swap=YES)
    asked.inputs["size"].CopyFrom(raw)
    assert list(client.predict(asked).outputs["size"].int64_val) == [2, 1]
    asked.inputs["size"].tensor_content = raw.tensor_content[:-1]
    assert "ends within a value" in refusal(lambda: client.predict(asked))[1]


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    st.builds(
        TensorProto,
        dtype=st.sampled_from([DT_STRING, DT_INT64, 1, 10, 999]),
        tensor_content=st.binary(max_size=20),
        string_val=st.lists(st.binary(max_size=5), max_size=4),
        int64_val=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    ),
    st.lists(st.integers(-2, 4) | st.integers(-(2**63), 2**63 - 1), max_size=35),
    st.sampled_from(["image", "size"]),
)
def test_any_tensor_is_answered_or_refused(
    client: Client, image: TensorProto, shape: list[int], name: str
) -> None:
    for size in shape:
        image.tensor_shape.dim.add(size=size)
    asked = request() if name == "image" else pair([[0, 0]], swap=YES)
    asked.inputs[name].CopyFrom(image)
    try:
        client.predict(asked)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error.details()


def test_batching_bounds_a_request(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "batching.config"
    file.write_text("max_batch_size { value: 4 } batch_timeout_micros { value: 1000 }")
    flags = {"enable_batching": True, "batching_parameters_file": str(file)}
    with serving(tmp_path, config(photos=base), **flags) as client:
        assert len(client.predict(request(*[b"photo"] * 4)).outputs["age"].float_val) == 4
        code, text = refusal(lambda: client.predict(request(*[b"photo"] * 5)))
        assert (code, "size 5 is larger than maximum" in text) == ("INVALID_ARGUMENT", True)
        asked = [client.prediction.Predict.future(request(b"p" * n)) for n in range(3, 20)]
        poisoned = client.prediction.Predict.future(request(POISON))
        assert [one.result().outputs["age"].float_val[0] for one in asked] == list(range(3, 20))
        assert poisoned.exception().code() is grpc.StatusCode.INVALID_ARGUMENT
        # A signature with an input that has no rows runs by itself.
        assert list(client.predict(pair([[1, 2]] * 5, swap=YES)).outputs["count"].int_val) == [5]


def test_metadata(client: Client) -> None:
    asked = GetModelMetadataRequest(model_spec=request().model_spec)
    asked.metadata_field.append("signature_def")
    found = client.prediction.GetModelMetadata(asked)
    assert found.model_spec.version.value == 3
    signatures = SignatureDefMap()
    assert found.metadata["signature_def"].Unpack(signatures)
    default = signatures.signature_def["serving_default"]
    assert default.inputs["image"].dtype == DT_STRING
    assert set(default.outputs) == {"age", "valid", "model_version"}
    asked.metadata_field[:] = ["weights"]
    assert refusal(lambda: client.prediction.GetModelMetadata(asked))[0] == "INVALID_ARGUMENT"


def test_status(client: Client) -> None:
    assert client.states() == {3: "AVAILABLE"}
    asked = GetModelStatusRequest()
    asked.model_spec.name = "photos"
    asked.model_spec.version.value = 4
    assert refusal(lambda: client.models.GetModelStatus(asked)) == (
        "NOT_FOUND",
        "Could not find version 4 of model photos",
    )


def test_health(client: Client) -> None:
    stub = health_pb2_grpc.HealthStub(client.channel)
    answer = stub.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_other_methods_are_not_implemented(client: Client) -> None:
    code, _ = refusal(lambda: client.prediction.Classify(ClassificationRequest()))
    assert code == "UNIMPLEMENTED"


def test_message_sizes(base: Path, tmp_path: Path) -> None:
    photo = b"p" * 8_000_000  # twice gRPC's own limit
    models = config(photos=base)
    with serving(tmp_path, models) as client:
        assert list(client.predict(request(photo)).outputs["age"].float_val) == [8e6]
    limited = "grpc.max_receive_message_length=1000,grpc.max_connection_age_ms=60000"
    with serving(tmp_path, models, grpc_channel_arguments=limited) as client:
        assert refusal(lambda: client.predict(request(photo)))[0] == "RESOURCE_EXHAUSTED"
        assert client.version() == 3


def test_a_channel_argument_may_be_negative(base: Path, tmp_path: Path) -> None:
    photo = b"p" * 8_000_000
    unlimited = "grpc.max_receive_message_length=-1"
    with serving(tmp_path, config(photos=base), grpc_channel_arguments=unlimited) as client:
        assert list(client.predict(request(photo)).outputs["age"].float_val) == [8e6]

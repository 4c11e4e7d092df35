"""Our messages have the bytes of TensorFlow's, and both can be loaded in one process."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from goodseed_client import wire
from goodseed_client.advice import Failure
from goodseed_client.predict_pb2 import DESCRIPTOR, DT_BOOL, DT_FLOAT, DT_STRING, PredictResponse
from google.protobuf.descriptor import FieldDescriptor

from tests.serving.client.server import ages, as_raw_memory, response


def facts(field: FieldDescriptor) -> dict[str, object]:
    """The properties that determine the bytes of a field."""
    kind = field.message_type or field.enum_type
    return {
        "name": field.name,
        "type": field.type,
        "repeated": field.is_repeated,
        "packed": field.is_packed,
        "of": kind.name if kind else None,
        "oneof": field.containing_oneof.name if field.containing_oneof else None,
    }


def test_every_field_is_as_in_tensorflow() -> None:
    pytest.importorskip("tensorflow_serving")
    from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
    from tensorflow_serving.apis import model_pb2, predict_pb2

    theirs = {
        **tensor_pb2.DESCRIPTOR.message_types_by_name,
        **tensor_shape_pb2.DESCRIPTOR.message_types_by_name,
        **model_pb2.DESCRIPTOR.message_types_by_name,
        **predict_pb2.DESCRIPTOR.message_types_by_name,
    }
    messages = list(DESCRIPTOR.message_types_by_name.values())
    assert len(messages) == 5
    while messages:
        ours = messages.pop()
        their = theirs[ours.name]
        for field in ours.fields:
            assert facts(field) == facts(their.fields_by_number[field.number]), field.full_name
        messages += ours.nested_types
        theirs.update(their.nested_types_by_name)
    for value in DESCRIPTOR.enum_types_by_name["DataType"].values:
        assert types_pb2.DataType.Value(value.name) == value.number


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("localhost", True), ("127.0.0.1", True), ("[::1]", True), ("10.1.2.3", True),
        ("ages", True), ("ages.goodseed.svc", True), ("AGES.LOCAL", True),
        ("ages.goodseed.example", False), ("8.8.8.8", False), ("svc.example", False),
    ],
)  # fmt: skip
def test_private_servers(host: str, private: bool) -> None:
    assert wire._is_private(host) is private


def test_requests_and_answers_are_as_in_tensorflow() -> None:
    pytest.importorskip("tensorflow_serving")
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest.FromString(
        wire.make_request([b"one", b"two"], "goodseed_age", "serving_default", "stable")
    )
    assert tf.make_ndarray(request.inputs["image"]).tolist() == [b"one", b"two"]
    spec = request.model_spec
    assert (spec.name, spec.signature_name) == ("goodseed_age", "serving_default")
    assert spec.version_label == "stable"

    for values in (
        [40.5],
        [40.5, 18.25],
    ):  # TensorFlow stores one value in a field, several as raw memory
        answer = predict_pb2.PredictResponse()
        answer.model_spec.version.value = 3
        answer.outputs["age"].CopyFrom(tf.make_tensor_proto(values, tf.float32))
        answer.outputs["valid"].CopyFrom(tf.make_tensor_proto([True] * len(values)))
        objections = ["", "no_face"][: len(values)]
        answer.outputs["objection"].CopyFrom(tf.make_tensor_proto(objections))
        answer.outputs["challenge"].CopyFrom(tf.make_tensor_proto([False] * len(values)))
        answer.outputs["later"].CopyFrom(tf.make_tensor_proto(["something"] * len(values)))
        predictions, version = wire.read_answer(answer.SerializeToString(), len(values))
        assert [prediction.age for prediction in predictions] == values
        assert all(prediction.valid and not prediction.challenge for prediction in predictions)
        assert [prediction.objection for prediction in predictions] == objections
        assert version == 3


def test_raw_memory_and_fields_are_the_same() -> None:
    raw = PredictResponse.FromString(ages(40.5, 18.25))
    raw.outputs["age"].ClearField("float_val")
    raw.outputs["age"].tensor_content = as_raw_memory([40.5, 18.25])
    raw.outputs["valid"].ClearField("bool_val")
    raw.outputs["valid"].tensor_content = b"\1\1"
    assert wire.read_answer(raw.SerializeToString(), 2) == wire.read_answer(ages(40.5, 18.25), 2)
    raw.outputs["age"].tensor_content += b"\0"
    with pytest.raises(Failure, match="output age has 0 values, not 2"):
        wire.read_answer(raw.SerializeToString(), 2)


def test_a_server_that_does_not_tell_the_version() -> None:
    answer = response(None, age=(DT_FLOAT, [40]), valid=(DT_BOOL, [True]))
    assert wire.read_answer(answer, 1) == ([wire.Prediction(40, True, None, None)], None)


def test_strings_are_never_raw_memory() -> None:
    raw = PredictResponse.FromString(ages(40, objection=(DT_STRING, [])))
    raw.outputs["objection"].tensor_shape.dim[0].size = 1
    raw.outputs["objection"].tensor_content = b"\1"
    with pytest.raises(Failure, match="output objection has 0 values, not 1"):
        wire.read_answer(raw.SerializeToString(), 1)


PLAIN = """
import sys

class PlainInstall:
    here = {"goodseed_client", "google", "grpc", "numpy", "PIL", "typing_extensions"}

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] not in cls.here | sys.stdlib_module_names:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, PlainInstall)
import goodseed_client.batch
"""


def test_the_client_imports_only_its_requirements() -> None:
    """test_install.py installs the wheel; this is a quick check of the imports."""
    done = subprocess.run([sys.executable, "-c", PLAIN], capture_output=True, text=True)
    assert done.stderr == ""


def test_the_protos_import_each_other() -> None:
    folder = Path(wire.__file__).parent
    imports = re.findall('import "(.*)"', (folder / "prediction_service.proto").read_text())
    assert imports == [DESCRIPTOR.name]
    assert (folder.parent / DESCRIPTOR.name).is_file()

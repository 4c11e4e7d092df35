"""Our protos are TensorFlow's on the wire, and live beside them; the client needs neither."""

from __future__ import annotations

import subprocess
import sys

import pytest
from goodseed_client import wire
from goodseed_client.advice import Failure
from goodseed_client.predict_pb2 import DESCRIPTOR, DT_BOOL, DT_FLOAT, PredictResponse
from google.protobuf.descriptor import FieldDescriptor

from tests.conftest import ROOT
from tests.serving.client.server import ages, as_raw_memory, response


def facts(field: FieldDescriptor) -> dict[str, object]:
    """What decides how a field is written."""
    kind = field.message_type or field.enum_type
    return {
        "name": field.name,
        "type": field.type,
        "repeated": field.is_repeated,
        "packed": field.is_packed,
        "of": kind.name if kind else None,
        "oneof": field.containing_oneof.name if field.containing_oneof else None,
    }


def test_every_field_is_tensorflows() -> None:
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


def test_requests_and_answers_are_tensorflows() -> None:
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

    for values in ([40.5], [40.5, 18.25]):  # one value is a field, several are raw memory
        answer = predict_pb2.PredictResponse()
        answer.model_spec.version.value = 3
        answer.outputs["age"].CopyFrom(tf.make_tensor_proto(values, tf.float32))
        answer.outputs["valid"].CopyFrom(tf.make_tensor_proto([True] * len(values)))
        answer.outputs["later"].CopyFrom(tf.make_tensor_proto(["something"] * len(values)))
        predictions, version = wire.read_answer(answer.SerializeToString(), len(values))
        assert [prediction.age for prediction in predictions] == values
        assert all(prediction.valid for prediction in predictions)
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


def test_a_server_that_tells_no_version() -> None:
    answer = response(None, age=(DT_FLOAT, [40]), valid=(DT_BOOL, [True]))
    assert wire.read_answer(answer, 1) == ([wire.Prediction(40, True, False)], None)


PLAIN = """
import sys

class PlainInstall:
    here = {{"serving", "schemas", "pipeline", "components", "google", "grpc", "numpy", "PIL"}}

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in cls.here | sys.stdlib_module_names | {{"typing_extensions"}}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, PlainInstall)
{code}
"""


def in_a_plain_install(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code where only Python and what setup.py's CLIENT names can be imported."""
    command = [sys.executable, "-c", PLAIN.format(code=code)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("module", ["serving", "goodseed_client.batch", "pipeline.cli"])
def test_a_plain_install_is_enough(module: str) -> None:
    assert in_a_plain_install(f"import {module}").stderr == ""
    assert in_a_plain_install("import tensorflow").returncode == 1


def test_what_a_plain_install_lacks_is_said_in_one_line() -> None:
    run = "from pipeline.cli import main; sys.exit(main({}))"
    words = ["ages", ".", "--output", "ages.csv"]
    done = in_a_plain_install(run.format(words))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "goodseed: no module rich: pip install 'goodseed[analytics]' brings it\n"

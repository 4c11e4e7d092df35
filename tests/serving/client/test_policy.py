"""For every answer of a server, only a valid age at or above the challenge age passes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from goodseed_client import Policy, Reason
from goodseed_client.advice import MESSAGES, OBJECTIONS, Failure
from goodseed_client.policy import decide
from goodseed_client.predict_pb2 import DT_BOOL, DT_FLOAT, DT_STRING, DataType, PredictResponse
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving.client.photos import mutated
from tests.serving.client.server import VERSION, ages, as_raw_memory

POLICY = Policy.load()
KNOWN = [b"no_photo", *sorted(objection.encode() for objection in OBJECTIONS)]
FLOATS = st.one_of(
    st.sampled_from([0.0, 24.999, 25.0, 40.0, 120.0, 120.1, -1.0, math.nan, math.inf, -math.inf]),
    st.floats(width=32),
)


@st.composite
def tensors(draw: st.DrawFn, dtype: DataType) -> dict[str, object]:
    """The fields of a TensorProto: a good value, or one wrong field."""
    fields: dict[str, object] = {
        "dtype": dtype,
        "shape": [1],
        "floats": [draw(st.one_of(st.sampled_from([24.9, 25.0, 40.0, 120.0]), FLOATS))],
        "bools": [draw(st.booleans())],
        "strings": [draw(st.one_of(st.just(b""), st.sampled_from(KNOWN), st.binary(max_size=9)))],
    }
    match draw(st.sampled_from(["nothing"] * 30 + ["type", "shape", "count", "raw", "empty"])):
        case "type":
            fields["dtype"] = draw(st.sampled_from([DT_FLOAT, DT_BOOL, DT_STRING, 2, 99]))
        case "shape":
            fields["shape"] = draw(st.sampled_from([[], [1, 1], [-1], [0], [2]]))
        case "count":
            fields |= {
                "shape": [2],
                "floats": [40.0, 40.0],
                "bools": [True, True],
                "strings": [b"", b""],
            }
        case "raw":
            fields["raw"] = draw(st.binary(max_size=9))
        case "empty":
            fields |= {"floats": [], "bools": [], "strings": []}
    return fields


def message(outputs: dict[str, dict[str, object]]) -> bytes:
    response = PredictResponse()
    for name, fields in outputs.items():
        tensor = response.outputs[name]
        tensor.dtype = fields["dtype"]  # type: ignore[assignment]
        for size in fields["shape"]:  # type: ignore[attr-defined]
            tensor.tensor_shape.dim.add(size=size)
        tensor.tensor_content = fields.get("raw", b"")  # type: ignore[assignment]
        tensor.float_val.extend(fields.get("floats", []))  # type: ignore[arg-type]
        tensor.bool_val.extend(fields.get("bools", []))  # type: ignore[arg-type]
        tensor.string_val.extend(fields.get("strings", []))  # type: ignore[arg-type]
    return response.SerializeToString()


def value(fields: dict[str, object] | None, dtype: DataType) -> float | bool | bytes | None:
    """The value of a good output of one row, read independently of the client."""
    if fields is None or fields["dtype"] != dtype or fields["shape"] != [1]:
        return None
    if (raw := fields.get("raw")) and dtype != DT_STRING:
        kind = np.float32 if dtype == DT_FLOAT else np.bool_
        return np.frombuffer(raw, kind).item() if len(raw) == kind().nbytes else None  # type: ignore[call-overload, arg-type, no-any-return]
    values = fields[{DT_FLOAT: "floats", DT_BOOL: "bools", DT_STRING: "strings"}[dtype]]
    return values[0] if len(values) == 1 else None  # type: ignore[arg-type, index, no-any-return]


@settings(max_examples=1000)
@given(
    st.fixed_dictionaries(
        {
            "age": tensors(DT_FLOAT),
            "valid": tensors(DT_BOOL),
            "objection": tensors(DT_STRING),
            "challenge": tensors(DT_BOOL),
        },
        optional={"p_minor": tensors(DT_FLOAT)},
    ),
    st.sampled_from([None] * 12 + ["age", "valid", "objection", "challenge"]),
)
def test_only_a_valid_age_that_is_high_enough_passes(
    outputs: dict[str, dict[str, object]], missing: str | None
) -> None:
    outputs.pop(missing or "", None)
    decision = decide(message(outputs), POLICY)
    age, valid = value(outputs.get("age"), DT_FLOAT), value(outputs.get("valid"), DT_BOOL)
    guarded = (
        value(outputs.get("objection"), DT_STRING) == b""
        and value(outputs.get("challenge"), DT_BOOL) is False
    )
    passes = valid is True and guarded and isinstance(age, float) and 25 <= age <= 120
    assert (decision.reason is Reason.OLD_ENOUGH) == passes
    if passes:
        assert decision.age == pytest.approx(age)


@given(
    st.one_of(st.sampled_from(KNOWN), st.binary(min_size=1, max_size=2000)),
    st.booleans(),
    st.floats(0, 120, width=32),
)
def test_an_objection_comes_before_the_age(objection: bytes, challenge: bool, age: float) -> None:
    answer = ages(age, objection=(DT_STRING, [objection]), challenge=(DT_BOOL, [challenge]))
    decision = decide(answer, POLICY)
    assert (decision.age, decision.model_version) == (None, VERSION)
    assert 0 < len(decision.cause) < 300
    if objection == b"no_photo":
        assert decision.reason is Reason.BAD_PHOTO
    elif objection in KNOWN:
        assert (decision.reason.kind, decision.reason) == ("RETAKE", objection.decode())
    else:
        assert (decision.reason.kind, decision.reason) == ("CHALLENGE", Reason.MODEL_SAYS_SO)


@pytest.mark.parametrize("missing", ["objection", "challenge"])
@pytest.mark.parametrize("age", [10, 40])
def test_a_model_without_a_guard_passes_nobody(missing: str, age: float) -> None:
    response = PredictResponse.FromString(ages(age))
    del response.outputs[missing]
    decision = decide(response.SerializeToString(), POLICY)
    assert (decision.reason.kind, decision.reason) == ("CHALLENGE", Reason.UNGUARDED_MODEL)
    assert (decision.age, decision.model_version) == (None, VERSION)
    assert decision.cause == f"the model has no output {missing}"


@given(st.binary(max_size=200))
def test_any_bytes_make_a_decision(data: bytes) -> None:
    assert decide(data, POLICY).reason is not Reason.OLD_ENOUGH


@given(st.integers(0, 2**32), FLOATS)
def test_damaged_answers_make_a_decision(seed: int, age: float) -> None:
    decision = decide(mutated(ages(age), np.random.default_rng(seed)), POLICY)
    if decision.reason is Reason.OLD_ENOUGH:
        assert decision.age is not None and 25 <= decision.age <= 120


@given(FLOATS, st.floats(1, 120), st.booleans())
def test_every_policy(age: float, challenge_age: float, raw: bool) -> None:
    response = PredictResponse.FromString(ages(age))
    if raw:
        response.outputs["age"].ClearField("float_val")
        response.outputs["age"].tensor_content = as_raw_memory([age])
    decision = decide(response.SerializeToString(), Policy(1, challenge_age))
    assert (decision.reason is Reason.OLD_ENOUGH) == (challenge_age <= age <= 120)
    assert decision.model_version == VERSION


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_message_and_only_one_passes(reason: Reason) -> None:
    assert MESSAGES[reason].endswith(".")
    assert (reason.kind == "NO_CHALLENGE") == (reason is Reason.OLD_ENOUGH)
    assert decide(Failure(reason, "why"), POLICY).cause == "why"


def test_the_policy_of_the_package() -> None:
    assert (POLICY.legal_age, POLICY.challenge_age) == (18, 25)


def test_a_policy_is_known_by_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text('{"challenge_age": 25.0, "legal_age": 18}')
    assert Policy.load(file).hash == POLICY.hash
    assert Policy(18, 26).hash != POLICY.hash
    assert len(POLICY.hash) == 12


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON"),
        ("[]", "should have challenge_age, legal_age"),
        ('{"legal_age": 18}', "should have challenge_age, legal_age"),
        ('{"legal_age": 18, "challenge_age": 25, "x": 1}', "and nothing else"),
        ('{"legal_age": 18, "challenge_age": "25"}', "challenge_age is '25'"),
        ('{"legal_age": true, "challenge_age": 25}', "legal_age is True"),
        ('{"legal_age": 18, "challenge_age": NaN}', "should be above 0"),
        ('{"legal_age": 25, "challenge_age": 18}', "in this order"),
        ('{"legal_age": 0, "challenge_age": 18}', "above 0"),
        ('{"legal_age": 18, "challenge_age": 121}', "at most 120"),
    ],
)
def test_a_bad_policy_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=said) as error:
        Policy.load(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ValueError, match="No such file"):
        Policy.load(tmp_path / "none.json")

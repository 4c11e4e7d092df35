"""The reasons why a model does not pass the gate."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import pytest

from components.certificate import Proof
from components.gate import BASELINE_MAE, CHALLENGE, MAE, MEASURED, REASON, REFUSED, reasons
from pipeline.config import Evaluator, Guard

GATE = Evaluator(max_mae=8.0, max_mae_increase=0.25)
ABOVE = "MAE {} years is above the bound of 8.00"
WORSE = "MAE {} years is worse than the live model's {} by more than 0.25"


REFUSES = "the model refuses {} of the test photos, which is above the bound of 5.0% "
REFUSES += "(guard.max_refused_test)"
NO_OUTPUT = "it has no output valid"


def challenge(passed: int, certified: bool = True) -> str:
    """The property CHALLENGE if so many of 60 hard minors pass without ID on test."""
    proof = Proof(15, 17, 60, passed, 0.1, 0)
    return json.dumps({"certified": certified, "minors_on_test": [asdict(proof)]})


@pytest.mark.parametrize(("passed", "certified", "shut"), [
    (0, True, False), (10, True, False), (11, True, True), (60, True, True), (60, False, False),
])  # fmt: skip
def test_the_test_photos_may_not_contradict_the_certificate(
    passed: int, certified: bool, shut: bool
) -> None:
    """P(at least 11 of 60 | 0.1) is 0.034, P(at least 10 of 60 | 0.1) is 0.073."""
    evaluation = {MAE: 5.0, MEASURED: 30, REFUSED: 0.0, CHALLENGE: challenge(passed, certified)}
    expected = (
        f"{passed} of 60 test photos of people aged 15 to 17 pass without ID, "
        "which contradicts the certified 10%"
    )
    assert reasons(GATE, Guard(), evaluation, {}) == [expected] * shut


@pytest.mark.parametrize(
    ("mae", "baseline_mae", "refused", "serving_reason", "expected"),
    [
        (8.0, None, 0.05, None, []),
        (6.25, 6.0, 0.0, "", []),
        (8.01, None, 0.0, None, [ABOVE.format("8.01")]),
        (math.nan, None, 1.0, None, [ABOVE.format("nan"), REFUSES.format("100.0%")]),
        (6.26, 6.0, 0.0, None, [WORSE.format("6.26", "6.00")]),
        (8.1, 12.0, 0.0, None, [ABOVE.format("8.10")]),
        (6.0, None, 0.0625, None, [REFUSES.format("6.2%")]),
        (6.0, None, math.nan, None, [REFUSES.format("nan%")]),
        (6.0, None, 0.0, NO_OUTPUT, [f"it can't be served: {NO_OUTPUT}"]),
        (9.0, 5.0, 0.1, "no", [ABOVE.format("9.00"), WORSE.format("9.00", "5.00"),
                               REFUSES.format("10.0%"), "it can't be served: no"]),
    ],
)  # fmt: skip
def test_each_broken_bound_is_a_reason(
    mae: float,
    baseline_mae: float | None,
    refused: float,
    serving_reason: str | None,
    expected: list[str],
) -> None:
    evaluation: dict[str, Any] = {
        MAE: mae, MEASURED: 30, REFUSED: refused, CHALLENGE: challenge(0)
    }  # fmt: skip
    if baseline_mae is not None:
        evaluation[BASELINE_MAE] = baseline_mae
    served = {} if serving_reason is None else {REASON: serving_reason}
    assert reasons(GATE, Guard(), evaluation, served) == expected


def test_too_few_test_photos_are_a_reason() -> None:
    evaluation = {MAE: 5.0, MEASURED: 1, REFUSED: 0.0, CHALLENGE: challenge(0)}
    assert reasons(GATE, Guard(), evaluation, {}) == [
        "the number of test photos without an objection is 1, which is below the bound of 30 "
        "(evaluator.min_test_photos)"
    ]
    assert reasons(Evaluator(min_test_photos=1), Guard(), evaluation, {}) == []

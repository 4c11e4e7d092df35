"""The reasons why a model does not pass the gate."""

from __future__ import annotations

import math

import pytest

from components.gate import reasons
from pipeline.config import Evaluator

GATE = Evaluator(max_mae=8.0, max_mae_increase=0.25)
ABOVE = "MAE {} years is above the bound of 8.00"
WORSE = "MAE {} years is worse than the live model's {} by more than 0.25"


@pytest.mark.parametrize(
    ("mae", "baseline_mae", "serving_reason", "expected"),
    [
        (8.0, None, None, []),
        (6.25, 6.0, "", []),
        (8.01, None, None, [ABOVE.format("8.01")]),
        (math.nan, None, None, [ABOVE.format("nan")]),
        (6.26, 6.0, None, [WORSE.format("6.26", "6.00")]),
        (8.1, 12.0, None, [ABOVE.format("8.10")]),
        (6.0, None, "it has no output valid", ["it can't be served: it has no output valid"]),
        (9.0, 5.0, "no", [ABOVE.format("9.00"), WORSE.format("9.00", "5.00"),
                          "it can't be served: no"]),
    ],
)  # fmt: skip
def test_each_broken_bound_is_a_reason(
    mae: float, baseline_mae: float | None, serving_reason: str | None, expected: list[str]
) -> None:
    assert reasons(GATE, mae, baseline_mae, serving_reason) == expected

"""What the summary says about the gate, and the exit status."""

from __future__ import annotations

from typing import Any

import pytest

from components.gate import MAE, REASON
from pipeline.config import Evaluator
from pipeline.summary import FAILED, GATE_SHUT, PUSHED, exit_status, summarise

OUTPUTS: dict[tuple[str, str], dict[str, Any]] = {
    ("Evaluator", "evaluation"): {MAE: 9.0},
    ("Evaluator", "blessing"): {"blessed": 0},
    ("ServingCheck", "blessing"): {REASON: "it has no output valid"},
    ("Pusher", "pushed_model"): {},
}


def summary(**changes: Any) -> dict[str, Any]:
    given = {"outputs": OUTPUTS, "failure": None, **changes}
    return summarise(Evaluator(), **given, seconds={}, peak_rss_mb={})


def test_it_gives_the_reasons_of_the_gate() -> None:
    assert summary()["gate"] == {
        "metric": MAE,
        "value": 9.0,
        "bound": 8.0,
        "baseline": None,
        "blessed": False,
        "reasons": [
            "MAE 9.00 years is above the bound of 8.00",
            "it can't be served: it has no output valid",
        ],
    }


def test_a_run_that_did_not_reach_a_step() -> None:
    document = summary(outputs={}, failure="PhotoExampleGen: no photos")
    assert document["gate"] is document["examples"] is document["review"] is None
    assert exit_status(document) == FAILED


@pytest.mark.parametrize(
    ("version", "status"), [({"pushed_version": "1764000000"}, PUSHED), ({}, GATE_SHUT)]
)
def test_the_exit_status_says_whether_it_pushed(version: dict[str, str], status: int) -> None:
    outputs = {**OUTPUTS, ("Pusher", "pushed_model"): version}
    assert exit_status(summary(outputs=outputs)) == status

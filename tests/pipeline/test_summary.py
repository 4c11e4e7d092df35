"""What the summary says about the gate, and the exit status."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from components import gate
from components.gate import MAE, MEASURED, OBJECTIONS, REASON, REFUSED
from pipeline.config import Evaluator, Guard
from pipeline.summary import FAILED, GATE_SHUT, PUSHED, exit_status, show, summarise

CHALLENGE: dict[str, Any] = {
    "age": 25.0,
    "max_p_minor": 0.031,
    "certified": True,
    "sentences": ["Customers pass without ID if they look 25 or older."],
    "minors_on_eval": [],
    "minors_on_test": [],
    "adults_on_test": [{"youngest": 25, "oldest": 34, "photos": 40, "passed": 30}],
}
OUTPUTS: dict[tuple[str, str], dict[str, Any]] = {
    ("Evaluator", "evaluation"): {
        MAE: 9.0,
        MEASURED: 97,
        REFUSED: 0.03,
        OBJECTIONS: '{"no_face": 2, "unlike_training": 1}',
        gate.CHALLENGE: json.dumps(CHALLENGE),
    },
    ("Evaluator", "blessing"): {"blessed": 0},
    ("ServingCheck", "blessing"): {REASON: "it has no output valid"},
    ("Pusher", "pushed_model"): {},
}


def summary(**changes: Any) -> dict[str, Any]:
    given = {"outputs": OUTPUTS, "failure": None, **changes}
    return summarise(Evaluator(), Guard(), **given, seconds={}, peak_rss_mb={})


def test_it_gives_the_reasons_of_the_gate() -> None:
    assert summary()["gate"] == {
        "metric": MAE,
        "value": 9.0,
        "bound": 8.0,
        "baseline": None,
        "measured": 97,
        "measured_bound": 30,
        "refused": 3,
        "refused_share": 0.03,
        "refused_bound": 0.05,
        "objections": {"no_face": 2, "unlike_training": 1},
        "challenge": CHALLENGE,
        "comparison": None,
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


def test_the_table_says_who_is_refused_and_who_is_asked() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    document = summary()
    document["seconds"]["total"] = document["peak_rss_mb"]["total"] = 1.0
    show(document, console)
    text = console.export_text()
    assert "3 of 100 photos: 3.0% (bound 5.0%); no_face 2, unlike_training 1" in text
    assert "Customers pass without ID if they look 25 or older." in text
    assert "Of 100 customers aged 25 to 34, about 25 are asked for ID." in text

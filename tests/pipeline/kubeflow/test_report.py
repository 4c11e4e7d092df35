"""The summary of a run, from the records of its steps."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from components.gate import BASELINE_MAE, CHALLENGE, MAE, MEASURED, OBJECTIONS, REFUSED
from pipeline.kubeflow import report
from pipeline.kubeflow.records import PLAN, Record

EXAMPLES = {
    "PhotoExampleGen.examples": {
        "examples": '{"train": 70, "eval": 15, "test": 12}', "rejects": '{"missing": 3}',
    }
}  # fmt: skip
UNCERTIFIED = json.dumps(
    {"age": None, "certified": False, "sentences": ["Nothing is proved."], "adults_on_test": []}
)
PUSHED = {"Pusher.pushed_model": {"pushed_version": 1764000000}}


def evaluated(mae: float, blessed: int = 1, baseline: float | None = None) -> dict[str, Any]:
    live = {} if baseline is None else {BASELINE_MAE: baseline}
    photos = {MEASURED: 11, REFUSED: 1 / 12, OBJECTIONS: '{"no_face": 1}', CHALLENGE: UNCERTIFIED}
    return {
        "Evaluator.evaluation": {MAE: mae, **live, **photos},
        "Evaluator.blessing": {"blessed": blessed},
    }


def ran(
    folder: Path,
    step: str,
    *,
    outputs: dict[str, Any] | None = None,
    inputs: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    failure: str | None = None,
) -> None:
    record = Record(step, folder)
    record.config = config
    with contextlib.suppress(UserError), record.recording():
        record.inputs, record.outputs = inputs or {}, outputs or {}
        if failure:
            raise UserError(failure)


def test_a_run_that_pushed(tmp_path: Path) -> None:
    ran(tmp_path, PLAN, config={
        "evaluator": {"max_mae": 7.5, "min_test_photos": 11}, "guard": {"max_refused_test": 0.1}
    })  # fmt: skip
    ran(tmp_path, "PhotoExampleGen", outputs=EXAMPLES)
    ran(tmp_path, "Evaluator", outputs=evaluated(6.5, baseline=6.25))
    ran(tmp_path, "Pusher", outputs=PUSHED)
    found = report.summary(tmp_path)
    assert found["failure"] is None and found["pushed_version"] == 1764000000
    assert found["examples"] == {"train": 70, "eval": 15, "test": 12, "rejected": {"missing": 3}}
    gate = found["gate"]
    assert (gate["value"], gate["bound"], gate["baseline"]) == (6.5, 7.5, 6.25)
    assert (gate["measured"], gate["measured_bound"]) == (11, 11) and gate["reasons"] == []
    assert (gate["refused"], gate["refused_bound"]) == (1, 0.1)
    assert found["seconds"].keys() == {
        PLAN, "PhotoExampleGen", "Evaluator", "Pusher", "total",
    }  # fmt: skip
    peaks = found["peak_rss_mb"]
    assert peaks["total"] == max(value for step, value in peaks.items() if step != "total")
    page = report._page(found)
    assert "Pushed: version 1764000000" in page
    assert "Nothing is proved." in page
    for row in (("MAE on test", "6.50"), ("bound", "7.50"), ("live model&#x27;s MAE", "6.25"),
                ("without an objection", "11"), ("no_face", "1"), ("share refused", "8.3%"),
                ("train", "70"), ("rejected: missing", "3")):  # fmt: skip
        assert "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" in page
    assert "rejected</td>" not in page


def test_facts_of_a_cached_step_come_from_the_inputs_of_later_steps(tmp_path: Path) -> None:
    ran(tmp_path, PLAN, config={"evaluator": {}})
    ran(tmp_path, "Evaluator", inputs=EXAMPLES, outputs=evaluated(9, blessed=0))
    ran(tmp_path, "Pusher", outputs={"Pusher.pushed_model": {}})
    found = report.summary(tmp_path)
    assert found["examples"]["train"] == 70
    assert found["failure"] is None and found["pushed_version"] is None
    page = report._page(found)
    assert "Succeeded, not pushed" in page and "MAE 9.00 years is above the bound of 8.00" in page


def test_the_step_that_failed_is_named(tmp_path: Path) -> None:
    ran(tmp_path, PLAN, config={"evaluator": {}})
    ran(tmp_path, "PhotoExampleGen", failure="12 of 97 rows <rejected>")
    found = report.summary(tmp_path)
    assert found["failure"] == "PhotoExampleGen: 12 of 97 rows <rejected>"
    assert found["gate"] is None and found["examples"] is None
    page = report._page(found)
    assert "<h1>Failed</h1>" in page and "12 of 97 rows &lt;rejected&gt;" in page


@pytest.mark.parametrize(
    ("steps", "after"), [((), "the start"), ((PLAN, "Transform"), "Transform")]
)
def test_a_pod_that_never_started_is_a_failure(
    steps: tuple[str, ...], after: str, tmp_path: Path
) -> None:
    for step in steps:
        ran(tmp_path, step, config={"evaluator": {}} if step == PLAN else None)
    found = report.summary(tmp_path)
    assert found["failure"].startswith(f"the run ended after {after}, and no step says why")
    assert "Failed" in report._page(found)

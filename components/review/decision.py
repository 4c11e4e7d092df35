"""The section "Decision": whether the model passed, by which figures, and what it came from."""

from __future__ import annotations

import math
from collections.abc import Iterator

import tensorflow_model_analysis as tfma

from components import gate
from components.evaluator import BASELINE
from components.gate import MAE, REASON
from components.review.evaluation import COUNT, NOTHING, OVERALL, Figure, read
from components.review.inputs import Artifact, Inputs
from components.review.page import Block, Cell, Section, Table, Text, Verdict
from components.served_model import VERSION
from pipeline.config import Evaluator

COLUMNS = ("what", "value (95 % interval)", "bound", "margin", "photos", "verdict")

# What a metric is called on the page, and its unit.
NAMES = {
    MAE: "MAE, years",
    "mean_error": "bias, years",
    "mean_squared_error": "MSE, years²",
    COUNT: "photos",
    "mean_prediction": "mean estimate, years",
    "mean_label": "mean age, years",
    "calibration": "calibration (mean estimate by mean age)",
}


def section(inputs: Inputs) -> Section:
    """The verdict, each threshold, the live model, and the lineage."""
    return Section("decision", "Decision", list(_blocks(inputs)))


def _blocks(inputs: Inputs) -> Iterator[Block]:
    version = pushed_version(inputs)
    passed = version is not None
    yield Verdict(
        f"Passed: it was pushed as version {version}." if passed else "Not passed: not pushed.",
        passed,
    )
    if not passed:
        yield Text(reasons(inputs))
    yield Text(
        [
            "MAE is the mean absolute error: how many years an estimate is off on average. Judged "
            "is it on the test split, which nothing else has seen. A bound is held against the "
            "value itself; the interval says how far it might be off by the choice of photos."
        ]
    )
    yield Table("Thresholds of the gate", COLUMNS, thresholds(inputs))
    yield Table(
        "Beside the live model",
        ["model", "MAE, years (95 % interval)", "photos"],
        list(_models(inputs)),
    )
    yield Table("The run", ["what", "which"], [[name, value] for name, value in _facts(inputs)])
    yield Table(
        "Lineage: what came from what, by the ids of the metadata store",
        ["step by step", "id", "what it says", "where"],
        list(_lineage(inputs)),
    )


def pushed_version(inputs: Inputs) -> str | None:
    """The version that the Pusher made; None where it did not push."""
    return inputs.artifacts["pushed_model"].properties.get("pushed_version") or None


def reasons(inputs: Inputs) -> list[str]:
    """Why the gate is shut, a sentence for each reason."""
    evaluation = inputs.artifacts["evaluation"].properties
    found = gate.reasons(
        Evaluator(**inputs.settings["evaluator"]),
        evaluation[MAE],
        evaluation.get(gate.BASELINE_MAE),
        inputs.artifacts["infra_blessing"].properties.get(REASON),
    )
    sentences = [f"{reason[0].upper()}{reason[1:]}." for reason in found]
    return sentences or ["The reason is not recorded."]


def thresholds(inputs: Inputs) -> list[list[Cell | str]]:
    """A row for each threshold of TFMA's configuration, and one for ServingCheck."""
    config = tfma.load_eval_result(str(inputs.artifacts["evaluation"].path)).config
    configured = tfma.metrics.metric_thresholds_from_metrics_specs(
        config.metrics_specs, eval_config=config
    )
    candidate, live = _overall(inputs, ""), _overall(inputs, BASELINE)
    photos = candidate.get(COUNT, NOTHING).value
    rows: list[list[Cell | str]] = []
    for key, held in configured.items():
        if key.model_name == BASELINE:  # is listed, too, but held to nothing
            continue
        value, label = candidate.get(key.name, NOTHING), NAMES.get(key.name, key.name)
        for _, threshold in held:
            if isinstance(threshold, tfma.GenericValueThreshold):
                if threshold.HasField("upper_bound"):
                    rows.append(_row(label, value, "at most", threshold.upper_bound.value, photos))
                if threshold.HasField("lower_bound"):
                    rows.append(_row(label, value, "at least", threshold.lower_bound.value, photos))
            elif live:
                change = Figure(value.value - live[key.name].value, math.nan, math.nan)
                lower = threshold.direction == tfma.MetricDirection.LOWER_IS_BETTER
                bound = threshold.absolute.value
                side = "at most" if lower else "at least"
                rows.append(_row(f"{label}, more than live", change, side, bound, photos))
    return [*rows, _served(inputs)]


def _overall(inputs: Inputs, model: str) -> dict[str, Figure]:
    if model == BASELINE and not inputs.artifacts["baseline_model"].properties.get(VERSION):
        return {}
    return read(inputs.artifacts["evaluation"].path, model).get(OVERALL, {})


def _row(label: str, value: Figure, side: str, bound: float, photos: float) -> list[Cell | str]:
    margin = bound - value.value if side == "at most" else value.value - bound
    kept = margin >= 0  # not where it is no number
    return [
        label,
        Cell(f"{value:.2f}".removesuffix(" (no interval)"), value.value),
        Cell(f"{side} {bound:.2f}", bound),
        Cell(f"{margin:+.2f}", margin),
        Cell(f"{photos:,.0f}", photos),
        Cell("kept" if kept else "broken", None, _mark(kept)),
    ]


def _served(inputs: Inputs) -> list[Cell | str]:
    blessing = inputs.artifacts["infra_blessing"].properties
    good = blessing.get("blessed") == 1
    said = "answers as the model does" if good else str(blessing.get(REASON) or "not recorded")
    label = "A model server with it"
    return [label, said, "–", "–", "–", Cell("kept" if good else "broken", None, _mark(good))]


def _mark(good: bool) -> str:
    return "good" if good else "bad"


def _models(inputs: Inputs) -> Iterator[list[Cell | str]]:
    live = inputs.artifacts["baseline_model"].properties.get(VERSION)
    for label, model in (("this one", ""), (f"live, version {live}", BASELINE)):
        if overall := _overall(inputs, model):
            mae, photos = overall[MAE], overall[COUNT].value
            yield [label, Cell(f"{mae:.2f}", mae.value), Cell(f"{photos:,.0f}", photos)]
    if not live:
        yield ["live", "none was", "–"]


def _facts(inputs: Inputs) -> Iterator[tuple[str, str]]:
    run = inputs.run
    yield "who ran it", f"{run.who} on {run.host}"
    yield "when the page was made", run.when
    yield "run", run.run_id
    yield "code", run.code
    examples = inputs.artifacts["examples"].properties
    yield "fingerprint of the photos", str(examples.get("fingerprint") or "not recorded")


def _lineage(inputs: Inputs) -> Iterator[list[Cell | str]]:
    found = inputs.artifacts
    span = found["examples"].properties.get("span")
    version = pushed_version(inputs)
    live = found["baseline_model"].properties.get(VERSION)
    told = {
        "examples": f"the photos{f', up to span {span}' if span else ''}",
        "statistics": "what TFDV counted in them",
        "schema": "what they must look like",
        "anomalies": "what differed from that",
        "model": "the model that was trained on them",
        "model_run": "its training",
        "baseline_model": f"what was live: version {live}" if live else "what was live: nothing",
        "evaluation": "the metrics of both on the test photos",
        "blessing": "the gate's word",
        "infra_blessing": "the model server's word",
        "pushed_model": f"what went live: version {version}" if version else "nothing went live",
    }
    for name, says in told.items():
        artifact: Artifact = found[name]
        number = Cell(str(artifact.id) if artifact.id else "–", artifact.id)
        yield [artifact.kind, number, says, artifact.uri]

"""The section "Decision": the verdict, its figures, and the artifacts of the run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import tensorflow_model_analysis as tfma

from components import gate, passing
from components.certificate import CAVEAT, HARD_YEARS, Group, Proof
from components.evaluator import ALL_PHOTOS, BASELINE, COUNT
from components.gate import MAE, REASON, REFUSED
from components.intervals import UNKNOWN, Figure, percent
from components.passing import PASSED
from components.review.evaluation import OVERALL, challenge, read
from components.review.inputs import NOT_RECORDED, Inputs
from components.review.page import Block, Cell, Row, Section, Table, Text, Verdict
from components.served_model import VERSION
from pipeline.config import Evaluator, Guard
from schemas import features

_EVIDENCE = (
    "The limit of the probability is the highest one for which the photos of the split eval prove "
    f"that at most the allowed share of minors passes. {CAVEAT} Refused photos are left out: at a "
    "till, these customers are always asked."
)
_NO_NUMBER = Cell("–", math.nan)

COLUMNS = ("measure", "value (95 % interval)", "bound", "margin", "photos", "verdict")

# Names of the metrics on the page, with their units.
NAMES = {
    MAE: "MAE, years",
    "mean_error": "bias, years",
    "mean_squared_error": "MSE, years²",
    COUNT: "photos",
    REFUSED: "refused, share of all photos",
    ALL_PHOTOS: "all photos, also refused ones",
    "mean_prediction": "mean estimate, years",
    "mean_label": "mean age, years",
    "calibration": "calibration (mean estimate ÷ mean age)",
    passing.MINORS + PASSED: "minors who pass without ID",
    passing.HARD_MINORS: f"minors of the last {HARD_YEARS} years",
    passing.HARD_MINORS + PASSED: f"minors of the last {HARD_YEARS} years who pass without ID",
    passing.ADULTS: f"adults of {passing.ADULT_AGE} and older",
    passing.ADULTS + PASSED: f"adults of {passing.ADULT_AGE} and older who pass without ID",
}


def section(inputs: Inputs) -> Section:
    """The verdict, the thresholds, the live model, the run and its lineage."""
    return Section("decision", "Decision", list(_blocks(inputs)))


def _blocks(inputs: Inputs) -> Iterator[Block]:
    version = pushed_version(inputs)
    passed = version is not None
    yield Verdict(
        f"Passed: the model was pushed as version {version}."
        if passed
        else "Not passed: the model was not pushed.",
        passed,
    )
    if not passed:
        yield Text(reasons(inputs))
    yield from _challenge(inputs)
    yield Text(
        [
            "MAE is the mean absolute error: how many years an estimate is off on average. It is "
            "measured on the photos of the test split that the model does not refuse. The training "
            "never sees the test split. The gate compares the value with the bound. The interval "
            "shows how much the value may depend on the choice of photos."
        ]
    )
    yield Table("Thresholds of the gate", COLUMNS, thresholds(inputs))
    yield Table(
        "This model and the live model",
        ["model", "MAE, years (95 % interval)", "photos"],
        list(_models(inputs)),
    )
    yield Table("The run", ["fact", "value"], list(_facts(inputs)))
    yield Table(
        "Lineage: the artifacts of the run and their ids in the metadata store",
        ["artifact", "id", "content", "location"],
        list(_lineage(inputs)),
    )


def _challenge(inputs: Inputs) -> Iterator[Block]:
    """Who passes without ID, in words and as a table."""
    found = challenge(inputs)
    first, *others = found["sentences"]
    yield Verdict(first, found["certified"])
    yield Text([*others, _EVIDENCE])
    rows: list[Row] = []
    for name, split, kind in (
        ("minors_on_eval", features.EVAL, Proof),
        ("minors_on_test", features.TEST, Proof),
        ("adults_on_test", features.TEST, Group),
    ):
        for values in found[name]:
            group = kind(**values)
            allowed = f"{group.max_share:.0%}" if isinstance(group, Proof) else "–"
            passed = percent(group.passed, group.photos)
            rows.append([group.name, split, group.photos, group.passed, passed, allowed])
    yield Table(
        "Who passes without ID",
        ["age", "split", "photos", "pass", "share (95 % interval)", "at most"],
        rows,
    )


def pushed_version(inputs: Inputs) -> str | None:
    """The version that the Pusher made; None if it did not push."""
    return inputs.property_of("pushed_model", "pushed_version") or None


def live_version(inputs: Inputs) -> int | None:
    """The version that was live when the run started; None if no model was live."""
    return inputs.property_of("baseline_model", VERSION) or None


def fingerprint(inputs: Inputs) -> str:
    """The fingerprint of the photos and their table."""
    return str(inputs.property_of("examples", "fingerprint") or NOT_RECORDED)


def reasons(inputs: Inputs) -> list[str]:
    """Why the gate is shut, a sentence for each reason."""
    found = gate.reasons(
        Evaluator(**inputs.settings["evaluator"]),
        Guard(**inputs.settings["guard"]),
        inputs.artifacts["evaluation"].properties,
        inputs.artifacts["infra_blessing"].properties,
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
    rows: list[list[Cell | str]] = []
    for key, by_slice in configured.items():
        if key.model_name == BASELINE:  # TFMA lists it, but does not check it
            continue
        for _, threshold in by_slice:
            label, value = NAMES.get(key.name, key.name), candidate.get(key.name, UNKNOWN)
            if isinstance(threshold, tfma.GenericChangeThreshold):
                if not live:
                    continue
                label = f"{label}, this model minus the live model"
                value = Figure(value.value - live[key.name].value, math.nan, math.nan)
            form = {REFUSED: ".1%", COUNT: ",.0f"}.get(key.name, ".2f")
            photos = candidate.get(ALL_PHOTOS if key.name == REFUSED else COUNT, UNKNOWN).value
            rows += [
                _row(label, value, side, bound, photos, form) for side, bound in _bounds(threshold)
            ]
    return [*rows, *_compared(inputs), _served(inputs)]


def _bounds(
    threshold: tfma.GenericValueThreshold | tfma.GenericChangeThreshold,
) -> Iterator[tuple[str, float]]:
    """The sides and bounds of a threshold, for example ("at most", 8.0)."""
    if isinstance(threshold, tfma.GenericChangeThreshold):
        lower_is_better = threshold.direction == tfma.MetricDirection.LOWER_IS_BETTER
        yield "at most" if lower_is_better else "at least", threshold.absolute.value
        return
    if threshold.HasField("upper_bound"):
        yield "at most", threshold.upper_bound.value
    if threshold.HasField("lower_bound"):
        yield "at least", threshold.lower_bound.value


def _overall(inputs: Inputs, model: str) -> dict[str, Figure]:
    if model == BASELINE and not live_version(inputs):
        return {}
    return read(inputs.artifacts["evaluation"].path, model).get(OVERALL, {})


def _row(
    label: str, value: Figure, side: str, bound: float, photos: float, form: str
) -> list[Cell | str]:
    margin = bound - value.value if side == "at most" else value.value - bound
    met = margin >= 0  # False if the margin is NaN
    return [
        label,
        value.short(form),
        f"{side} {bound:{form}}",
        Cell(f"{margin:+z{form}}", margin),
        Cell(f"{photos:,.0f}", photos),
        _verdict(met),
    ]


def _compared(inputs: Inputs) -> Iterator[list[Cell | str]]:
    """A row for each measure in which the gate compares the two models photo by photo."""
    found = json.loads(inputs.property_of("evaluation", gate.COMPARISON) or "{}")
    for name, label, form in (
        ("mae", NAMES[MAE], "+z.2f"),
        ("minors", NAMES[passing.MINORS + PASSED], "+z.1%"),
    ):
        if change := found.get(name):
            label = f"{label}, this model minus the live model, photo by photo"
            photos = Cell(f"{change['photos']:,}", change["photos"])
            if change["lower"] is None:
                yield [label, "too few to say", "–", _NO_NUMBER, photos, "–"]
                continue
            value = f"{change['difference']:{form}} (at least {change['lower']:{form}}, 95 % sure)"
            margin = Cell(f"{-change['lower']:{form}}", -change["lower"])
            yield [
                label,
                value,
                "not surely above 0",
                margin,
                photos,
                _verdict(change["lower"] <= 0),
            ]


def _served(inputs: Inputs) -> list[Cell | str]:
    met = inputs.property_of("infra_blessing", "blessed") == 1
    reason = inputs.property_of("infra_blessing", REASON) or NOT_RECORDED
    answers = "gives the model's own answers" if met else str(reason)
    return ["model server", answers, "–", _NO_NUMBER, _NO_NUMBER, _verdict(met)]


def _verdict(met: bool) -> Cell:
    return Cell("met", mark="good") if met else Cell("not met", mark="bad")


def _models(inputs: Inputs) -> Iterator[list[Cell | str]]:
    live = live_version(inputs)
    for label, model in (("this model", ""), (f"live model, version {live}", BASELINE)):
        if overall := _overall(inputs, model):
            photos = overall[COUNT].value
            yield [label, f"{overall[MAE]:.2f}", Cell(f"{photos:,.0f}", photos)]
    if not live:
        yield ["live model", "no model was live", _NO_NUMBER]


def _facts(inputs: Inputs) -> Iterator[list[str]]:
    run = inputs.run
    yield ["started by", f"{run.who} on {run.host}"]
    yield ["time of this page", run.when]
    yield ["run", run.run_id]
    yield ["code", run.code]
    yield ["fingerprint of the photos", fingerprint(inputs)]


def _lineage(inputs: Inputs) -> Iterator[list[Cell | str]]:
    span = inputs.newest_span
    version, live = pushed_version(inputs), live_version(inputs)
    contents = {
        "examples": "the photos" if span is None else f"the photos, up to span {span}",
        "statistics": "statistics of the photos (TFDV)",
        "schema": "the rules for the photos",
        "anomalies": "broken rules",
        "model": "the trained model",
        "model_run": "the history of the training",
        "baseline_model": f"the live model: version {live}" if live else "no model was live",
        "evaluation": "metrics of both models on the test photos",
        "blessing": "the verdict of the gate",
        "infra_blessing": "the verdict of the model server",
        "pushed_model": f"the pushed model: version {version}" if version else "nothing was pushed",
    }
    for name, content in contents.items():
        artifact = inputs.artifacts[name]
        yield [artifact.kind, str(artifact.id or "–"), content, artifact.uri]

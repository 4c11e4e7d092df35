"""What Kubeflow's pages show for a step: metrics and an HTML page."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from components.gate import BASELINE_MAE, CHALLENGE, MAE, REFUSED
from components.review import PAGE
from pipeline.kubeflow.launcher import Task
from pipeline.summary import challenge_sentences

METRICS, REPORT = "metrics", "report"  # output keys, in addition to the node's own

Metadata = dict[str, dict[str, Any]]


class View(NamedTuple):
    """The additional outputs of a node's task, and the function that writes them."""

    keys: tuple[str, ...]
    draw: Callable[[Task, Mapping[str, Mapping[str, Any]]], Metadata]


def page(title: str, tables: Mapping[str, Sequence[tuple[Any, ...]]], notes: Sequence[str]) -> str:
    """An HTML page: a title, lines of text, and tables; the first row of a table is its head."""
    lines = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{html.escape(note)}</p>" for note in notes)]
    for caption, rows in tables.items():
        lines.append(f"<h2>{html.escape(caption)}</h2><table>")
        for at, row in enumerate(rows):
            cell = "td" if at else "th"
            cells = "".join(f"<{cell}>{html.escape(str(value))}</{cell}>" for value in row)
            lines.append(f"<tr>{cells}</tr>")
        lines.append("</table>")
    style = "body{font:14px sans-serif}td,th{padding:2px 12px 2px 0;text-align:left}"
    head = f"<!doctype html><meta charset='utf-8'><style>{style}</style>"
    return "\n".join([head, *lines, ""])


def write_page(task: Task, text: str) -> Metadata:
    """Writes a page as the task's REPORT: a file instead of the folder that `Task.begin` made."""
    path = task.outputs[REPORT].path
    path.rmdir()
    path.write_text(text, "utf-8")
    return {REPORT: {}}


def _evaluator(task: Task, outputs: Mapping[str, Mapping[str, Any]]) -> Metadata:
    from components.evaluator import ALL_PHOTOS
    from components.intervals import UNKNOWN
    from components.review.evaluation import read
    from components.review.slices import order

    found = read(task.outputs["evaluation"].path)
    names = (MAE, "mean_prediction", REFUSED, ALL_PHOTOS)
    rows: list[tuple[Any, ...]] = [
        ("slice", "MAE, years", "mean estimate, years", "refused", "photos")
    ]
    evaluation = outputs["Evaluator.evaluation"]
    challenge = json.loads(evaluation[CHALLENGE])
    metrics = _passing(challenge)
    for key in sorted(found, key=order):
        mae, estimate, refused, photos = (found[key].get(name, UNKNOWN).value for name in names)
        label = ", ".join(f"{name} {value}" for name, value in key) or "all"
        # If all photos of a slice are refused, nobody knows the errors.
        years = (f"{value:.2f}" if math.isfinite(value) else "–" for value in (mae, estimate))
        rows.append((label, *years, f"{refused:.1%}", f"{photos:.0f}"))
        if math.isfinite(mae):
            metrics[f"{MAE}, {label}"] = mae
    if BASELINE_MAE in evaluation:
        metrics[BASELINE_MAE] = evaluation[BASELINE_MAE]
    metrics[REFUSED] = evaluation[REFUSED]
    metrics["blessed"] = float(outputs["Evaluator.blessing"]["blessed"])
    notes = [
        *challenge_sentences(challenge),
        "The errors are those of the photos that the model does not refuse.",
    ]
    report = write_page(task, page("Evaluation on the test split", {"Slices": rows}, notes))
    return {METRICS: metrics, **report}


def _passing(challenge: Mapping[str, Any]) -> dict[str, float]:
    """Who passes without ID: the share of each group of test photos, and the rule."""
    from components.certificate import Group, Proof

    minors = [Proof(**values) for values in challenge["minors_on_test"]]
    adults = [Group(**values) for values in challenge["adults_on_test"]]
    shares = {
        f"pass without ID, {group.aged}": group.passed / group.photos
        for group in (*minors, *adults)
        if group.photos
    }
    rule = {"challenge_age": challenge["age"], "max_p_minor": challenge["max_p_minor"]}
    return {**shares, **{name: value for name, value in rule.items() if value is not None}}


def _pusher(task: Task, outputs: Mapping[str, Mapping[str, Any]]) -> Metadata:
    version = outputs["Pusher.pushed_model"].get("pushed_version")
    title = f"Pushed: version {version}" if version else "Not pushed: the gate stayed shut"
    notes = [] if version else ["The page of the task `summary` says why."]
    return {METRICS: {"pushed": float(bool(version))}, **write_page(task, page(title, {}, notes))}


def _review(task: Task, _: Mapping[str, Mapping[str, Any]]) -> Metadata:
    return write_page(task, (task.outputs["review"].path / PAGE).read_text("utf-8"))


VIEWS = {
    "Evaluator": View((METRICS, REPORT), _evaluator),
    "Pusher": View((METRICS, REPORT), _pusher),
    "Review": View((REPORT,), _review),
}

"""summary.json: what a run did, from the properties of the artifacts that its steps made.

Every runner writes it, and the command's exit status and table come from it.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib import metadata as distributions
from typing import TYPE_CHECKING, Any

from components import gate
from components.review import PAGE
from pipeline import DISTRIBUTION
from pipeline.config import Evaluator, Guard

if TYPE_CHECKING:
    from rich.console import Console

PUSHED, FAILED, USER_MISTAKE, GATE_SHUT, INTERRUPTED = 0, 1, 2, 3, 130  # exit statuses
URI = "uri"  # of an artifact, among its properties

# The outputs of steps: (node, output key) → the artifact's properties, custom properties and URI.
Outputs = Mapping[tuple[str, str], Mapping[str, Any]]

_PACKAGES = (
    DISTRIBUTION,
    "tfx",
    "tensorflow",
    "keras",
    "apache-beam",
    "tensorflow-model-analysis",
)


def summarise(
    section: Evaluator,
    guard: Guard,
    outputs: Outputs,
    *,
    failure: str | None,
    seconds: dict[str, float],
    peak_rss_mb: dict[str, float],
) -> dict[str, Any]:
    """The summary of a run, whole or failed.

    Args:
        section: the gate's bounds of the MAE and of the number of photos, from the run's
            configuration.
        guard: the gate's bound of the refused photos, from there too.
        outputs: of the run's steps; those that a failed run did not reach are missing.
        failure: the step that failed and why, one line; None if no step failed.
        seconds: wall time of each step, and `total`.
        peak_rss_mb: largest resident memory during each step in MB, and `total`, the largest of
            all.
    """
    examples = outputs.get(("PhotoExampleGen", "examples"))
    pushed = outputs.get(("Pusher", "pushed_model"))
    review = outputs.get(("Review", "review"))
    return {
        "examples": _examples(examples) if examples else None,
        "appa_crops": (examples or {}).get("appa_crops"),
        "gate": _gate(section, guard, outputs),
        "pushed_version": _pushed_version(pushed) if pushed else None,
        "review": f"{review[URI]}/{PAGE}" if review else None,
        "failure": failure,
        "seconds": seconds,
        "peak_rss_mb": peak_rss_mb,
        "versions": {
            "python": platform.python_version(),
            **{name: distributions.version(name) for name in _PACKAGES},
        },
    }


def _examples(artifact: Mapping[str, Any]) -> dict[str, Any]:
    return {**json.loads(artifact["examples"]), "rejected": json.loads(artifact["rejects"])}


def _pushed_version(artifact: Mapping[str, Any]) -> int | None:
    version = artifact.get("pushed_version")
    return int(version) if version else None


def _gate(section: Evaluator, guard: Guard, outputs: Outputs) -> dict[str, Any] | None:
    if ("Evaluator", "evaluation") not in outputs:
        return None
    evaluation = outputs["Evaluator", "evaluation"]
    served = outputs.get(("ServingCheck", "blessing"), {})
    objections = json.loads(evaluation[gate.OBJECTIONS])
    measured, refused = evaluation[gate.MEASURED], sum(objections.values())
    return {
        "challenge": json.loads(evaluation[gate.CHALLENGE]),
        "metric": gate.MAE,
        "value": evaluation[gate.MAE],
        "bound": section.max_mae,
        "baseline": evaluation.get(gate.BASELINE_MAE),
        "measured": measured,
        "measured_bound": section.min_test_photos,
        "refused": refused,
        "refused_share": refused / (measured + refused),
        "refused_bound": guard.max_refused_test,
        "objections": objections,
        "comparison": json.loads(evaluation.get(gate.COMPARISON, "null")),
        "blessed": outputs["Evaluator", "blessing"]["blessed"] == 1,
        "reasons": gate.reasons(section, guard, evaluation, served),
    }


def exit_status(document: Mapping[str, Any]) -> int:
    """PUSHED, FAILED or GATE_SHUT."""
    if document["failure"]:
        return FAILED
    return GATE_SHUT if document["pushed_version"] is None else PUSHED


def show(document: Mapping[str, Any], console: Console) -> None:
    """Prints a summary as a table."""
    from rich.table import Table

    table = Table(show_header=False)
    examples, judged = document["examples"], document["gate"]
    if examples:
        splits = {name: n for name, n in examples.items() if name != "rejected"}
        crops = document.get("appa_crops")  # packages of older versions have none
        table.add_row(
            "photos",
            ", ".join(f"{name} {n:,}" for name, n in splits.items())
            + (f" (APPA-REAL, {crops})" if crops else ""),
        )
        rejected = ", ".join(f"{reason} {n:,}" for reason, n in examples["rejected"].items())
        table.add_row("rejected", rejected or "none")
    if judged:
        live = "none" if judged["baseline"] is None else f"{judged['baseline']:.2f} years"
        if "challenge" in judged:  # packages of older versions have none
            table.add_row("who passes", "\n".join(challenge_sentences(judged["challenge"])))
        table.add_row("MAE on test", f"{judged['value']:.2f} years (bound {judged['bound']:.2f})")
        table.add_row("live model's MAE", live)
        if "refused" in judged:  # packages of older versions have none
            kinds = ", ".join(f"{name} {n:,}" for name, n in judged["objections"].items())
            table.add_row(
                "refused on test",
                f"{judged['refused']:,} of {judged['refused'] + judged['measured']:,} photos: "
                f"{judged['refused_share']:.1%} (bound {judged['refused_bound']:.1%})"
                + (f"; {kinds}" if kinds else ""),
            )
        version = document["pushed_version"]
        table.add_row(
            "pushed version",
            f"{version}" if version else "not pushed: " + "; ".join(judged["reasons"]),
        )
    if page := document.get("review"):  # packages of older versions have none
        table.add_row("review", page)
    total, peak = document["seconds"]["total"], document["peak_rss_mb"]["total"]
    table.add_row("took", f"{total:,.0f} s, at most {peak:,.0f} MB")
    console.print(table)


def challenge_sentences(challenge: Mapping[str, Any]) -> list[str]:
    """Who passes without ID, in plain words."""
    # Not at the top: SciPy takes longer to import than most commands of `goodseed` take.
    from components.certificate import Group

    lines = list(challenge["sentences"])
    for group in challenge["adults_on_test"]:
        if group["photos"]:
            asked = 100 * (1 - group["passed"] / group["photos"])
            people = Group(**group).aged
            lines.append(f"Of 100 customers {people}, about {asked:.0f} are asked for ID.")
    return lines

"""summary.json: what a run did, from the properties of the artifacts that its steps made."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib import metadata as distributions
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2

from components.evaluator import BASELINE_MAE, MAE
from components.review import PAGE
from components.serving_check import REASON
from pipeline.config import Evaluator
from pipeline.local.store import metadata_store
from pipeline.outcome import URI

# A step's outputs: (node, output key) → the artifact's properties, custom properties and URI.
Outputs = Mapping[tuple[str, str], Mapping[str, Any]]

_PACKAGES = (
    "goodseed-age-check",
    "tfx",
    "tensorflow",
    "keras",
    "apache-beam",
    "tensorflow-model-analysis",
)


def run_outputs(metadata_db: Path, run_id: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What a run's steps made or took from the cache, from the run folder's metadata store."""
    store = metadata_store(metadata_db)
    run = store.get_context_by_type_and_name("pipeline_run", run_id)
    outputs: dict[tuple[str, str], dict[str, Any]] = {}
    for execution in store.get_executions_by_context(run.id) if run else ():
        contexts = store.get_contexts_by_execution(execution.id)
        nodes = [c.name.split(".", 1)[1] for c in contexts if c.type == "node"]
        for event in store.get_events_by_execution_ids([execution.id]):
            if event.type == metadata_store_pb2.Event.OUTPUT:
                (artifact,) = store.get_artifacts_by_id([event.artifact_id])
                made = {URI: artifact.uri, **properties(artifact)}
                outputs[nodes[0], event.path.steps[0].key] = made
    return outputs


def properties(artifact: metadata_store_pb2.Artifact) -> dict[str, Any]:
    """An artifact's properties and custom properties, as `Outputs` has them."""
    return {
        name: getattr(value, value.WhichOneof("value"))
        for values in (artifact.properties, artifact.custom_properties)
        for name, value in values.items()
    }


def summarise(
    gate: Evaluator,
    outputs: Outputs,
    *,
    failure: str | None,
    seconds: dict[str, float],
    peak_rss_mb: dict[str, float],
) -> dict[str, Any]:
    """The summary of a run, whole or failed.

    Args:
        gate: the section of the run's configuration.
        outputs: of its steps; what a failed run did not reach is missing.
        failure: which step failed and why, one line; None where none did.
        seconds: wall time by step, and `total`.
        peak_rss_mb: largest resident memory by step in MB, and `total` for the largest of all.
    """
    examples = outputs.get(("PhotoExampleGen", "examples"))
    pushed = outputs.get(("Pusher", "pushed_model"))
    review = outputs.get(("Review", "review"))
    return {
        "examples": _examples(examples) if examples else None,
        "gate": _gate(gate, outputs),
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


def _gate(gate: Evaluator, outputs: Outputs) -> dict[str, Any] | None:
    if ("Evaluator", "evaluation") not in outputs:
        return None
    evaluation = outputs["Evaluator", "evaluation"]
    value, baseline = evaluation[MAE], evaluation.get(BASELINE_MAE)
    reasons = []
    if not value <= gate.max_mae:
        reasons.append(f"MAE {value:.2f} years is above the bound of {gate.max_mae:.2f}")
    if baseline is not None and not value <= baseline + gate.max_mae_increase:
        reasons.append(
            f"MAE {value:.2f} years is worse than the live model's {baseline:.2f} by more than "
            f"{gate.max_mae_increase:.2f}"
        )
    if why := outputs.get(("ServingCheck", "blessing"), {}).get(REASON):
        reasons.append(f"it can't be served: {why}")
    return {
        "metric": MAE,
        "value": value,
        "bound": gate.max_mae,
        "baseline": baseline,
        "blessed": outputs["Evaluator", "blessing"]["blessed"] == 1,
        "reasons": reasons,
    }

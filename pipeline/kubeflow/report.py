"""The exit handler: it writes the run's summary, also after a failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.config import Evaluator, Guard
from pipeline.kubeflow import records
from pipeline.kubeflow.launcher import Task
from pipeline.kubeflow.views import page, write_page
from pipeline.summary import challenge_sentences, summarise
from pipeline.system import write_whole

SUMMARY = "summary"  # output key


def write(task: Task, folder: Path) -> None:
    """Writes summary.json into the run's folder and as an artifact, and a page for Kubeflow."""
    document = summary(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "summary.json", document)
    write_whole(task.outputs[SUMMARY].path / "summary.json", document)
    task.finish({}, {SUMMARY: {}, **write_page(task, _page(document))})
    # KFP's API gives the log of a step, but no outputs: the client reads this line. KFP's archive
    # loses lines that are JSON and nothing else.
    print(records.LOG_LINE + json.dumps(document), flush=True)


def summary(folder: Path) -> dict[str, Any]:
    """The summary of a run, from the records in its folder.

    A step from KFP's cache has no record; later steps recorded the artifacts that they got from it.
    """
    steps = records.read(folder)
    outputs = {}
    for record in steps.values():
        for name, properties in {**record["inputs"], **record["outputs"]}.items():
            node, key = name.split(".")
            outputs[node, key] = properties
    plan = steps.get(records.PLAN, {}).get("config") or {}
    started = min((record["started"] for record in steps.values()), default=0.0)
    ended = max((record["ended"] for record in steps.values()), default=0.0)
    seconds = {name: round(r["ended"] - r["started"], 1) for name, r in steps.items()}
    peaks = {name: record["peak_rss_mb"] for name, record in steps.items()}
    return summarise(
        Evaluator(**plan.get("evaluator", {})),
        Guard(**plan.get("guard", {})),
        outputs,
        failure=_failure(steps),
        seconds={**seconds, "total": round(ended - started, 1)},
        peak_rss_mb={**peaks, "total": max(peaks.values(), default=0.0)},
    )


def _failure(steps: dict[str, dict[str, Any]]) -> str | None:
    for name, record in steps.items():
        if record["failure"]:
            return f"{name}: {record['failure']}"
    if "Pusher" not in steps:
        last = list(steps)[-1] if steps else "the start"
        return f"the run ended after {last}, and no step says why: see the run's page"
    return None


def _page(document: dict[str, Any]) -> str:
    gate, version = document["gate"], document["pushed_version"]
    if document["failure"]:
        title, notes = "Failed", [document["failure"]]
    elif version:
        title, notes = f"Pushed: version {version}", []
    else:
        title, notes = "Succeeded, not pushed", gate["reasons"]
    if gate:
        notes = [*notes, *challenge_sentences(gate["challenge"])]
    tables: dict[str, list[tuple[Any, ...]]] = {}
    if gate:
        tables["Gate"] = [("", "years"), ("MAE on test", f"{gate['value']:.2f}")]
        tables["Gate"].append(("bound", f"{gate['bound']:.2f}"))
        if gate["baseline"] is not None:
            tables["Gate"].append(("live model's MAE", f"{gate['baseline']:.2f}"))
        tables["Refused on test"] = [
            ("", "photos"),
            ("without an objection", gate["measured"]),
            *gate["objections"].items(),
            ("share refused", f"{gate['refused_share']:.1%}"),
            ("bound", f"{gate['refused_bound']:.1%}"),
        ]
    if examples := document["examples"]:
        splits = [(name, n) for name, n in examples.items() if name != "rejected"]
        rejected = [(f"rejected: {reason}", n) for reason, n in examples["rejected"].items()]
        tables["Photos"] = [("", "count"), *splits, *rejected]
    seconds, peaks = document["seconds"], document["peak_rss_mb"]
    rows = [(name, seconds[name], peaks[name]) for name in seconds]
    tables["Steps"] = [("step", "seconds", "peak MB"), *rows]
    return page(title, tables, notes)

"""How a run ended: the exit status that says so, and its summary as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

URI = "uri"  # of an artifact, among its properties
PUSHED, FAILED, USER_MISTAKE, GATE_SHUT, INTERRUPTED = 0, 1, 2, 3, 130


def exit_status(document: Mapping[str, Any]) -> int:
    """PUSHED, FAILED or GATE_SHUT, from a run's summary."""
    if document["failure"]:
        return FAILED
    return GATE_SHUT if document["pushed_version"] is None else PUSHED


def print_summary(document: Mapping[str, Any], console: Console) -> None:
    """Shows what `pipeline.summary.summarise` gave."""
    from rich.table import Table  # not at the top: a point of sale has no rich

    table = Table(show_header=False)
    examples, gate = document["examples"], document["gate"]
    if examples:
        splits = {name: n for name, n in examples.items() if name != "rejected"}
        table.add_row("photos", ", ".join(f"{name} {n:,}" for name, n in splits.items()))
        rejected = ", ".join(f"{reason} {n:,}" for reason, n in examples["rejected"].items())
        table.add_row("rejected", rejected or "none")
    if gate:
        against = "none" if gate["baseline"] is None else f"{gate['baseline']:.2f} years"
        table.add_row("MAE on test", f"{gate['value']:.2f} years (bound {gate['bound']:.2f})")
        table.add_row("live model's MAE", against)
        pushed = document["pushed_version"]
        table.add_row(
            "pushed version", f"{pushed}" if pushed else "not pushed: " + "; ".join(gate["reasons"])
        )
    if page := document.get("review"):  # a package of before has none
        table.add_row("review", page)
    total, peak = document["seconds"]["total"], document["peak_rss_mb"]["total"]
    table.add_row("took", f"{total:,.0f} s, at most {peak:,.0f} MB")
    console.print(table)

"""Compares two runs: their decisions, their configurations and their slices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components.evaluator import COUNT
from components.gate import MAE
from components.intervals import UNKNOWN
from components.review import decision, slices
from components.review.evaluation import OVERALL, figures
from components.review.inputs import Inputs
from components.review.page import Cell, Row, Section, Table, Text

Run = tuple[str, Inputs]  # name of the run, and the inputs of its review


def sections(runs: Sequence[Run]) -> list[Section]:
    """The sections of the page that compares the first run with the others."""
    return [_decisions(runs), _slices(runs)]


def _decisions(runs: Sequence[Run]) -> Section:
    rows: list[Row] = []
    for name, inputs in runs:
        overall = figures(inputs).get(OVERALL, {})
        mae, photos = overall.get(MAE, UNKNOWN), overall.get(COUNT, UNKNOWN).value
        version = decision.pushed_version(inputs)
        rows.append(
            [
                name,
                f"pushed as version {version}" if version else "not pushed",
                f"{mae:.2f}",
                Cell(f"{photos:,.0f}", photos),
                inputs.run.code,
                decision.fingerprint(inputs),
            ]
        )
    columns = ["run", "decision", "MAE, years (95 % interval)", "test photos", "code",
               "fingerprint of the photos"]  # fmt: skip
    thresholds = [
        Table(f"Thresholds of the gate: {name}", decision.COLUMNS, decision.thresholds(inputs))
        for name, inputs in runs
    ]
    differences = list(_differences([dict(_flat(inputs.settings)) for _, inputs in runs]))
    options = ["option", *(name for name, _ in runs)]
    settings = (
        Table("Options with different values", options, differences)
        if differences
        else Text(["All options of the runs have the same values."])
    )
    return Section("decision", "Decisions", [Table("Runs", columns, rows), *thresholds, settings])


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The options with their full names: `trainer.epochs`."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def _differences(settings: Sequence[Mapping[str, str]]) -> Iterator[list[str]]:
    for name in dict.fromkeys(name for one in settings for name in one):
        values = [one.get(name, "–") for one in settings]
        if len(set(values)) > 1:
            yield [name, *values]


def _slices(runs: Sequence[Run]) -> Section:
    evaluations = [
        slices.evaluation(name, inputs.artifacts["evaluation"].path) for name, inputs in runs
    ]
    blocks = slices.blocks(evaluations, runs[0][1].min_photos)
    if len({decision.fingerprint(inputs) for _, inputs in runs}) > 1:
        warning = "The runs used different photos. So a difference may come from the photos."
        blocks.insert(0, Text([warning]))
    return Section("slices", "TFMA slices by age", blocks)

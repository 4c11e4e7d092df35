"""Two runs side by side: their decisions, what was configured otherwise, and their slices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components.gate import MAE
from components.review import decision, slices
from components.review.evaluation import COUNT, NOTHING, OVERALL, figures
from components.review.inputs import Inputs
from components.review.page import Cell, Row, Section, Table, Text

Run = tuple[str, Inputs]  # what it is called, and what its review was made from


def sections(runs: Sequence[Run]) -> list[Section]:
    """The sections of the page that compares the runs, the first beside the others."""
    return [_decisions(runs), _slices(runs)]


def _decisions(runs: Sequence[Run]) -> Section:
    rows: list[Row] = []
    for name, inputs in runs:
        overall = figures(inputs).get(OVERALL, {})
        mae, photos = overall.get(MAE, NOTHING), overall.get(COUNT, NOTHING).value
        version = decision.pushed_version(inputs)
        rows.append(
            [
                name,
                f"pushed as version {version}" if version else "not pushed",
                Cell(f"{mae:.2f}", mae.value),
                Cell(f"{photos:,.0f}", photos),
                inputs.run.code,
                str(inputs.artifacts["examples"].properties.get("fingerprint") or "not recorded"),
            ]
        )
    columns = ["run", "decision", "MAE, years (95 % interval)", "test photos", "code",
               "fingerprint of the photos"]  # fmt: skip
    held = [
        Table(f"Thresholds of the gate: {name}", decision.COLUMNS, decision.thresholds(inputs))
        for name, inputs in runs
    ]
    settings = Table(
        "What was configured otherwise",
        ["option", *(name for name, _ in runs)],
        list(_differences([dict(_flat(inputs.settings)) for _, inputs in runs])),
    )
    return Section("decision", "Decisions", [Table("Runs", columns, rows), *held, settings])


def _flat(settings: Mapping[str, Any], inside: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{inside}{name}.")
        else:
            yield f"{inside}{name}", str(value)


def _differences(settings: Sequence[Mapping[str, str]]) -> Iterator[list[str]]:
    for name in dict.fromkeys(name for one in settings for name in one):
        values = [one.get(name, "–") for one in settings]
        if len(set(values)) > 1:
            yield [name, *values]


def _slices(runs: Sequence[Run]) -> Section:
    evaluations = [
        slices.evaluation(name, inputs.artifacts["evaluation"].path) for name, inputs in runs
    ]
    prints = {inputs.artifacts["examples"].properties.get("fingerprint") for _, inputs in runs}
    warning = (
        []
        if len(prints) == 1
        else [
            Text(
                ["The runs had different photos: a difference may be the photos', not the models'."]
            )
        ]
    )
    blocks = slices.blocks(evaluations, slices.few_below(runs[0][1]))
    return Section("slices", "TFMA slices by age", [*warning, *blocks])

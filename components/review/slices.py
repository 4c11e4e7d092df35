"""The section "TFMA slices by age": TFMA's metrics of every slice, of one model or of several."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt

from components.evaluator import BASELINE, MAE
from components.review.charts import COLOURS
from components.review.decision import NAMES
from components.review.evaluation import (
    COUNT,
    MEAN_ERROR,
    NOTHING,
    OVERALL,
    Figure,
    Metrics,
    Slice,
    read,
)
from components.review.inputs import Inputs
from components.review.page import Block, Cell, Chart, Section, Table, Text
from components.served_model import VERSION
from schemas import features

_FIRST = (COUNT, MAE, MEAN_ERROR)  # metrics, in this order; any others follow
_DIFFERENCE = "_diff"  # what TFMA appends to a metric's name for the candidate less the live model
_MOST_GROUPS = 12  # values of a column that a chart can still show


class Evaluation(NamedTuple):
    """One model's metrics by slice."""

    name: str
    slices: Mapping[Slice, Metrics]


def section(inputs: Inputs) -> Section:
    """Candidate and live model, slice by slice."""
    folder = inputs.artifacts["evaluation"].path
    evaluations = [Evaluation("this model", read(folder))]
    if live := inputs.artifacts["baseline_model"].properties.get(VERSION):
        evaluations.append(Evaluation(f"live, version {live}", read(folder, BASELINE)))
    return Section("slices", "TFMA slices by age", blocks(evaluations, few_below(inputs)))


def few_below(inputs: Inputs) -> int:
    """How many photos a slice needs to be judged."""
    return int(inputs.settings["review"]["min_photos"])


def blocks(evaluations: Sequence[Evaluation], few: int) -> list[Block]:
    """Charts and the table of all slices.

    Args:
        evaluations: the first is the one that the others are seen beside.
        few: a slice with fewer photos is marked, and neither coloured nor drawn.
    """
    return [
        Text(
            [
                "The test split in parts, as TensorFlow Model Analysis computed them: by age band, "
                "by each further column of the photos' table, and by both. The intervals are 95 % "
                "jackknife intervals. ✓ marks an MAE whose whole interval is below that of all "
                "photos, ✗ one whose whole interval is above it. A part with fewer than "
                f"{few} photos is marked (few): too few to say."
            ]
        ),
        *_by_band(evaluations, few),
        *_crossed(evaluations[0], few),
        _table(evaluations, few),
    ]


def label(key: Slice) -> str:
    """A slice in words: "age 18–20, gender female"."""
    named = (("age" if column == features.AGE_BAND else column, value) for column, value in key)
    return ", ".join(f"{column} {value}" for column, value in named) or "all photos"


def _order(key: Slice) -> tuple[Any, ...]:
    """All first, then one column before two, age bands from young to old."""
    return len(key), [column for column, _ in key], [_place(*part) for part in key]


def _place(column: str, value: str) -> tuple[int, str]:
    if column == features.AGE_BAND and value in features.AGE_BANDS:
        return features.AGE_BANDS.index(value), ""
    return len(features.AGE_BANDS), value


def _table(evaluations: Sequence[Evaluation], few: int) -> Table:
    keys = sorted({key for one in evaluations for key in one.slices}, key=_order)
    metrics = _metrics(evaluations)
    several = len(evaluations) > 1
    columns = ["slice", "kind"] + [
        f"{one.name}: {NAMES.get(metric, metric)}" if several else NAMES.get(metric, metric)
        for metric in metrics
        for one in evaluations
    ]
    if several:
        columns.append("MAE, years: first less second")
    rows = [_row(key, evaluations, metrics, few) for key in keys]
    return Table("Every slice", columns, rows, interactive=True, filters=("kind",))


def _metrics(evaluations: Sequence[Evaluation]) -> list[str]:
    held = {name for one in evaluations for metrics in one.slices.values() for name in metrics}
    others = sorted(n for n in held if n not in _FIRST and not n.endswith(_DIFFERENCE))
    return [name for name in _FIRST if name in held] + others


def _row(
    key: Slice, evaluations: Sequence[Evaluation], metrics: Sequence[str], few: int
) -> list[Cell | str]:
    kind = " × ".join("age" if column == features.AGE_BAND else column for column, _ in key)
    cells: list[Cell | str] = [Cell(label(key)), kind or "all"]
    for metric in metrics:
        for one in evaluations:
            found = one.slices.get(key, {})
            mark = _mark(key, one, few) if metric == MAE else ""
            cells.append(_cell(metric, found.get(metric, NOTHING), mark))
    if len(evaluations) > 1:
        first, second = (one.slices.get(key, {}).get(MAE, NOTHING) for one in evaluations[:2])
        change = first.value - second.value
        cells.append(Cell(f"{change:+.2f}", change))
    return cells


def _cell(metric: str, figure: Figure, mark: str) -> Cell:
    if math.isnan(figure.value):
        return Cell("–", math.nan)
    if metric == COUNT:
        return Cell(f"{figure.value:,.0f}", figure.value)
    return Cell(f"{figure:.2f}".removesuffix(" (no interval)"), figure.value, mark)


def _mark(key: Slice, one: Evaluation, few: int) -> str:
    found = one.slices.get(key, {})
    if not found or found.get(COUNT, NOTHING).value < few:
        return "few"
    mae, overall = found.get(MAE, NOTHING), one.slices.get(OVERALL, {}).get(MAE, NOTHING)
    if key == OVERALL:
        return ""
    return "bad" if mae.low > overall.value else "good" if mae.high < overall.value else ""


def _by_band(evaluations: Sequence[Evaluation], few: int) -> Iterator[Block]:
    for metric, title in ((MAE, "MAE by age"), (MEAN_ERROR, "Bias by age: estimate less real age")):
        rows = [
            {"age": band, "model": one.name, "value": f.value, "low": f.low, "high": f.high}
            for one in evaluations
            for band in features.AGE_BANDS
            if _enough(found := one.slices.get(((features.AGE_BAND, band),), {}), few)
            for f in [found.get(metric, NOTHING)]
        ]
        if rows:
            told = "; ".join(
                f"{row['model']}, {row['age']} years: {row['value']:.2f} "
                f"({row['low']:.2f} to {row['high']:.2f})"
                for row in rows
            )
            yield Chart(
                f"{title}, years, with 95 % intervals",
                f"{told}. Age bands with fewer than {few} photos are left out.",
                _dots(rows, len(evaluations), NAMES[metric]),
            )


def _enough(found: Metrics, few: int) -> bool:
    return found.get(COUNT, NOTHING).value >= few  # not where there is no count


def _dots(rows: Sequence[Mapping[str, Any]], models: int, title: str) -> alt.TopLevelMixin:
    base = alt.Chart(alt.InlineData(list(rows)))
    bands = [band for band in features.AGE_BANDS if any(row["age"] == band for row in rows)]
    y = alt.Y("age:N", sort=bands, title="age, years")
    apart = {"yOffset": alt.YOffset("model:N")} if models > 1 else {}
    legend = alt.Legend(title=None) if models > 1 else None
    colour, shape = alt.Color("model:N", legend=legend), alt.Shape("model:N", legend=legend)
    x = alt.X("low:Q", title=title)
    return alt.layer(
        base.mark_rule(strokeWidth=2).encode(y, x, alt.X2("high:Q"), colour, **apart),
        base.mark_point(size=70).encode(y, alt.X("value:Q"), colour, shape, **apart),
        alt.Chart(alt.InlineData([{"zero": 0}])).mark_rule(strokeDash=[4, 3]).encode(x="zero:Q"),
    ).properties(height=len(bands) * (26 if models == 1 else 40))


def _crossed(one: Evaluation, few: int) -> Iterator[Block]:
    """A chart for each column that is crossed with the age bands."""
    crossed: dict[str, list[Slice]] = {}
    for key in sorted(one.slices, key=_order):
        if len(key) == 2 and key[0][0] == features.AGE_BAND:
            crossed.setdefault(key[1][0], []).append(key)
    for column, keys in crossed.items():
        groups = sorted({key[1][1] for key in keys})
        rows = [
            {"age": key[0][1], "group": key[1][1], "mae": one.slices[key][MAE].value}
            for key in keys
            if _enough(one.slices[key], few) and MAE in one.slices[key]
        ]
        if rows and len(groups) <= _MOST_GROUPS:
            told = "; ".join(f"{r['age']} years, {r['group']}: {r['mae']:.2f}" for r in rows)
            yield Chart(
                f"MAE by age and {column}, years",
                f"{told}. Parts with fewer than {few} photos are left out.",
                _heat(rows, column),
            )


def _heat(rows: Sequence[Mapping[str, Any]], column: str) -> alt.TopLevelMixin:
    base = alt.Chart(alt.InlineData(list(rows))).encode(
        alt.X("group:N", title=column, axis=alt.Axis(labelAngle=0, labelLimit=90)),
        alt.Y("age:N", sort=list(features.AGE_BANDS), title="age, years"),
    )
    # By opacity, so that it is the page's ink that stands on it, light or dark.
    shade = alt.Opacity("mae:Q", scale=alt.Scale(range=[0.05, 0.65]), legend=None)
    return alt.layer(
        base.mark_rect(fill=COLOURS[1]).encode(shade),
        base.mark_text().encode(alt.Text("mae:Q", format=".1f")),
    ).properties(height=alt.Step(26))

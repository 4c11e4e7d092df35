"""The section "TFMA slices by age": TFMA's metrics of every slice, of one model or of several."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import pyarrow as pa
import pyarrow.compute as pc

from components.evaluator import BASELINE, CANDIDATE
from components.gate import MAE
from components.review.charts import COLOURS
from components.review.decision import NAMES
from components.review.evaluation import (
    ABSOLUTE_ERROR,
    COUNT,
    MEAN_ERROR,
    NOTHING,
    OVERALL,
    Figure,
    Metrics,
    Slice,
    absolute_errors,
    interval,
    read,
)
from components.review.inputs import Inputs
from components.review.page import Block, Cell, Chart, Section, Table, Text
from components.served_model import VERSION
from schemas import features

_FIRST = (COUNT, MAE, MEAN_ERROR)  # metrics, in this order; any others follow
_DIFFERENCE = "_diff"  # what TFMA appends to a metric's name for the candidate less the live model
_MOST_GROUPS = 12  # values of a column that a chart can still show
_SQUARE = "square of the change"  # a column, as ABSOLUTE_ERROR


class Evaluation(NamedTuple):
    """One model's metrics by slice, and what `absolute_errors` says of it."""

    name: str
    slices: Mapping[Slice, Metrics]
    photos: pa.Table


def section(inputs: Inputs) -> Section:
    """Candidate and live model, slice by slice."""
    folder = inputs.artifacts["evaluation"].path
    evaluations = [evaluation("this model", folder)]
    if live := inputs.artifacts["baseline_model"].properties.get(VERSION):
        evaluations.append(evaluation(f"live, version {live}", folder, BASELINE))
    return Section("slices", "TFMA slices by age", blocks(evaluations, few_below(inputs)))


def evaluation(name: str, folder: Path, model: str = "") -> Evaluation:
    """Of a folder's model, by default of the candidate, under a name for the reader."""
    return Evaluation(name, read(folder, model), absolute_errors(folder, model or CANDIDATE))


def few_below(inputs: Inputs) -> int:
    """How many photos a slice needs to be judged."""
    return int(inputs.settings["review"]["min_photos"])


def blocks(evaluations: Sequence[Evaluation], few: int) -> list[Block]:
    """Charts and the table of all slices.

    Args:
        evaluations: the first is the one that the others are seen beside.
        few: a slice with fewer photos is marked, and neither coloured, drawn nor ranked.
    """
    return [
        Text([*_introduction(evaluations, few)]),
        *_by_column(evaluations, few),
        *_crossed(evaluations[0], few),
        _table(evaluations, few),
    ]


def _introduction(evaluations: Sequence[Evaluation], few: int) -> Iterator[str]:
    yield (
        "The test split in parts, as TensorFlow Model Analysis computed them: by age band, by each "
        "further column of the photos' table, and by both. The intervals are 95 % jackknife "
        "intervals. ✓ marks an MAE whose whole interval is below that of all photos, ✗ one whose "
        f"whole interval is above it. A part with fewer than {few} photos is marked (few): too few "
        "to say; sorted by a figure, it stands last."
    )
    if len(evaluations) > 1:
        first, second = evaluations[:2]
        yield (
            f"The last column is the MAE of {first.name} less that of {second.name}, with an "
            "interval where both were judged on the same photos: there each photo is held against "
            "itself, so that differences show which the two intervals of the MAE would hide. "
            f"✓ marks those where the whole interval speaks for {first.name}, ✗ against it; by "
            "chance alone, about one part in twenty is marked."
        )
    for column, groups in _columns(evaluations[0]).items():
        if len(groups) > _MOST_GROUPS:
            yield f"{column} has {len(groups)} values, too many for a chart: see the table."


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
    text = str(value)
    return len(features.AGE_BANDS), text.zfill(20) if text.isdigit() else text  # spans by number


def _columns(one: Evaluation) -> dict[str, list[str]]:
    """The columns that it is sliced by, the age band first, each with its values in order."""
    found: dict[str, list[str]] = {features.AGE_BAND: []}
    for key in sorted((key for key in one.slices if len(key) == 1), key=_order):
        found.setdefault(key[0][0], []).append(key[0][1])
    return found


def _table(evaluations: Sequence[Evaluation], few: int) -> Table:
    keys = sorted({key for one in evaluations for key in one.slices}, key=_order)
    metrics = _metrics(evaluations)
    several = len(evaluations) > 1
    columns = ["slice", "kind"] + [
        f"{one.name}: {NAMES.get(metric, metric)}" if several else NAMES.get(metric, metric)
        for metric in metrics
        for one in evaluations
    ]
    changes: dict[Slice, Figure] = {}
    if several:
        columns.append(f"{NAMES[MAE]}: {evaluations[0].name} less {evaluations[1].name}")
        changes = _changes(*evaluations[:2])
    rows = []
    for key in keys:
        row = _row(key, evaluations, metrics, few)
        if several:
            lacking = any(_is_few(one, key, few) for one in evaluations[:2])
            change = changes.get(key, NOTHING)
            row.append(_cell(MAE, change, lacking, _mark(change, 0), "+.2f"))
        rows.append(row)
    return Table("Every slice", columns, rows, interactive=True, filters=("kind",))


def _changes(first: Evaluation, second: Evaluation) -> dict[Slice, Figure]:
    """MAE of the first less that of the second, in years, of the slices that both have.

    With the interval of a mean of the photos' own differences (a paired comparison), where the
    photos are the same.
    """
    other = second.photos.select([features.PHOTO_ID, ABSOLUTE_ERROR])
    both = first.photos.join(other, features.PHOTO_ID, join_type="inner", right_suffix=" (other)")
    change = pc.subtract(both[ABSOLUTE_ERROR], both[f"{ABSOLUTE_ERROR} (other)"])
    both = both.append_column(_SQUARE, pc.power(change, 2))
    keys = first.slices.keys() & second.slices.keys()
    squares: dict[Slice, tuple[float, int]] = {}  # mean, and of how many
    for columns in {tuple(column for column, _ in key) for key in keys}:
        if set(columns) <= set(both.column_names):
            means = both.group_by(list(columns)).aggregate([(_SQUARE, "mean"), ([], "count_all")])
            for row in means.to_pylist():
                key = tuple((column, row[column]) for column in columns)
                squares[key] = row[f"{_SQUARE}_mean"], row["count_all"]
    found = {}
    for key in keys:
        mine, theirs = first.slices[key], second.slices[key]
        square, shared = squares.get(key, (math.nan, 0))
        same = {shared} == {one.get(COUNT, NOTHING).value for one in (mine, theirs)}
        less = mine.get(MAE, NOTHING).value - theirs.get(MAE, NOTHING).value
        found[key] = interval(less, square, shared if same else 0)
    return found


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
            figure = one.slices.get(key, {}).get(metric, NOTHING)
            overall = one.slices.get(OVERALL, {}).get(MAE, NOTHING).value
            mark = _mark(figure, overall) if metric == MAE and key != OVERALL else ""
            cells.append(_cell(metric, figure, _is_few(one, key, few), mark))
    return cells


def _is_few(one: Evaluation, key: Slice, few: int) -> bool:
    """Whether it has too few photos of the slice to say, or none, or they weren't counted."""
    return not one.slices.get(key, {}).get(COUNT, NOTHING).value >= few


def _cell(metric: str, figure: Figure, lacking: bool, mark: str = "", form: str = ".2f") -> Cell:
    if math.isnan(figure.value):
        return Cell("–", math.nan)
    if metric == COUNT:
        return Cell(f"{figure.value:,.0f}", figure.value)
    text = _told(figure, form)
    if lacking:  # sorted last, and said once a row
        return Cell(text, math.nan, "few" if metric == MAE else "")
    return Cell(text, figure.value, mark)


def _told(figure: Figure, form: str = ".2f") -> str:
    return f"{figure:{form}}".removesuffix(" (no interval)")


def _mark(figure: Figure, bound: float) -> str:
    """Good where the whole interval is below the bound, bad where it is above."""
    return "bad" if figure.low > bound else "good" if figure.high < bound else ""


def _by_column(evaluations: Sequence[Evaluation], few: int) -> Iterator[Block]:
    """Charts of MAE and bias by age, and by each further column."""
    for column, groups in _columns(evaluations[0]).items():
        if len(groups) > _MOST_GROUPS:
            continue
        by = "age" if column == features.AGE_BAND else column
        for metric, title in ((MAE, "MAE"), (MEAN_ERROR, "Bias (estimate less real age)")):
            shown = [
                (one.name, group, one.slices[key][COUNT].value, figure)
                for one in evaluations
                for group in groups
                if not _is_few(one, key := ((column, group),), few)
                for figure in [one.slices[key].get(metric, NOTHING)]
                if math.isfinite(figure.value)
            ]
            if shown:
                told = "; ".join(
                    f"{model}, {by} {group}: {_told(figure)}, {photos:,.0f} photos"
                    for model, group, photos, figure in shown
                )
                yield Chart(
                    f"{title} by {by}, years, with 95 % intervals",
                    f"{told}. Parts with fewer than {few} photos are left out.",
                    _dots(shown, groups, NAMES[metric], f"{by}, years" if by == "age" else by),
                )
            elif metric == MAE:
                yield Text([f"No chart by {by}: no part has {few} photos."])


def _dots(
    shown: Sequence[tuple[str, str, float, Figure]], groups: Sequence[str], title: str, by: str
) -> alt.TopLevelMixin:
    rows = [
        {"model": model, "group": group, "value": figure.value}
        # An interval of no width where there is none.
        | {side: value if math.isfinite(value) else figure.value
           for side, value in (("low", figure.low), ("high", figure.high))}
        for model, group, _, figure in shown
    ]  # fmt: skip
    models = len({row["model"] for row in rows})
    drawn = [group for group in groups if any(row["group"] == group for row in rows)]
    base = alt.Chart(alt.InlineData(rows))
    y = alt.Y("group:N", sort=drawn, title=by, axis=alt.Axis(labelLimit=120))
    apart = {"yOffset": alt.YOffset("model:N")} if models > 1 else {}
    legend = alt.Legend(title=None) if models > 1 else None
    colour, shape = alt.Color("model:N", legend=legend), alt.Shape("model:N", legend=legend)
    x = alt.X("low:Q", title=title)
    return alt.layer(
        # Without a legend of its own, which would stand beside that of the points.
        base.mark_rule(strokeWidth=2).encode(
            y, x, alt.X2("high:Q"), alt.Color("model:N", legend=None), **apart
        ),
        base.mark_point(size=70).encode(y, alt.X("value:Q"), colour, shape, **apart),
        alt.Chart(alt.InlineData([{"zero": 0}])).mark_rule(strokeDash=[4, 3]).encode(x="zero:Q"),
    ).properties(height=len(drawn) * (26 if models == 1 else 40))


def _crossed(one: Evaluation, few: int) -> Iterator[Block]:
    """A chart for each column that is crossed with the age bands."""
    for column, groups in _columns(one).items():
        shown = [
            (band, group, one.slices[key])
            for band in features.AGE_BANDS
            for group in groups
            if not _is_few(one, key := ((features.AGE_BAND, band), (column, group)), few)
            if math.isfinite(one.slices[key].get(MAE, NOTHING).value)
        ]
        if shown and len(groups) <= _MOST_GROUPS:
            told = "; ".join(
                f"{band} years, {group}: {_told(found[MAE])}, {found[COUNT].value:,.0f} photos"
                for band, group, found in shown
            )
            rows = [{"age": b, "group": g, "mae": found[MAE].value} for b, g, found in shown]
            yield Chart(
                f"MAE by age and {column}, years",
                f"{told}. Parts with fewer than {few} photos are left out.",
                _heat(rows, groups, column),
            )


def _heat(
    rows: Sequence[Mapping[str, Any]], groups: Sequence[str], column: str
) -> alt.TopLevelMixin:
    base = alt.Chart(alt.InlineData(list(rows))).encode(
        alt.X("group:N", sort=list(groups), title=column,
              axis=alt.Axis(labelAngle=0, labelLimit=90)),
        alt.Y("age:N", sort=list(features.AGE_BANDS), title="age, years"),
    )  # fmt: skip
    # By opacity, so that it is the page's ink that stands on it, light or dark.
    shade = alt.Opacity("mae:Q", scale=alt.Scale(range=[0.05, 0.65]), legend=None)
    return alt.layer(
        base.mark_rect(fill=COLOURS[1]).encode(shade),
        base.mark_text().encode(alt.Text("mae:Q", format=".1f")),
    ).properties(height=alt.Step(26))

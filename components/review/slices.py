"""The section "TFMA slices by age": TFMA's metrics of every slice, for one model or several."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import pyarrow as pa
import pyarrow.compute as pc

from components import passing
from components.evaluator import ALL_PHOTOS, BASELINE, CANDIDATE, COUNT, MAX_VALUES
from components.gate import MAE, REFUSED
from components.intervals import UNKNOWN, Figure, interval
from components.passing import PASSED
from components.review.charts import COLOURS
from components.review.decision import NAMES, live_version
from components.review.evaluation import (
    ABSOLUTE_ERROR,
    MEAN_ERROR,
    OVERALL,
    Metrics,
    Slice,
    absolute_errors,
    read,
)
from components.review.inputs import Inputs
from components.review.page import Block, Cell, Chart, Section, Table, Text
from schemas import features

_FIRST = (COUNT, MAE, MEAN_ERROR)  # the first metrics of the table, in this order
_COUNTS = (COUNT, ALL_PHOTOS, *passing.COUNTS)
_DIFFERENCE = "_diff"  # TFMA's suffix for the candidate's metric minus the live model's
_MAX_GROUPS = 12  # the most values of a column that a chart shows
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?")  # at the start of a band's name
# Names of columns; see ABSOLUTE_ERROR.
_CHANGE, _SQUARE = "change", "square of the change"


class Evaluation(NamedTuple):
    """One model's metrics by slice, and its rows of `absolute_errors`."""

    name: str
    slices: Mapping[Slice, Metrics]
    photos: pa.Table


def section(inputs: Inputs) -> Section:
    """The slices of the candidate and of the live model."""
    folder = inputs.artifacts["evaluation"].path
    evaluations = [evaluation("this model", folder)]
    if live := live_version(inputs):
        evaluations.append(evaluation(f"live model, version {live}", folder, BASELINE))
    introduction, *others = blocks(evaluations, inputs.min_photos)
    left_out = [Text([text]) for text in _not_sliced(inputs, evaluations[0])]
    return Section("slices", "TFMA slices by age", [introduction, *left_out, *others])


def _not_sliced(inputs: Inputs, one: Evaluation) -> Iterator[str]:
    """A sentence about the extra columns that make no slices, if there are any."""
    values = json.loads(inputs.property_of("examples", "extra_values") or "{}")
    if left_out := [name for name in values if name not in _columns(one)]:
        listed = ", ".join(f"{name} ({values[name]:,} values)" for name in left_out)
        yield (
            f"There are no slices by {listed}. A column makes slices if it has at most "
            f"{MAX_VALUES} values. The option evaluator.slice_columns can choose other columns."
        )


def evaluation(name: str, folder: Path, model: str = "") -> Evaluation:
    """The evaluation of a model, by default of the candidate. The page shows `name`."""
    return Evaluation(name, read(folder, model), absolute_errors(folder, model or CANDIDATE))


def blocks(evaluations: Sequence[Evaluation], min_photos: int) -> list[Block]:
    """Charts and the table of all slices.

    Args:
        evaluations: the page compares the first with the others.
        min_photos: a slice with fewer photos is marked "few". It is not drawn and not ranked.
    """
    return [
        Text([*_introduction(evaluations, min_photos)]),
        *_by_column(evaluations, min_photos),
        *_crossed(evaluations[0], min_photos),
        _table(evaluations, min_photos),
    ]


def _introduction(evaluations: Sequence[Evaluation], min_photos: int) -> Iterator[str]:
    yield (
        "A slice is a part of the test photos. There are slices by age band, by each extra column "
        "of the photos' table, and by both. The numbers of a column are cut into bands of about as "
        "many photos. TensorFlow Model Analysis (TFMA) computed the figures. "
        "The errors are those of the photos that the model does not refuse. "
        "The intervals are 95 % jackknife intervals. The sign ✓ marks an MAE whose whole interval "
        "is below the MAE of all photos. The sign ✗ marks an MAE whose whole interval is above it. "
        f"The mark (few) means that a slice has fewer than {min_photos} photos. That is too few to "
        "judge it, so it comes last if you sort by a figure."
    )
    if len(evaluations) > 1:
        first, second = evaluations[:2]
        yield (
            f"The last column is the MAE of {first.name} minus the MAE of {second.name}, on the "
            "photos that both models answer. Its interval compares the two errors of each photo. "
            "It can show a difference even if the two intervals of the MAE overlap. The sign ✓ "
            f"marks a slice where the whole interval is in favour of {first.name}. The sign ✗ "
            "marks a slice where it is against it. About "
            "one slice in twenty gets a sign by chance alone."
        )
    for column, groups in _columns(evaluations[0]).items():
        if len(groups) > _MAX_GROUPS:
            yield f"{column} has {len(groups)} values. That is too many for a chart: see the table."


def label(key: Slice) -> str:
    """The name of a slice on the page: "age 18–20, gender female"."""
    return ", ".join(f"{_title(column)} {value}" for column, value in key) or "all photos"


def kind(key: Slice) -> str:
    """The columns of a slice: "age × gender"."""
    return " × ".join(_title(column) for column, _ in key) or "all"


def _title(column: str) -> str:
    return "age" if column == features.AGE_BAND else column


def order(key: Slice) -> tuple[Any, ...]:
    """Sorts all photos first, one column before two, ages and numbers from low to high."""
    return len(key), [column for column, _ in key], [_place(*part) for part in key]


def _place(column: str, value: str) -> tuple[float, str]:
    if column == features.AGE_BAND and value in features.AGE_BANDS:
        return features.AGE_BANDS.index(value), ""
    number = _NUMBER.match(text := str(value))  # spans and bands
    return float(number[0]) if number else math.inf, text


def _columns(one: Evaluation) -> dict[str, list[str]]:
    """The columns of the slices, the age band first, each with its sorted values."""
    found: dict[str, list[str]] = {features.AGE_BAND: []}
    for key in sorted((key for key in one.slices if len(key) == 1), key=order):
        found.setdefault(key[0][0], []).append(key[0][1])
    return found


def _table(evaluations: Sequence[Evaluation], min_photos: int) -> Table:
    keys = sorted({key for one in evaluations for key in one.slices}, key=order)
    metrics = _metrics(evaluations)
    several = len(evaluations) > 1
    columns = ["slice", "kind"] + [
        f"{one.name}: {NAMES.get(metric, metric)}" if several else NAMES.get(metric, metric)
        for metric in metrics
        for one in evaluations
    ]
    changes: dict[Slice, Figure] = {}
    if several:
        columns.append(f"{NAMES[MAE]}: {evaluations[0].name} minus {evaluations[1].name}")
        changes = _changes(*evaluations[:2])
    rows = []
    for key in keys:
        row = _row(key, evaluations, metrics, min_photos)
        if several:
            too_few = any(_is_few(one, key, min_photos) for one in evaluations[:2])
            change = changes.get(key, UNKNOWN)
            row.append(_cell(MAE, change, too_few, _mark(change, 0), "+z.2f"))
        rows.append(row)
    return Table("Every slice", columns, rows, interactive=True, filters=("kind",))


def _changes(first: Evaluation, second: Evaluation) -> dict[Slice, Figure]:
    """MAE of the first minus MAE of the second on the photos that both answer, in years, by slice.

    The interval is that of a paired comparison: of the mean of the differences between the two
    errors of each photo.
    """
    other = second.photos.select([features.PHOTO_ID, ABSOLUTE_ERROR])
    both = first.photos.join(other, features.PHOTO_ID, join_type="inner", right_suffix=" (other)")
    change = pc.subtract(both[ABSOLUTE_ERROR], both[f"{ABSOLUTE_ERROR} (other)"])
    both = both.append_column(_CHANGE, change).append_column(_SQUARE, pc.power(change, 2))
    keys = first.slices.keys() & second.slices.keys()
    found = {}
    for columns in {tuple(column for column, _ in key) for key in keys}:
        if set(columns) <= set(both.column_names):
            wanted = [(_CHANGE, "mean"), (_SQUARE, "mean"), ([], "count_all")]
            for row in both.group_by(list(columns)).aggregate(wanted).to_pylist():
                key = tuple((column, row[column]) for column in columns)
                mean, square = row[f"{_CHANGE}_mean"], row[f"{_SQUARE}_mean"]
                if mean is not None:
                    found[key] = interval(mean, square, row["count_all"])
    return found


def _metrics(evaluations: Sequence[Evaluation]) -> list[str]:
    held = {name for one in evaluations for metrics in one.slices.values() for name in metrics}
    others = sorted(n for n in held if n not in _FIRST and not n.endswith(_DIFFERENCE))
    return [name for name in _FIRST if name in held] + others


def _row(
    key: Slice, evaluations: Sequence[Evaluation], metrics: Sequence[str], min_photos: int
) -> list[Cell | str]:
    cells: list[Cell | str] = [Cell(label(key)), kind(key)]
    for metric in metrics:
        of = metric.removesuffix(PASSED) if metric.endswith(PASSED) else COUNT
        for one in evaluations:
            figure = one.slices.get(key, {}).get(metric, UNKNOWN)
            overall = one.slices.get(OVERALL, {}).get(MAE, UNKNOWN).value
            mark = _mark(figure, overall) if metric == MAE and key != OVERALL else ""
            cells.append(_cell(metric, figure, _is_few(one, key, min_photos, of), mark))
    return cells


def _is_few(one: Evaluation, key: Slice, min_photos: int, of: str = COUNT) -> bool:
    """Whether the slice has fewer than `min_photos` photos, or a count that is not known.

    Args:
        one: the model's evaluation.
        key: the slice.
        min_photos: the photos that it needs.
        of: the metric that counts them.
    """
    return not one.slices.get(key, {}).get(of, UNKNOWN).value >= min_photos


def _cell(metric: str, figure: Figure, too_few: bool, mark: str = "", form: str = ".2f") -> Cell:
    if math.isnan(figure.value):
        return Cell("–", math.nan)
    if metric in _COUNTS:
        return Cell(f"{figure.value:,.0f}", figure.value)
    text = figure.short(".1%" if metric == REFUSED or metric.endswith(PASSED) else form)
    if too_few:  # comes last when sorted; the row is marked once
        return Cell(text, math.nan, "few" if metric == MAE else "")
    return Cell(text, figure.value, mark)


def _mark(figure: Figure, bound: float) -> str:
    """Good if the whole interval is below the bound, bad if it is above."""
    return "bad" if figure.low > bound else "good" if figure.high < bound else ""


def _by_column(evaluations: Sequence[Evaluation], min_photos: int) -> Iterator[Block]:
    """Charts of MAE and bias by age, and by each extra column."""
    for column, groups in _columns(evaluations[0]).items():
        if len(groups) <= _MAX_GROUPS:
            charts = list(_interval_charts(evaluations, column, groups, min_photos))
            yield from charts
            if not charts:
                by = _title(column)
                yield Text(
                    [f"There is no chart by {by}, because no slice has {min_photos} photos."]
                )


def _interval_charts(
    evaluations: Sequence[Evaluation], column: str, groups: Sequence[str], min_photos: int
) -> Iterator[Chart]:
    by = _title(column)
    for metric, title in ((MAE, "MAE"), (MEAN_ERROR, "Bias (estimate minus real age)")):
        shown = [
            (one.name, group, one.slices[key][COUNT].value, figure)
            for one in evaluations
            for group in groups
            if not _is_few(one, key := ((column, group),), min_photos)
            for figure in [one.slices[key].get(metric, UNKNOWN)]
            if math.isfinite(figure.value)
        ]
        if shown:
            description = "; ".join(
                f"{model}, {by} {group}: {figure.short()}, {photos:,.0f} photos"
                for model, group, photos, figure in shown
            )
            yield Chart(
                f"{title} by {by}, years, with 95 % intervals",
                f"{description}. Slices with fewer than {min_photos} photos are left out.",
                _dots(shown, groups, NAMES[metric], f"{by}, years" if by == "age" else by),
            )


def _dots(
    shown: Sequence[tuple[str, str, float, Figure]], groups: Sequence[str], title: str, by: str
) -> alt.TopLevelMixin:
    rows = [
        {"model": model, "group": group, "value": figure.value}
        # Without an interval, the line has no length.
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
        # Without this None there would be a second legend beside that of the points.
        base.mark_rule(strokeWidth=2).encode(
            y, x, alt.X2("high:Q"), alt.Color("model:N", legend=None), **apart
        ),
        base.mark_point(size=70).encode(y, alt.X("value:Q"), colour, shape, **apart),
        alt.Chart(alt.InlineData([{"zero": 0}])).mark_rule(strokeDash=[4, 3]).encode(x="zero:Q"),
    ).properties(height=len(drawn) * (26 if models == 1 else 40))


def _crossed(one: Evaluation, min_photos: int) -> Iterator[Block]:
    """A chart by age band and column, for each extra column."""
    for column, groups in _columns(one).items():
        shown = [
            (band, group, one.slices[key])
            for band in features.AGE_BANDS
            for group in groups
            if not _is_few(one, key := ((features.AGE_BAND, band), (column, group)), min_photos)
            if math.isfinite(one.slices[key].get(MAE, UNKNOWN).value)
        ]
        if shown and len(groups) <= _MAX_GROUPS:
            description = "; ".join(
                f"{band} years, {group}: {found[MAE].short()}, {found[COUNT].value:,.0f} photos"
                for band, group, found in shown
            )
            rows = [{"age": b, "group": g, "mae": found[MAE].value} for b, g, found in shown]
            yield Chart(
                f"MAE by age and {column}, years",
                f"{description}. Slices with fewer than {min_photos} photos are left out.",
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
    # Opacity instead of a scale of colours, so that the text is readable on light and dark pages.
    shade = alt.Opacity("mae:Q", scale=alt.Scale(range=[0.05, 0.65]), legend=None)
    return alt.layer(
        base.mark_rect(fill=COLOURS[1]).encode(shade),
        base.mark_text().encode(alt.Text("mae:Q", format=".1f")),
    ).properties(height=alt.Step(26))

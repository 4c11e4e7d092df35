"""The section "Certainty": whether the interval and the probability of being a minor are right."""

from __future__ import annotations

import math
from collections.abc import Iterator

import altair as alt
import numpy as np
import pyarrow as pa
from scipy.stats import mannwhitneyu

from components import predictions
from components.evaluator import CANDIDATE
from components.intervals import share
from components.review.evaluation import Slice, figures
from components.review.inputs import Inputs
from components.review.page import Block, Cell, Chart, Row, Section, Table, Text
from components.review.slices import kind, label, order
from components.trainer.calibration import COVERAGE
from schemas import features

_BINS = 10  # of the probability


def section(inputs: Inputs) -> Section:
    """The coverage of the interval by age band, and the calibration of the probability."""
    return Section("certainty", "Certainty", list(_blocks(inputs)))


def calibration_error(probabilities: np.ndarray, minors: np.ndarray) -> float:
    """The expected calibration error, 0 to 1 (Guo et al. 2017, arXiv:1706.04599, section 2).

    It is the mean difference, weighted by the number of photos, between the mean probability and
    the share of minors in each of ten bins of the same width.

    Args:
        probabilities: of being a minor, 0 to 1 [N].
        minors: whether each person is one [N].
    """
    bins = _bins(probabilities)
    gaps = [
        np.sum(bins == at) * abs(probabilities[bins == at].mean() - minors[bins == at].mean())
        for at in np.unique(bins)
    ]
    return float(np.sum(gaps) / len(probabilities))


def area_under_curve(scores: np.ndarray, minors: np.ndarray) -> float:
    """The area under the ROC curve, 0 to 1; NaN without minors or without adults.

    It is the chance that a minor has a higher score than an adult (Hanley & McNeil 1982, Radiology
    143, 29-36).
    """
    pairs = int(minors.sum()) * int((~minors).sum())
    if not pairs:
        return float("nan")
    return float(mannwhitneyu(scores[minors], scores[~minors]).statistic / pairs)


def _bins(probabilities: np.ndarray) -> np.ndarray:
    return np.minimum((probabilities * _BINS).astype(int), _BINS - 1)


def _blocks(inputs: Inputs) -> Iterator[Block]:
    names = [predictions.column(CANDIDATE, name) for name in predictions.FIGURES]
    photos = predictions.answered(inputs.artifacts["evaluation"].path, CANDIDATE)
    ages, low, high, probabilities = (
        photos[name].to_numpy().astype(float) for name in (features.AGE, *names)
    )
    if not len(ages) or np.isnan(probabilities).any():
        yield Text(["The evaluation does not say how sure the model is."])
        return
    minors = ages < inputs.settings["policy"]["legal_age"]
    yield Text(
        [
            "The model gives an interval for each age, and the probability that the person is a "
            "minor. Both were fitted on the split eval. The figures here are those of the test "
            "photos that the model does not refuse.",
            f"The interval should contain {COVERAGE:.0%} of the real ages of all photos. In a "
            "single slice, it may contain more or fewer. The sign ✗ marks a slice in which it "
            "surely contains fewer (Wilson's 95 % interval). The area under the ROC curve says in "
            "how many of all pairs a minor gets a higher probability of being a minor than an "
            f"adult. The mark (few) means fewer than {inputs.min_photos} photos.",
        ]
    )
    inside = (low <= ages) & (ages <= high)
    rows = [
        _slice(key, _chosen(photos, key), inside, probabilities, minors, inputs.min_photos)
        for key in sorted(figures(inputs), key=order)
    ]
    columns = [
        "slice", "kind", "photos", "ages inside the interval (95 % interval)",
        "area under the ROC curve",
    ]  # fmt: skip
    yield Table("Certainty in every slice", columns, rows, True, ("kind",))
    curve = area_under_curve(probabilities, minors)
    error = calibration_error(probabilities, minors)
    yield Text(
        [
            "A minor gets a higher probability than an adult in "
            + ("– %" if np.isnan(curve) else f"{curve:.1%}")
            + " of all pairs (area under the ROC curve). On average, the probability is off by "
            f"{error:.1%} (expected calibration error)."
        ]
    )
    yield _reliability(probabilities, minors)


def _chosen(photos: pa.Table, key: Slice) -> np.ndarray:
    """Which photos are in a slice, bool [N]."""
    parts = [photos[column].to_numpy() == value for column, value in key]
    return np.logical_and.reduce(parts) if parts else np.full(len(photos), True)


def _slice(
    key: Slice,
    chosen: np.ndarray,
    inside: np.ndarray,
    probabilities: np.ndarray,
    minors: np.ndarray,
    min_photos: int,
) -> Row:
    photos = int(chosen.sum())
    found = share(int(inside[chosen].sum()), photos)
    few = photos < min_photos
    mark = "few" if few else "bad" if found.high < COVERAGE else ""
    curve = area_under_curve(probabilities[chosen], minors[chosen])
    return [
        label(key),
        kind(key),
        photos,
        Cell(f"{found:.1%}", math.nan if few else found.value, mark),
        Cell("–" if math.isnan(curve) else f"{curve:.1%}", math.nan if few else curve),
    ]


def _reliability(probabilities: np.ndarray, minors: np.ndarray) -> Chart:
    bins = _bins(probabilities)
    rows = []
    for at in np.unique(bins):
        chosen = bins == at
        found = share(int(minors[chosen].sum()), int(chosen.sum()))
        rows.append(
            {"said": float(probabilities[chosen].mean()), "share": found.value, "low": found.low,
             "high": found.high, "photos": int(chosen.sum())}
        )  # fmt: skip
    base = alt.Chart(alt.InlineData(rows))
    percent = alt.Axis(format="%")
    x = alt.X("said:Q", title="probability of being a minor, as the model says", axis=percent)
    line = alt.Chart(alt.InlineData([{"x": 0, "y": 0}, {"x": 1, "y": 1}]))
    chart = alt.layer(
        base.mark_rule(strokeWidth=2).encode(
            x, alt.Y("low:Q", title="share of minors", axis=percent), alt.Y2("high:Q")
        ),
        base.mark_point(size=70).encode(x, alt.Y("share:Q")),
        line.mark_line(strokeDash=[5, 4], color="currentColor").encode(x="x:Q", y="y:Q"),
    ).properties(height=300)
    description = "; ".join(
        f"the model says {row['said']:.0%}, {row['share']:.0%} are minors, {row['photos']:,} photos"
        for row in rows
    )
    return Chart(
        "Probability of being a minor, and the share of minors",
        f"On the dashed line, the probability is right. {description}.",
        chart,
    )

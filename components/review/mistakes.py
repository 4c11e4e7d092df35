"""The section "Mistakes": the estimates of single photos, the largest errors, suspected labels."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import altair as alt
import numpy as np

from components import predictions
from components.certificate import adult_groups, group_name, hard_minors, within
from components.evaluator import CANDIDATE
from components.intervals import Figure, interval, percent, share
from components.review.charts import COLOURS
from components.review.evaluation import challenge
from components.review.inputs import Inputs
from components.review.page import Block, Chart, Photo, Photos, Section, Table, Text
from components.review.thumbnails import NOTE, OFF, thumbnails
from schemas import features

SUSPECTS_FILE = "suspects.csv"

_STEP = 5  # width of a bin in the charts, years
_YOUNG, _OLD = 25, 55  # years: young is below 25, old is from 55 on
_CLOSE = 2  # years; an error of at most this is very small
_NEIGHBOURS = 101  # number of photos with similar estimates, for the score of an error
_LIMITS = np.geomspace(0.001, 0.5, 60).tolist()  # of the probability of being a minor
_SUSPICIOUS = 3.5  # bound of the modified z-score


class Estimates(NamedTuple):
    """Test photos, in the order of the file."""

    file_names: np.ndarray  # str [N]
    photo_ids: np.ndarray  # str [N]
    ages: np.ndarray  # float [N], years
    estimates: np.ndarray  # float [N], years
    p_minor: np.ndarray  # float [N], 0 to 1: probability of being a minor; NaN if unknown

    @property
    def errors(self) -> np.ndarray:
        """Estimates minus real ages, years [N]."""
        return self.estimates - self.ages

    def of(self, chosen: np.ndarray) -> Estimates:
        """Some of the photos, chosen by a mask or by indices."""
        return Estimates(*(column[chosen] for column in self))


def section(inputs: Inputs) -> Section:
    """Charts of all estimates, their effect at the till, and the photos to look at."""
    return Section("mistakes", "Mistakes", list(_blocks(inputs, estimates(inputs))))


def estimates(inputs: Inputs) -> Estimates:
    """The estimates that the Evaluator wrote: those to which the model does not object."""
    table = predictions.answered(inputs.artifacts["evaluation"].path, CANDIDATE)
    p_minor = predictions.column(CANDIDATE, features.P_MINOR)
    columns = [features.FILE_NAME, features.PHOTO_ID, features.AGE, CANDIDATE, p_minor]
    found = Estimates(*(table[name].to_numpy() for name in columns))
    return found.of(np.isfinite(found.errors))


def suspects_csv(inputs: Inputs) -> str:
    """The suspected labels as a CSV for `goodseed run --exclude`, the most suspicious first.

    File names are not changed, because --exclude has to find the files. A spreadsheet does not read
    them as formulas, because each name starts with the folder of the photos.
    """
    found = estimates(inputs)
    scores = outlier_scores(found.estimates, found.errors)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([features.FILE_NAME, "labelled_age", "estimate", "score", features.PHOTO_ID])
    for at in outliers(scores):
        writer.writerow(
            [found.file_names[at], f"{found.ages[at]:g}", f"{found.estimates[at]:.1f}",
             f"{scores[at]:.1f}", found.photo_ids[at]]
        )  # fmt: skip
    return text.getvalue()


def outlier_scores(estimates: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """The modified z-score of each error among photos with similar estimates.

    It is 0.6745 (error - median) / MAD over the `_NEIGHBOURS` photos with the nearest estimates. An
    error with a score above 3.5 is an outlier (Iglewicz & Hoaglin 1993, How to Detect and Handle
    Outliers). The score is 0 if the MAD is 0.

    Args:
        estimates: years, finite [N].
        errors: years, finite [N].

    Returns:
        Scores [N].
    """
    size = min(_NEIGHBOURS, len(estimates))
    if size < 3:
        return np.zeros(len(estimates))
    order = np.argsort(estimates, kind="stable")
    windows = np.lib.stride_tricks.sliding_window_view(errors[order], size)
    first = np.clip(np.arange(len(estimates)) - size // 2, 0, len(windows) - 1)
    median = np.median(windows, axis=1)
    spread = np.median(np.abs(windows - median[:, None]), axis=1)
    away = 0.6745 * (errors[order] - median[first])
    scores = np.zeros(len(estimates))
    scores[order] = np.divide(away, spread[first], out=np.zeros_like(away), where=spread[first] > 0)
    return scores


def outliers(scores: np.ndarray) -> np.ndarray:
    """Indices of the outliers, the largest score first."""
    order = np.argsort(-np.abs(scores), kind="stable")
    return order[np.abs(scores)[order] > _SUSPICIOUS]


def _blocks(inputs: Inputs, found: Estimates) -> Iterator[Block]:
    if not len(found.ages):
        yield Text(["The evaluation contains no estimates."])
        return
    min_photos = inputs.min_photos
    yield Text([_young_and_old(found, min_photos)])
    yield _scatter(found)
    yield _distribution(found)
    yield _by_age(found, min_photos)
    yield _trade_off(inputs, found)
    yield from _photos(inputs, found)


def _young_and_old(found: Estimates, min_photos: int) -> str:
    young, old = found.of(found.ages < _YOUNG), found.of(found.ages >= _OLD)
    question = "Does the model err more with old people than with young people?"
    if min(len(young.ages), len(old.ages)) < min_photos:
        return (
            f"{question} There are too few photos to say: {len(young.ages):,} of people below "
            f"{_YOUNG} years and {len(old.ages):,} of people from {_OLD} years on."
        )
    below, above = _mae(young), _mae(old)
    if above.low > below.high:
        answer = "Yes, by more than chance."
    elif below.low > above.high:
        answer = "No: it errs more with young people, by more than chance."
    else:
        answer = "The difference may be chance."
    close = int(sum(np.abs(young.errors) <= _CLOSE))
    return (
        f"{question} {answer} Below {_YOUNG} years, the estimate is off by {below:.2f} years on "
        f"average ({len(young.ages):,} photos). From {_OLD} years on, it is off by {above:.2f} "
        f"years ({len(old.ages):,} photos). Of the young people, "
        f"{percent(close, len(young.ages))} get an estimate that is off by at most {_CLOSE} years."
    )


def _mae(found: Estimates) -> Figure:
    errors = np.abs(found.errors.astype(float))
    return interval(float(errors.mean()), float((errors**2).mean()), len(errors))


def _bins(values: np.ndarray) -> np.ndarray:
    return np.floor(values / _STEP).astype(int) * _STEP


def _scatter(found: Estimates) -> Chart:
    places, counts = np.unique(
        np.stack([_bins(found.ages), _bins(found.estimates)], 1), axis=0, return_counts=True
    )
    rows = [
        {"age": int(a), "to_age": int(a) + _STEP, "estimate": int(g), "to_estimate": int(g) + _STEP,
         "photos": int(n)}
        for (a, g), n in zip(places, counts, strict=True)
    ]  # fmt: skip
    top = int(max(_bins(found.ages).max(), _bins(found.estimates).max())) + _STEP
    shade = alt.Opacity("photos:Q", scale=alt.Scale(type="log", range=[0.12, 1]), legend=None)
    squares = (
        alt.Chart(alt.InlineData(rows))
        .mark_rect(fill=COLOURS[0])
        .encode(
            alt.X("age:Q", title="real age, years"), alt.X2("to_age:Q"),
            alt.Y("estimate:Q", title="estimate, years"), alt.Y2("to_estimate:Q"), shade,
        )
    )  # fmt: skip
    line = alt.Chart(alt.InlineData([{"a": 0, "g": 0}, {"a": top, "g": top}]))
    ideal = line.mark_line(strokeDash=[5, 4], color="currentColor").encode(x="a:Q", y="g:Q")
    off = np.abs(found.errors)
    description = (
        f"Each square of {_STEP} by {_STEP} years holds some of the {len(off):,} photos. A darker "
        "square holds more of them. On the dashed line, the estimate is right. Half of the photos "
        f"are within {np.median(off):.1f} years of it, and nine in ten photos are within "
        f"{np.quantile(off, 0.9):.1f} years."
    )
    chart = alt.layer(squares, ideal).properties(width=440, height=440)
    return Chart("Estimate and real age", description, chart)


def _distribution(found: Estimates) -> Chart:
    edges, counts = np.unique(np.floor(found.errors / 2).astype(int) * 2, return_counts=True)
    rows = [
        {"error": int(e), "to": int(e) + 2, "photos": int(n)}
        for e, n in zip(edges, counts, strict=True)
    ]
    low, middle, high = np.quantile(found.errors, [0.05, 0.5, 0.95])
    chart = (
        alt.Chart(alt.InlineData(rows))
        .mark_rect(fill=COLOURS[0])
        .encode(
            alt.X("error:Q", title="estimate minus real age, years"), alt.X2("to:Q"),
            alt.Y("photos:Q", title="photos"), alt.Y2Datum(0),
        )
        .properties(height=200)
    )  # fmt: skip
    description = (
        f"Half of the errors are below {middle:+.1f} years. Nine in ten are between {low:+.1f} and "
        f"{high:+.1f} years."
    )
    return Chart("Distribution of the errors", description, chart)


def _by_age(found: Estimates, min_photos: int) -> Block:
    rows = []
    bins = _bins(found.ages)
    for age in np.unique(bins):
        errors = found.errors[bins == age]
        if len(errors) >= min_photos:
            low, middle, high = map(float, np.quantile(errors, [0.1, 0.5, 0.9]))
            rows.append({"age": int(age), "to": int(age) + _STEP, "low": low, "middle": middle,
                         "high": high, "photos": len(errors)})  # fmt: skip
    if not rows:
        missing = f"no group of {_STEP} years has {min_photos} photos"
        return Text([f"There is no chart of the error by age, because {missing}."])
    base = alt.Chart(alt.InlineData(rows))
    x, x2 = alt.X("age:Q", title="real age, years"), alt.X2("to:Q")
    chart = alt.layer(
        base.mark_rect(fill=COLOURS[0], opacity=0.35).encode(
            x, x2, alt.Y("low:Q", title="estimate minus real age, years"), alt.Y2("high:Q")
        ),
        base.mark_rule(strokeWidth=2.5).encode(x, x2, alt.Y("middle:Q")),
        alt.Chart(alt.InlineData([{"zero": 0}])).mark_rule(strokeDash=[4, 3]).encode(y="zero:Q"),
    ).properties(height=260)
    description = "; ".join(
        f"{row['age']} to {row['to']} years: {row['middle']:+.1f} ({row['low']:+.1f} to "
        f"{row['high']:+.1f}), {row['photos']:,} photos"
        for row in rows
    )
    return Chart(
        "Error by age: the median, and the range of eight in ten photos",
        f"{description}. Ages with fewer than {min_photos} photos are left out.",
        chart,
    )


def _trade_off(inputs: Inputs, found: Estimates) -> Chart:
    """Which share of each group is asked for ID, for each limit that the proof may give."""
    policy, own = inputs.settings["policy"], challenge(inputs)
    old_enough = found.estimates >= policy["min_challenge_age"]
    groups = _groups(found.ages, policy["legal_age"])

    def asked(group: np.ndarray, limit: float) -> Figure:
        passes = group & old_enough & (found.p_minor <= limit)
        return share(int(group.sum() - passes.sum()), int(group.sum()))

    rows = [
        {"group": name, "limit": limit, "asked": one.value, "low": one.low, "high": one.high}
        for name, group in groups.items()
        for limit in _LIMITS
        for one in [asked(group, limit)]
    ]
    title = "largest probability of being a minor with which a customer passes"
    x = alt.X("limit:Q", title=title, scale=alt.Scale(type="log"), axis=alt.Axis(format="~%"))
    base = alt.Chart(alt.InlineData(rows)).encode(x)
    axis, scale = alt.Axis(format="%"), alt.Scale(domain=list(groups))
    colour = alt.Color("group:N", scale=scale, legend=alt.Legend(title="real age", symbolOpacity=1))
    limit = own["max_p_minor"]
    chart = alt.layer(
        base.mark_line().encode(
            alt.Y("asked:Q", title="share that is asked for ID", axis=axis),
            colour,
            alt.StrokeDash("group:N", title="real age", scale=scale),
        ),
        base.mark_area(opacity=0.15).encode(alt.Y("low:Q"), alt.Y2("high:Q"), colour),
        alt.Chart(alt.InlineData([{"own": limit}] if limit else [])).mark_rule().encode(x="own:Q"),
    )
    at = _LIMITS[-1] if limit is None else limit
    shares = "; ".join(f"{name}: {asked(group, at):.1%}" for name, group in groups.items())
    line = "The vertical line is the model's limit." if limit else "The model has no limit."
    return Chart(
        "Who is asked for ID, by the limit of the probability, with 95 % intervals",
        f"Who looks younger than {policy['min_challenge_age']:g} is always asked. At a limit of "
        f"{at:.2%}, by real age: {shares}. {line}",
        chart,
    )


def _groups(ages: np.ndarray, legal_age: int) -> dict[str, np.ndarray]:
    """The hardest minors and the groups of adults, bool [N], by the group's name."""
    groups = {
        group_name(youngest, oldest): within(ages, youngest, oldest)
        for youngest, oldest in [hard_minors(legal_age), *adult_groups(legal_age)]
    }
    return {name: group for name, group in groups.items() if group.any()}


def _photos(inputs: Inputs, found: Estimates) -> Iterator[Block]:
    settings = inputs.settings["review"]
    suspects = outliers(outlier_scores(found.estimates, found.errors))
    worst = np.argsort(-np.abs(found.errors), kind="stable")[: settings["photos"]]
    groups = {"The largest errors": found.of(worst)}
    if len(suspects):
        groups["The most suspicious labels"] = found.of(suspects[: settings["photos"]])
    yield Text([_about(len(suspects))])
    if not settings["thumbnails"]:
        yield Text([OFF])
        yield from (_listed(caption, some) for caption, some in groups.items())
        return
    yield Text([NOTE])
    photo_ids = frozenset(photo_id for some in groups.values() for photo_id in some.photo_ids)
    jpegs = thumbnails(inputs.artifacts["examples"].path, photo_ids)
    yield from (_shown(caption, some, jpegs) for caption, some in groups.items())


def _about(suspects: int) -> str:
    if not suspects:
        return "No label is suspicious."
    return (
        f"Suspicious labels: {suspects:,}. Their errors are far from the errors of other photos "
        "with similar estimates. This is only a suspicion: the model may be wrong instead. Look at "
        f"each photo. Delete the rows whose label is right from {SUSPECTS_FILE}. Then run again "
        f"with --exclude {SUSPECTS_FILE}. Do not leave out photos because they are hard for the "
        "model: the MAE would look better than it is."
    )


def _listed(caption: str, some: Estimates) -> Table:
    rows = [
        [name, float(age), float(estimate), float(estimate - age)]
        for name, _, age, estimate, _ in zip(*some, strict=True)
    ]
    return Table(caption, ["file", "labelled age", "estimate", "error, years"], rows)


def _shown(caption: str, some: Estimates, jpegs: Mapping[str, bytes]) -> Photos:
    return Photos(
        caption,
        [
            Photo(
                jpegs[photo_id],
                f"Photo of a person. Labelled age: {age:.4g}. Estimate: {estimate:.0f}.",
                [
                    name,
                    f"labelled age {age:.4g}",
                    f"estimate {estimate:.0f} ({estimate - age:+.0f})",
                ],
            )
            for name, photo_id, age, estimate, _ in zip(*some, strict=True)
            if photo_id in jpegs
        ],
    )

"""The section "Where it errs": the estimates of single photos, the worst, and suspected labels."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import altair as alt
import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf
from goodseed_client.policy import Policy
from PIL import Image
from scipy.stats import binomtest

from components import predictions
from components.evaluator import CANDIDATE
from components.review.charts import COLOURS
from components.review.evaluation import Figure, interval
from components.review.inputs import Inputs
from components.review.page import Block, Chart, Photo, Photos, Row, Section, Table, Text
from schemas import features

SUSPECTS_FILE = "suspects.csv"

_STEP = 5  # years in a bin of the charts
_YOUNG, _OLD = 25, 55  # years: below the one is young, from the other on old
_CLOSE = 2  # years; an estimate that is not off by more is almost perfect
_NEIGHBOURS = 101  # photos of like estimates that an error is seen among
_SUSPICIOUS = 3.5  # of the modified z-score
_SIDE = 96  # pixels of a thumbnail


class Estimates(NamedTuple):
    """Test photos, in the order of the file."""

    file_names: np.ndarray  # str [N]
    photo_ids: np.ndarray  # str [N]
    ages: np.ndarray  # float [N], years
    given: np.ndarray  # float [N], years; NaN where the model could not read the photo

    @property
    def errors(self) -> np.ndarray:
        """Estimate less real age, years."""
        return self.given - self.ages

    def of(self, chosen: np.ndarray) -> Estimates:
        """Some of them: a mask or places."""
        return Estimates(*(column[chosen] for column in self))


def section(inputs: Inputs) -> Section:
    """Charts of all estimates, what they mean at the till, and the photos to look at."""
    every = estimates(inputs)
    known = np.isfinite(every.errors)
    return Section("mistakes", "Where it errs", list(_blocks(inputs, every.of(known), sum(~known))))


def estimates(inputs: Inputs) -> Estimates:
    """What the Evaluator wrote down."""
    file = inputs.artifacts["evaluation"].path / predictions.FILE
    columns = [features.FILE_NAME, features.PHOTO_ID, features.AGE, CANDIDATE]
    table = pq.read_table(file, columns=columns)
    return Estimates(*(table[name].to_numpy() for name in columns))


def suspects_csv(inputs: Inputs) -> str:
    """The suspected labels as a CSV that `goodseed run --exclude` takes, the likeliest first.

    Names of files stay as they are, for --exclude to find them. A spreadsheet takes none for a
    formula: each starts with the folder of its layout.
    """
    every = estimates(inputs)
    found = every.of(np.isfinite(every.errors))
    scores = scored(found.given, found.errors)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([features.FILE_NAME, "labelled_age", "estimate", "score", features.PHOTO_ID])
    for place in suspected(scores):
        one = found.of(np.array([place]))
        writer.writerow(
            [one.file_names[0], f"{one.ages[0]:g}", f"{one.given[0]:.1f}", f"{scores[place]:.1f}",
             one.photo_ids[0]]
        )  # fmt: skip
    return text.getvalue()


def scored(given: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """How far each error is from those of photos with like estimates: the modified z-score.

    0.6745 (error - median) / MAD, over the `_NEIGHBOURS` photos whose estimates are next; above 3.5
    is an outlier (Iglewicz & Hoaglin 1993, How to Detect and Handle Outliers). 0 where the errors
    do not differ.

    Args:
        given: estimates, years, finite [N].
        errors: years, finite [N].
    """
    size = min(_NEIGHBOURS, len(given))
    if size < 3:
        return np.zeros(len(given))
    order = np.argsort(given, kind="stable")
    windows = np.lib.stride_tricks.sliding_window_view(errors[order], size)
    first = np.clip(np.arange(len(given)) - size // 2, 0, len(windows) - 1)
    median = np.median(windows, axis=1)
    spread = np.median(np.abs(windows - median[:, None]), axis=1)
    away = 0.6745 * (errors[order] - median[first])
    scores = np.zeros(len(given))
    scores[order] = np.divide(away, spread[first], out=np.zeros_like(away), where=spread[first] > 0)
    return scores


def suspected(scores: np.ndarray) -> np.ndarray:
    """Places of the outliers, the furthest first."""
    order = np.argsort(-np.abs(scores), kind="stable")
    return order[np.abs(scores)[order] > _SUSPICIOUS]


def _blocks(inputs: Inputs, found: Estimates, unread: int) -> Iterator[Block]:
    if unread:
        yield Text([f"{unread:,} photos, which the model could not read, are left out below."])
    if not len(found.ages):
        yield Text(["The evaluation holds no estimates."])
        return
    few = int(inputs.settings["review"]["min_photos"])
    yield Text([_young_and_old(found, few)])
    yield _scatter(found)
    yield _distribution(found)
    yield _by_age(found, few)
    yield _at_the_till(found)
    yield from _photos(inputs, found)


def _young_and_old(found: Estimates, few: int) -> str:
    young, old = found.of(found.ages < _YOUNG), found.of(found.ages >= _OLD)
    asked = "Many mistakes with the elderly, almost perfect with the young? "
    if min(len(young.ages), len(old.ages)) < few:
        return f"{asked}Too few photos to say: {len(young.ages):,} below {_YOUNG} years and " \
            f"{len(old.ages):,} from {_OLD} on."  # fmt: skip
    below, above = _mae(young), _mae(old)
    figures = (
        f"Below {_YOUNG} years the estimate is off by {below:.2f} years on average "
        f"({len(young.ages):,} photos), from {_OLD} on by {above:.2f} ({len(old.ages):,} photos)."
    )
    if above.low > below.high:
        answer = "The elderly: true here, by more than chance."
    elif below.low > above.high:
        answer = "The elderly: the other way round here, by more than chance."
    else:
        answer = "The elderly: it can't be told apart from chance here."
    close = np.abs(young.errors) <= _CLOSE
    share = _share(close, np.full_like(close, True))
    return f"{asked}{figures} {answer} The young: within {_CLOSE} years are {share} of them."


def _mae(found: Estimates) -> Figure:
    errors = np.abs(found.errors.astype(float))
    return interval(float(errors.mean()), float((errors**2).mean()), len(errors))


def _bins(values: np.ndarray) -> np.ndarray:
    return np.floor(values / _STEP).astype(int) * _STEP


def _scatter(found: Estimates) -> Chart:
    places, counts = np.unique(
        np.stack([_bins(found.ages), _bins(found.given)], 1), axis=0, return_counts=True
    )
    rows = [
        {"age": int(a), "to_age": int(a) + _STEP, "given": int(g), "to_given": int(g) + _STEP,
         "photos": int(n)}
        for (a, g), n in zip(places, counts, strict=True)
    ]  # fmt: skip
    top = int(max(_bins(found.ages).max(), _bins(found.given).max())) + _STEP
    shade = alt.Opacity("photos:Q", scale=alt.Scale(type="log", range=[0.12, 1]), legend=None)
    squares = (
        alt.Chart(alt.InlineData(rows))
        .mark_rect(fill=COLOURS[0])
        .encode(
            alt.X("age:Q", title="real age, years"), alt.X2("to_age:Q"),
            alt.Y("given:Q", title="estimate, years"), alt.Y2("to_given:Q"), shade,
        )
    )  # fmt: skip
    line = alt.Chart(alt.InlineData([{"a": 0, "g": 0}, {"a": top, "g": top}]))
    ideal = line.mark_line(strokeDash=[5, 4], color="currentColor").encode(x="a:Q", y="g:Q")
    off = np.abs(found.errors)
    told = (
        f"{len(off):,} photos in squares of {_STEP} by {_STEP} years, the darker the more photos. "
        f"On the dashed line the estimate is right. Half of the photos are within "
        f"{np.median(off):.1f} years of it, nine in ten within {np.quantile(off, 0.9):.1f}."
    )
    chart = alt.layer(squares, ideal).properties(width=440, height=440)
    return Chart("Estimate against real age", told, chart)


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
            alt.X("error:Q", title="estimate less real age, years"), alt.X2("to:Q"),
            alt.Y("photos:Q", title="photos"), alt.Y2Datum(0),
        )
        .properties(height=200)
    )  # fmt: skip
    told = (
        f"Half of the errors are below {middle:+.1f} years; nine in ten are between {low:+.1f} and "
        f"{high:+.1f}."
    )
    return Chart("How the errors are spread", told, chart)


def _by_age(found: Estimates, few: int) -> Block:
    rows = []
    bins = _bins(found.ages)
    for age in np.unique(bins):
        errors = found.errors[bins == age]
        if len(errors) >= few:
            low, middle, high = map(float, np.quantile(errors, [0.1, 0.5, 0.9]))
            rows.append({"age": int(age), "to": int(age) + _STEP, "low": low, "middle": middle,
                         "high": high, "photos": len(errors)})  # fmt: skip
    if not rows:
        return Text([f"Error by age: no {_STEP} years have {few} photos: too few to say."])
    base = alt.Chart(alt.InlineData(rows))
    x, x2 = alt.X("age:Q", title="real age, years"), alt.X2("to:Q")
    chart = alt.layer(
        base.mark_rect(fill=COLOURS[0], opacity=0.35).encode(
            x, x2, alt.Y("low:Q", title="estimate less real age, years"), alt.Y2("high:Q")
        ),
        base.mark_rule(strokeWidth=2.5).encode(x, x2, alt.Y("middle:Q")),
        alt.Chart(alt.InlineData([{"zero": 0}])).mark_rule(strokeDash=[4, 3]).encode(y="zero:Q"),
    ).properties(height=260)
    told = "; ".join(
        f"{row['age']} to {row['to']} years: {row['middle']:+.1f} ({row['low']:+.1f} to "
        f"{row['high']:+.1f}), {row['photos']:,} photos"
        for row in rows
    )
    return Chart(
        "Error by age: the middle one and the range of eight photos in ten",
        f"{told}. Ages with fewer than {few} photos are left out.",
        chart,
    )


def _at_the_till(found: Estimates) -> Table:
    """What the default policy would make of these estimates."""
    policy = Policy.load()
    old_enough = found.given >= policy.challenge_age
    minors, adults = found.ages < policy.legal_age, found.ages >= policy.challenge_age
    between = ~minors & ~adults
    groups = (
        (f"below {policy.legal_age}: would not be asked for ID", minors, old_enough),
        (
            f"{policy.legal_age} to {policy.challenge_age - 1}: would not be asked for ID",
            between,
            old_enough,
        ),
        (f"{policy.challenge_age} and older: would be asked for ID", adults, ~old_enough),
    )
    rows: list[Row] = [
        [name, int(sum(group & happens)), int(sum(group)), _share(group & happens, group)]
        for name, group, happens in groups
    ]
    caption = (
        f"At a till that asks whoever is estimated below {policy.challenge_age} for ID, if the "
        "estimate were all there is"
    )
    return Table(caption, ["real age, years", "photos", "of", "share (95 % interval)"], rows)


def _share(happens: np.ndarray, group: np.ndarray) -> str:
    """A share with Wilson's interval (1927, J. Am. Stat. Assoc. 22, 209-212)."""
    count, photos = int(sum(happens)), int(sum(group))
    if not photos:
        return "no photos"
    bounds = binomtest(count, photos).proportion_ci(0.95, "wilson")
    return f"{count / photos:.1%} ({bounds.low:.1%} to {bounds.high:.1%})"


def _photos(inputs: Inputs, found: Estimates) -> Iterator[Block]:
    settings = inputs.settings["review"]
    scores = scored(found.given, found.errors)
    outliers = suspected(scores)
    worst = np.argsort(-np.abs(found.errors), kind="stable")[: settings["photos"]]
    likeliest = outliers[: settings["photos"]]
    about = (
        f"{len(outliers):,} labels are suspected to be wrong: the error is far from those of "
        "photos with like estimates. That is a suspicion and no more: the model may be what is "
        f"wrong. Look at each photo, delete from {SUSPECTS_FILE} the rows whose label is right, "
        f"and run again with --exclude {SUSPECTS_FILE}. To leave out what the model merely finds "
        "hard would make the MAE look better than it is."
    )
    yield Text([about])
    if not settings["thumbnails"]:
        yield Text(["Thumbnails are switched off (review.thumbnails)."])
        yield _listed("The worst mistakes", found.of(worst))
        if len(likeliest):
            yield _listed("The likeliest wrong labels", found.of(likeliest))
        return
    yield Text(
        ["The thumbnails below are the only photos of the examples on this page. They show people: "
         "keep the page where the photos may be kept."]
    )  # fmt: skip
    chosen = found.of(np.union1d(worst, likeliest).astype(int))
    jpegs = thumbnails(inputs.artifacts["examples"].path, frozenset(chosen.photo_ids))
    yield _shown("The worst mistakes", found.of(worst), jpegs)
    if len(likeliest):
        yield _shown("The likeliest wrong labels", found.of(likeliest), jpegs)


def _listed(caption: str, some: Estimates) -> Table:
    rows = [
        [name, float(age), float(given), float(given - age)]
        for name, _, age, given in zip(*some, strict=True)
    ]
    return Table(caption, ["file", "labelled age", "estimate", "error, years"], rows)


def _shown(caption: str, some: Estimates, jpegs: Mapping[str, bytes]) -> Photos:
    return Photos(
        caption,
        [
            Photo(
                jpegs[photo_id],
                f"A person whose labelled age is {age:.4g} and whose estimate is {given:.0f}",
                [name, f"labelled {age:.4g} years", f"estimate {given:.0f} ({given - age:+.0f})"],
            )
            for name, photo_id, age, given in zip(*some, strict=True)
            if photo_id in jpegs
        ],
    )


def thumbnails(examples: Path, photo_ids: frozenset[str]) -> dict[str, bytes]:
    """Small JPEGs of photos of the test split, by photo_id, in one pass over its examples."""
    wanted, found = {name.encode() for name in photo_ids}, {}
    files = sorted(map(str, (examples / f"Split-{features.TEST}").glob("*.gz")))
    for record in tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator() if wanted else ():
        values = tf.train.Example.FromString(record).features.feature
        photo_id = values[features.PHOTO_ID].bytes_list.value[0]
        if photo_id in wanted:
            found[photo_id.decode()] = _small(values[features.IMAGE].bytes_list.value[0])
    return found


def _small(jpeg: bytes) -> bytes:
    with Image.open(io.BytesIO(jpeg)) as image:
        image.thumbnail((_SIDE, _SIDE))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=80)
    return file.getvalue()

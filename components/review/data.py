"""The section "Data": the photos' statistics, a reference population, rejects, anomalies and drift.

TFDV and TFMA computed the figures. Their own loaders read them here.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist

import altair as alt
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.utils.anomalies_util import load_anomalies_binary
from tensorflow_data_validation.utils.stats_util import DatasetListView, DatasetView
from tensorflow_metadata.proto.v0.anomalies_pb2 import DriftSkewInfo
from tensorflow_metadata.proto.v0.statistics_pb2 import (
    DatasetFeatureStatisticsList,
    Histogram,
    NumericStatistics,
)

from components.evaluator import COUNT
from components.gate import MAE
from components.intervals import share
from components.photo_example_gen.component import REJECTS_FILE
from components.photo_example_gen.rejects import Reason
from components.review import population
from components.review.evaluation import MSE, OVERALL, Metrics, Slice, figures
from components.review.inputs import Inputs
from components.review.page import Block, Cell, Chart, Row, Section, Table, Text
from components.review.population import Population
from schemas import features

_Z = NormalDist().inv_cdf(0.975)  # half the width of a 95 % interval, in standard errors
_DUPLICATES = {Reason.DUPLICATE_ROW, Reason.DUPLICATE_PICTURE}  # another row of the picture stays
_EXAMPLES = 3  # examples of rejects for each reason

# The numeric features: their titles and number formats.
_MEASURES = {
    features.AGE: ("Age, years", ".0f"),
    features.WIDTH: ("Width, pixels", ",.0f"),
    features.HEIGHT: ("Height, pixels", ",.0f"),
    features.SQUARENESS: ("Squareness (shorter ÷ longer side)", ".2f"),
    features.BRIGHTNESS: ("Brightness (0 black, 1 white)", ".2f"),
    features.SHARPNESS: ("Sharpness (the higher, the sharper)", ",.0f"),
}

Splits = Mapping[str, DatasetView]  # TFDV's statistics of all photos, by split


def section(inputs: Inputs) -> Section:
    """Age bands, values and measures of the photos, rejects, anomalies and drift.

    Raises:
        UserError: the table of the reference population is wrong.
    """
    photos = by_split(inputs)
    blocks: list[Block] = [
        _summary(photos),
        *_ages(photos, population.read(inputs.settings["review"]["population"])),
        *_missing(photos, inputs),
        _values(photos),
        *_measures(photos),
        *_rejects(inputs),
        *_anomalies(inputs),
        *_drift(inputs),
    ]
    return Section("data", "Data", blocks)


def statistics(inputs: Inputs, split: str) -> DatasetListView:
    """StatisticsGen's statistics of a split: of all its photos, and of slices of them."""
    file = inputs.artifacts["statistics"].path / f"Split-{split}" / "FeatureStats.pb"
    return DatasetListView(tfdv.load_stats_binary(str(file)))


def by_split(inputs: Inputs) -> Splits:
    """TFDV's statistics of all photos of each split."""
    return {
        split: statistics(inputs, split).get_default_slice_or_die() for split in features.SPLITS
    }


def size(photos: DatasetView) -> int:
    """The number of photos."""
    return int(photos.proto().num_examples)


def counts(photos: DatasetView, feature: str) -> dict[str, int]:
    """The number of photos for each value of a string feature, the most frequent value first."""
    found = photos.get_feature(feature)
    values = found.string_statistics() if found else None
    return {top.value: round(top.frequency) for top in values.top_values} if values else {}


def photos_needed(deviation: float, width: float) -> int:
    """The number of photos for which the 95 % interval of a mean is at most `width` wide.

    n = (z s / d)², where d is half the width (Cochran 1977, Sampling Techniques, 3rd ed., section
    4.6).

    Args:
        deviation: standard deviation of the averaged values, s.
        width: from the lower to the upper end of the interval, in the same unit.
    """
    return max(1, math.ceil((_Z * deviation / (width / 2)) ** 2))


def _summary(splits: Splits) -> Text:
    sizes = ", ".join(f"{size(photos):,} in {split}" for split, photos in splits.items())
    return Text(
        [
            f"There are {_total(splits):,} photos: {sizes}. The network learns from train. The "
            "split eval decides when the training stops. All figures about errors come from test, "
            "which the training never sees. TensorFlow Data Validation (TFDV) made the counts in "
            "this section.",
        ]
    )


def _total(splits: Splits) -> int:
    return sum(map(size, splits.values()))


def under_represented(splits: Splits, reference: Population) -> list[str]:
    """Age bands whose share of the photos is below their share of the population.

    A band is in the list only if the whole 95 % interval of its share is below (Wilson 1927,
    Journal of the American Statistical Association 22, 209-212).
    """
    photos = _total(splits)
    return [
        band
        for band, expected in reference.shares.items()
        if photos and share(_in_band(splits, band), photos).high < expected
    ]


def _in_band(splits: Splits, band: str) -> int:
    return sum(counts(photos, features.AGE_BAND).get(band, 0) for photos in splits.values())


def _ages(splits: Splits, reference: Population) -> Iterator[Block]:
    too_few = under_represented(splits, reference)
    found = {split: counts(photos, features.AGE_BAND) for split, photos in splits.items()}
    yield Text(
        [
            f"The ages are compared with a reference population: {reference.source}",
            f"Under-represented age bands: {', '.join(too_few) or 'none'}. An age band is "
            "under-represented if the whole 95 % interval of its share of the photos is below its "
            "share of the population.",
        ]
    )
    shares = {
        split: {band: found[split].get(band, 0) / max(size(photos), 1) for band in reference.shares}
        for split, photos in splits.items()
    }
    yield _age_chart({**shares, "population": reference.shares})
    rows: list[Row] = [
        [
            band,
            *(found[split].get(band, 0) for split in splits),
            _percent(_in_band(splits, band) / max(_total(splits), 1)),
            _percent(share),
            Cell("under-represented", mark="bad") if band in too_few else "enough",
        ]
        for band, share in reference.shares.items()
    ]
    columns = ["age band", *splits, "share of all photos", "share of the population", "verdict"]
    yield Table("Photos by age band, and the reference population", columns, rows)


def _missing(splits: Splits, inputs: Inputs) -> Iterator[Block]:
    """For each age band, the number of photos that are missing for a narrow interval of its MAE."""
    found, min_photos = figures(inputs), inputs.min_photos
    width = inputs.settings["review"]["interval_width"]
    share = size(splits[features.TEST]) / max(_total(splits), 1)
    bands = {band: found.get(((features.AGE_BAND, band),), {}) for band in features.AGE_BANDS}
    rows = [
        _missing_row(band, metrics, _deviation(found, metrics, min_photos), width, share)
        for band, metrics in bands.items()
    ]
    yield Text(
        [
            "Each age band needs enough test photos: the 95 % interval of its MAE should be at "
            f"most {width:g} years wide. The number of photos needed is n = (1.96 s / d)². Here, s "
            "is the standard deviation of the absolute errors in the band, and d is half the width "
            "(Cochran 1977, Sampling Techniques, section 4.6). For a band with fewer than "
            f"{min_photos} photos, s is that of the whole test split. Only {share:.0%} of the "
            "photos go to test, so more photos are missing over all splits than in test.",
        ]
    )
    columns = [
        "age band", "test photos", "MAE, years", "s, years", "test photos needed",
        "missing in test", "missing in all splits",
    ]  # fmt: skip
    yield Table("Missing photos of each age band", columns, rows)


def _missing_row(band: str, metrics: Metrics, deviation: float, width: float, share: float) -> Row:
    count = round(metrics[COUNT].value) if metrics else 0
    needed = photos_needed(deviation, width)
    missing = max(0, needed - count)
    return [
        band,
        count,
        f"{metrics[MAE]:.2f}" if metrics else "no photos",
        deviation,
        needed,
        Cell(f"{missing:,}", missing, "few" if missing else "good"),
        math.ceil(missing / share) if share else missing,
    ]


def _deviation(found: Mapping[Slice, Metrics], metrics: Metrics, min_photos: int) -> float:
    """Standard deviation of the absolute errors, from TFMA's MAE, mean squared error and count."""
    if not metrics or metrics[COUNT].value < min_photos:
        metrics = found[OVERALL]
    count = metrics[COUNT].value
    variance = metrics[MSE].value - metrics[MAE].value ** 2
    return math.sqrt(max(variance, 0.0) * count / max(count - 1, 1))


def _age_chart(shares: Mapping[str, Mapping[str, float]]) -> Chart:
    rows = [
        {"band": band, "of": of, "share": share}
        for of, bands in shares.items()
        for band, share in bands.items()
    ]
    spec = (
        alt.Chart(alt.InlineData(rows))
        .mark_bar()
        .encode(
            alt.X(
                "band:N",
                title="age band, years",
                sort=list(features.AGE_BANDS),
                axis=alt.Axis(labelAngle=0),
            ),
            alt.XOffset("of:N", sort=list(shares)),
            alt.Y("share:Q", title="share", axis=alt.Axis(format="%")),
            alt.Color("of:N", title=None, sort=list(shares)),
        )
    )
    description = "; ".join(
        f"{of}: " + ", ".join(f"{band} {share:.1%}" for band, share in bands.items())
        for of, bands in shares.items()
    )
    title = "Ages of the photos and of the population"
    return Chart(title, f"Shares by age band. {description}.", spec)


def _percent(share: float) -> Cell:
    return Cell(f"{share:.1%}", share)


def _values(splits: Splits) -> Table:
    """The values of formats, colour modes and extra columns, each with its number of photos."""
    left_out = {features.FILE_NAME, features.PHOTO_ID, features.AGE_BAND}
    names = {
        str(path): None
        for photos in splits.values()
        for path in photos.list_features()
        if photos.get_feature(path).string_statistics() and str(path) not in left_out
    }
    first = [name for name in (features.FORMAT, features.MODE) if name in names]
    ordered = dict.fromkeys([*first, *sorted(names)])
    rows = [row for name in ordered for row in _value_rows(name, splits)]
    return Table(
        "Formats, colour modes and extra columns of the CSV: number of photos with each value",
        ["column", "value", *splits],
        rows,
        interactive=True,
        filters=["column"],
    )


def _value_rows(name: str, splits: Splits) -> Iterator[Row]:
    found = {split: counts(photos, name) for split, photos in splits.items()}
    values = dict.fromkeys(value for values in found.values() for value in values)
    rest = {split: size(splits[split]) - sum(found[split].values()) for split in splits}
    for value in values:
        yield [name, value, *(_count(found[s].get(value, 0), splits[s]) for s in splits)]
    if any(rest.values()):
        yield [name, "(no value or a rare value)", *(_count(rest[s], splits[s]) for s in splits)]


def _count(count: int, photos: DatasetView) -> Cell:
    return Cell(f"{count:,} ({count / max(size(photos), 1):.1%})", count)


def _measures(splits: Splits) -> Iterator[Block]:
    rows = []
    for name, (title, form) in _MEASURES.items():
        found = {split: _numbers(photos, name) for split, photos in splits.items()}
        numbers = {split: values for split, values in found.items() if values is not None}
        rows += [_measure_row(title, form, split, values) for split, values in numbers.items()]
        if any(values.max > values.min for values in numbers.values()):
            yield _measure_chart(title, form, numbers)
    columns = [
        "measure", "split", "smallest", "10 % are below", "median", "10 % are above", "largest",
    ]  # fmt: skip
    yield Table("Sizes, squareness, brightness and sharpness", columns, rows, interactive=True)


def _numbers(photos: DatasetView, feature: str) -> NumericStatistics | None:
    found = photos.get_feature(feature)
    numbers = found.numeric_statistics() if found else None
    return numbers if numbers is not None and numbers.common_stats.num_non_missing else None


def _buckets(numbers: NumericStatistics, kind: int) -> Sequence[Histogram.Bucket]:
    return next((list(h.buckets) for h in numbers.histograms if h.type == kind), [])


def _tenths(numbers: NumericStatistics) -> tuple[float, float, float]:
    """The 10th percentile, the median and the 90th percentile."""
    buckets = _buckets(numbers, Histogram.QUANTILES)
    tenth = len(buckets) // 10
    return buckets[tenth - 1].high_value, numbers.median, buckets[-tenth].low_value


def _measure_row(title: str, form: str, split: str, numbers: NumericStatistics) -> Row:
    values = [numbers.min, *_tenths(numbers), numbers.max]
    return [title, split, *(Cell(format(value, form), value) for value in values)]


def _measure_chart(title: str, form: str, numbers: Mapping[str, NumericStatistics]) -> Chart:
    rows = [
        {"split": split, "value": edge, "share": share}
        for split, values in numbers.items()
        for edge, share in _outline(values)
    ]
    spec = (
        alt.Chart(alt.InlineData(rows))
        .mark_line(interpolate="step-after")
        .encode(
            alt.X("value:Q", title=title),
            alt.Y("share:Q", title="frequency", axis=alt.Axis(labels=False, ticks=False)),
            alt.Color("split:N", title="split", scale=alt.Scale(domain=list(numbers))),
            alt.StrokeDash("split:N", title="split", scale=alt.Scale(domain=list(numbers))),
        )
    )
    description = "; ".join(
        "{}: 10 % of the photos are below {}, 50 % are below {}, 10 % are above {}".format(
            split, *(format(value, form) for value in _tenths(values))
        )
        for split, values in numbers.items()
    )
    return Chart(title, f"Distribution of the photos. {description}.", spec)


def _outline(numbers: NumericStatistics) -> Iterator[tuple[float, float]]:
    """The steps of the histogram: the start of each, and its share of photos per unit of width."""
    photos = numbers.common_stats.num_non_missing
    density = 0.0
    for bucket in _buckets(numbers, Histogram.STANDARD):
        if bucket.high_value > bucket.low_value:
            density = bucket.sample_count / photos / (bucket.high_value - bucket.low_value)
            yield bucket.low_value, density
    yield numbers.max, density


def _rejects(inputs: Inputs) -> Iterator[Block]:
    file = inputs.artifacts["examples"].path / REJECTS_FILE
    with file.open(encoding="utf-8", newline="") as lines:
        by_reason = defaultdict(list)
        for reject in csv.DictReader(lines):
            by_reason[reject["reason"]].append(reject)
    if not by_reason:
        yield Text(["No row of the CSV was rejected."])
        return
    rows: list[Row] = [
        [
            reason + (" (one copy is kept)" if reason in _DUPLICATES else ""),
            len(found),
            "; ".join(map(_reject, found[:_EXAMPLES])),
        ]
        for reason, found in sorted(by_reason.items(), key=lambda item: -len(item[1]))
    ]
    yield Table("Rejected rows of the CSV", ["reason", "rows", "examples"], rows)


def _reject(reject: Mapping[str, str]) -> str:
    detail = f" ({reject['detail'][:80]})" if reject["detail"] else ""
    return f"{reject['csv']} row {reject['row']}: {reject['file_name'][:80]}{detail}"


def _anomalies(inputs: Inputs) -> Iterator[Block]:
    rows: list[list[str]] = []
    for split in features.SPLITS:
        file = inputs.artifacts["anomalies"].path / f"Split-{split}" / "SchemaDiff.pb"
        anomalies = load_anomalies_binary(str(file))
        found: dict[str, str] = {
            name: info.description for name, info in sorted(anomalies.anomaly_info.items())
        }
        if anomalies.HasField("dataset_anomaly_info"):
            found["(the split)"] = anomalies.dataset_anomaly_info.description
        rows += [[split, name, description] for name, description in found.items()]
    if rows:
        yield Table("Anomalies", ["split", "feature", "problem"], rows)
    else:
        yield Text(["There are no anomalies: each split follows the curated schema."])


def _drift(inputs: Inputs) -> Iterator[Block]:
    """TFDV's measures of the difference between the newest span and the span before it."""
    spans = _spans(statistics(inputs, features.TRAIN))
    if len(spans) < 2:
        yield Text(["There is no drift to measure, because all photos are of one span."])
        return
    (old, before), (new, now) = spans[-2:]
    schema = tfdv.load_schema_text(str(inputs.artifacts["schema"].path / "schema.pbtxt"))
    found = tfdv.validate_statistics(_alone(now), schema, previous_statistics=_alone(before))
    enough = min(size(before), size(now)) >= inputs.min_photos
    yield Text(
        [
            f"Drift compares the photos of span {new} ({size(now):,} in train) with those of span "
            f"{old} ({size(before):,}). For columns with text, the measure is the largest change "
            "of a value's share (L-infinity). For numbers, it is the Jensen-Shannon divergence: 0 "
            "if both spans are alike, 1 if they have nothing in common. The curated schema sets "
            "the bounds. A difference up to the bound may be chance.",
        ]
    )
    rows = [_drift_row(info, enough) for info in found.drift_skew_info]
    columns = ["feature", "measure", "value", "bound", "verdict"]
    yield Table("Drift since the span before", columns, rows)


def _spans(every: DatasetListView) -> list[tuple[int, DatasetView]]:
    """The numbers and the statistics of the spans, the newest last."""
    prefix = f"{features.SPAN}_"
    slices = (name for name in every.list_slices() if name.startswith(prefix))
    return sorted((int(name.removeprefix(prefix)), every.get_slice(name)) for name in slices)


def _alone(photos: DatasetView) -> DatasetFeatureStatisticsList:
    return DatasetFeatureStatisticsList(datasets=[photos.proto()])


def _drift_row(info: DriftSkewInfo, enough: bool) -> Row:
    (drift,) = info.drift_measurements
    measure = "L-infinity" if drift.type == drift.L_INFTY else "Jensen-Shannon"
    drifted = drift.value > drift.threshold
    if not enough:
        verdict = Cell("too few photos to say", mark="few")
    else:
        verdict = Cell("drifted", mark="bad") if drifted else Cell("alike", mark="good")
    return [
        ".".join(info.path.step),
        measure,
        Cell(f"{drift.value:.3f}", drift.value),
        Cell(f"{drift.threshold:g}", drift.threshold),
        verdict,
    ]

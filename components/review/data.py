"""The section "The data": what TFDV counted, beside a reference population, and what was left out.

Figures are TFDV's statistics and TFMA's metrics, read with their own loaders.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import altair as alt
import tensorflow_data_validation as tfdv
from scipy.stats import binomtest
from tensorflow_data_validation.utils.anomalies_util import load_anomalies_binary
from tensorflow_data_validation.utils.stats_util import DatasetListView, DatasetView
from tensorflow_metadata.proto.v0.anomalies_pb2 import DriftSkewInfo
from tensorflow_metadata.proto.v0.statistics_pb2 import (
    DatasetFeatureStatisticsList,
    Histogram,
    NumericStatistics,
)

from components.gate import MAE
from components.photo_example_gen.component import REJECTS_FILE
from components.photo_example_gen.rejects import INFORMATIONAL
from components.review import population
from components.review.evaluation import OVERALL, Figure, Slice, figures
from components.review.inputs import Inputs
from components.review.page import Block, Cell, Chart, Section, Table, Text
from components.review.population import Population
from schemas import features

_Z = NormalDist().inv_cdf(0.975)  # half the width of a 95 % interval, in standard errors
_EXAMPLES = 3  # rejects that are shown of each reason
MSE = "mean_squared_error"

# The number features: what they are, and how they are written.
_MEASURES = {
    features.AGE: ("Age, years", ".0f"),
    features.WIDTH: ("Width, pixels", ",.0f"),
    features.HEIGHT: ("Height, pixels", ",.0f"),
    features.SQUARENESS: ("Squareness (shorter by longer side)", ".2f"),
    features.BRIGHTNESS: ("Brightness (0 black, 1 white)", ".2f"),
    features.SHARPNESS: ("Sharpness (the higher, the sharper)", ",.0f"),
}

Splits = Mapping[str, DatasetView]  # TFDV's statistics of all photos of a split


def section(inputs: Inputs) -> Section:
    """Age bands, kinds and measures of photos, rejects, anomalies and drift.

    Raises:
        UserError: the reference population's table is wrong.
    """
    photos = by_split(inputs)
    blocks: list[Block] = [
        _summary(photos),
        *_ages(photos, population.read(inputs.settings["review"]["population"])),
        *_lacking(photos, inputs),
        *_kinds(photos),
        *_measures(photos),
        *_rejects(inputs),
        *_anomalies(inputs),
        *_drift(inputs),
    ]
    return Section("data", "The data", blocks)


def statistics(inputs: Inputs, split: str) -> DatasetListView:
    """What StatisticsGen left of a split: of all of its photos, and of slices of them."""
    file = inputs.artifacts["statistics"].path / f"Split-{split}" / "FeatureStats.pb"
    return DatasetListView(tfdv.load_stats_binary(str(file)))


def by_split(inputs: Inputs) -> Splits:
    """TFDV's statistics of all photos of each split."""
    return {
        split: statistics(inputs, split).get_default_slice_or_die() for split in features.SPLITS
    }


def size(photos: DatasetView) -> int:
    """How many photos there are."""
    return int(photos.proto().num_examples)


def counts(photos: DatasetView, feature: str) -> dict[str, int]:
    """How many photos have each value of a string feature, the most frequent first."""
    found = photos.get_feature(feature)
    values = found.string_statistics() if found else None
    return {top.value: round(top.frequency) for top in values.top_values} if values else {}


def photos_needed(deviation: float, width: float) -> int:
    """How many photos a 95 % interval of a mean needs in order to be no wider than `width`.

    n = (z s / d)² with d half the width; Cochran 1977, Sampling Techniques, 3rd ed., section 4.6.

    Args:
        deviation: standard deviation of what is averaged, s.
        width: from the interval's lower to its upper end, in the same unit.
    """
    return max(1, math.ceil((_Z * deviation / (width / 2)) ** 2))


def _summary(splits: Splits) -> Text:
    sizes = ", ".join(f"{size(photos):,} in {split}" for split, photos in splits.items())
    return Text(
        [
            f"There are {sum(map(size, splits.values())):,} photos: {sizes}. The network learns "
            "from train; eval says when to stop; test, which nothing has seen before, is what all "
            "figures about errors come from. The counts here are TensorFlow Data Validation's.",
        ]
    )


def under_represented(splits: Splits, reference: Population) -> list[str]:
    """Age bands with fewer photos than the population would give, by more than chance.

    Even the upper end of the 95 % interval of the band's share (Wilson 1927, Journal of the
    American Statistical Association 22, 209-212) is below the population's share.
    """
    photos = sum(map(size, splits.values()))
    return [
        band
        for band, share in reference.shares.items()
        if photos
        and binomtest(_in_band(splits, band), photos).proportion_ci(0.95, "wilson").high < share
    ]


def _in_band(splits: Splits, band: str) -> int:
    return sum(counts(photos, features.AGE_BAND).get(band, 0) for photos in splits.values())


def _ages(splits: Splits, reference: Population) -> Iterator[Block]:
    few = under_represented(splits, reference)
    found = {split: counts(photos, features.AGE_BAND) for split, photos in splits.items()}
    yield Text(
        [
            f"The population to compare the ages with: {reference.source}",
            f"Under-represented age bands: {', '.join(few) or 'none'}. Their share of the photos "
            "is below their share of the population by more than chance explains (even the upper "
            "end of its 95 % interval is).",
        ]
    )
    shares = {
        split: {band: found[split].get(band, 0) / max(size(photos), 1) for band in reference.shares}
        for split, photos in splits.items()
    }
    yield _age_chart({**shares, "population": reference.shares})
    rows = [
        [
            band,
            *(
                Cell(f"{found[split].get(band, 0):,}", found[split].get(band, 0))
                for split in splits
            ),
            _share(_in_band(splits, band), sum(map(size, splits.values()))),
            Cell(f"{share:.1%}", share),
            Cell("under-represented", mark="bad") if band in few else "not fewer",
        ]
        for band, share in reference.shares.items()
    ]
    columns = ["age band", *splits, "share of all photos", "share of the population", "compared"]
    yield Table("Photos by age band, and the reference population", columns, rows)


def _lacking(splits: Splits, inputs: Inputs) -> Iterator[Block]:
    """How many photos of each age band are missing for an MAE that is known well enough."""
    found, settings = figures(inputs), inputs.settings["review"]
    width, few = settings["interval_width"], settings["min_photos"]
    share = size(splits[features.TEST]) / max(sum(map(size, splits.values())), 1)
    bands = {band: found.get(((features.AGE_BAND, band),), {}) for band in features.AGE_BANDS}
    rows = [
        _lacking_row(band, metrics, _deviation(found, metrics, few), width, share)
        for band, metrics in bands.items()
    ]
    yield Text(
        [
            "How well each age band's MAE is known: a 95 % interval should be no wider than "
            f"{width:g} years from its lower to its upper end. So many test photos are needed: "
            "n = (1.96 s / d)², where s is the standard deviation of the absolute errors in the "
            "band and d half the width (Cochran 1977, Sampling Techniques, section 4.6). For a "
            f"band with fewer than {few} photos, s is that of the whole test split. Since "
            f"{share:.0%} of the photos go to test, more are lacking in all.",
        ]
    )
    columns = [
        "age band", "test photos", "MAE, years", "s, years", "test photos needed",
        "lacking in test", "lacking in all",
    ]  # fmt: skip
    yield Table("Photos that each age band lacks", columns, rows)


def _lacking_row(
    band: str, metrics: Mapping[str, Figure], deviation: float, width: float, share: float
) -> list[Any]:
    count = round(metrics["example_count"].value) if metrics else 0
    needed = photos_needed(deviation, width)
    lacking = max(0, needed - count)
    everywhere = math.ceil(lacking / share) if share else lacking
    return [
        band,
        _number(count),
        Cell(f"{metrics[MAE]:.2f}", metrics[MAE].value) if metrics else "no photos",
        Cell(f"{deviation:.2f}", deviation),
        _number(needed),
        Cell(f"{lacking:,}", lacking, "few" if lacking else "good"),
        _number(everywhere),
    ]


def _deviation(
    found: Mapping[Slice, Mapping[str, Figure]], metrics: Mapping[str, Figure], few: int
) -> float:
    """Standard deviation of the absolute errors, from TFMA's MAE, mean squared error and count."""
    if not metrics or metrics["example_count"].value < few:
        metrics = found[OVERALL]
    count = metrics["example_count"].value
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
    told = "; ".join(
        f"{of}: " + ", ".join(f"{band} {share:.1%}" for band, share in bands.items())
        for of, bands in shares.items()
    )
    return Chart("Ages of the photos and of the population", f"Shares by age band. {told}.", spec)


def _number(count: int) -> Cell:
    return Cell(f"{count:,}", count)


def _share(count: int, of: int) -> Cell:
    share = count / of if of else 0.0
    return Cell(f"{share:.1%}", share)


def _kinds(splits: Splits) -> Iterator[Table]:
    """Formats, colour modes and the CSV's further columns: how often each value is there."""
    left_out = {features.FILE_NAME, features.PHOTO_ID, features.AGE_BAND}
    names = {
        str(path): None
        for photos in splits.values()
        for path in photos.list_features()
        if photos.get_feature(path).string_statistics() and str(path) not in left_out
    }
    first = [name for name in (features.FORMAT, features.MODE) if name in names]
    ordered = dict.fromkeys([*first, *sorted(names)])
    rows = [row for name in ordered for row in _kind_rows(name, splits)]
    yield Table(
        "Formats, colour modes and further columns of the CSV: photos with each value",
        ["what", "value", *splits],
        rows,
        interactive=True,
        filters=["what"],
    )


def _kind_rows(name: str, splits: Splits) -> Iterator[list[Any]]:
    found = {split: counts(photos, name) for split, photos in splits.items()}
    values = dict.fromkeys(value for values in found.values() for value in values)
    rest = {split: size(splits[split]) - sum(found[split].values()) for split in splits}
    for value in values:
        yield [name, value, *(_count(found[s].get(value, 0), splits[s]) for s in splits)]
    if any(rest.values()):
        yield [name, "(none, or a rarer one)", *(_count(rest[s], splits[s]) for s in splits)]


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
        "what", "split", "smallest", "a tenth is below", "median", "a tenth is above", "largest",
    ]  # fmt: skip
    yield Table("Sizes, squareness, brightness and sharpness", columns, rows, interactive=True)


def _numbers(photos: DatasetView, feature: str) -> NumericStatistics | None:
    found = photos.get_feature(feature)
    numbers = found.numeric_statistics() if found else None
    return numbers if numbers is not None and numbers.common_stats.num_non_missing else None


def _buckets(numbers: NumericStatistics, kind: int) -> Sequence[Histogram.Bucket]:
    return next((list(h.buckets) for h in numbers.histograms if h.type == kind), [])


def _tenths(numbers: NumericStatistics) -> tuple[float, float, float]:
    """What a tenth of the photos is below, the median, and what a tenth is above."""
    buckets = _buckets(numbers, Histogram.QUANTILES)
    tenth = len(buckets) // 10
    return buckets[tenth - 1].high_value, numbers.median, buckets[-tenth].low_value


def _measure_row(title: str, form: str, split: str, numbers: NumericStatistics) -> list[Any]:
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
            alt.Y("share:Q", title="how frequent", axis=alt.Axis(labels=False, ticks=False)),
            alt.Color("split:N", title="split", scale=alt.Scale(domain=list(numbers))),
            alt.StrokeDash("split:N", title="split", scale=alt.Scale(domain=list(numbers))),
        )
    )
    told = "; ".join(
        "{}: a tenth of the photos is below {}, half below {}, a tenth above {}".format(
            split, *(format(value, form) for value in _tenths(values))
        )
        for split, values in numbers.items()
    )
    return Chart(title, f"How the photos are spread. {told}.", spec)


def _outline(numbers: NumericStatistics) -> Iterator[tuple[float, float]]:
    """The histogram's steps: where each starts, and the share of photos in a unit of its width."""
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
        yield Text(["No row of the CSV was rejected: each gave a photo."])
        return
    rows: list[list[Any]] = [
        [
            Cell(reason + (" (one copy is kept)" if reason in INFORMATIONAL else "")),
            _number(len(found)),
            "; ".join(map(_reject, found[:_EXAMPLES])),
        ]
        for reason, found in sorted(by_reason.items(), key=lambda item: -len(item[1]))
    ]
    yield Table("Rows of the CSV that gave no photo", ["reason", "rows", "for example"], rows)


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
        yield Table("Anomalies", ["split", "feature", "what is wrong"], rows)
    else:
        yield Text(["Anomalies: none. Each split is as the curated schema says it has to be."])


def _drift(inputs: Inputs) -> Iterator[Block]:
    """How far the newest span's photos differ from the span's before, as TFDV measures it."""
    spans = _spans(statistics(inputs, features.TRAIN))
    if len(spans) < 2:
        yield Text(["Drift: these photos are of one span only, so there is nothing to compare."])
        return
    (old, before), (new, now) = spans[-2:]
    schema = tfdv.load_schema_text(str(inputs.artifacts["schema"].path / "schema.pbtxt"))
    found = tfdv.validate_statistics(_alone(now), schema, previous_statistics=_alone(before))
    enough = min(size(before), size(now)) >= inputs.settings["review"]["min_photos"]
    yield Text(
        [
            f"Drift: the photos of span {new} ({size(now):,} in train) against those of span {old} "
            f"({size(before):,}). For values, the largest change of any value's share "
            "(L-infinity); for numbers, the Jensen-Shannon divergence: 0 where both are alike, 1 "
            "where they have nothing in common. Up to the bound, which the curated schema sets, "
            "a difference is taken for chance.",
        ]
    )
    rows = [_drift_row(info, enough) for info in found.drift_skew_info]
    columns = ["what", "measure", "value", "bound", "verdict"]
    yield Table("Drift against the span before", columns, rows)


def _spans(every: DatasetListView) -> list[tuple[int, DatasetView]]:
    """The spans' numbers and statistics, the newest last."""
    prefix = f"{features.SPAN}_"
    slices = (name for name in every.list_slices() if name.startswith(prefix))
    return sorted((int(name.removeprefix(prefix)), every.get_slice(name)) for name in slices)


def _alone(photos: DatasetView) -> DatasetFeatureStatisticsList:
    return DatasetFeatureStatisticsList(datasets=[photos.proto()])


def _drift_row(info: DriftSkewInfo, enough: bool) -> list[Any]:
    (drift,) = info.drift_measurements
    measure = "L-infinity" if drift.type == drift.L_INFTY else "Jensen-Shannon"
    drifted = drift.value > drift.threshold
    verdict = ("drifted" if drifted else "alike") if enough else "too few photos to say"
    mark = ("bad" if drifted else "good") if enough else "few"
    return [
        ".".join(info.path.step),
        measure,
        Cell(f"{drift.value:.3f}", drift.value),
        Cell(f"{drift.threshold:g}", drift.threshold),
        Cell(verdict, mark=mark),
    ]

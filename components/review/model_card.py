"""The model card of a run: as model_card.md and as a section of the page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from importlib import metadata as distributions
from typing import Any, NamedTuple

import jinja2

from components.evaluator import COUNT
from components.gate import CHALLENGE, MAE, REFUSED
from components.review import data, population
from components.review.decision import fingerprint, pushed_version
from components.review.evaluation import MEAN_ERROR, OVERALL, Metrics, Slice, figures
from components.review.inputs import NOT_RECORDED, Inputs
from components.review.page import Markdown, Section
from components.review.slices import label, order
from components.review.training import read_history, recorded
from schemas import features

FILE = "model_card.md"
_THUMBNAILS = {
    True: "thumbnails of the largest errors and the most suspicious labels, on the review page",
    False: "none, because thumbnails are switched off",
}
_TOO_FEW = "too few photos to say"
_PACKAGES = ("tfx", "tensorflow", "keras", "tensorflow-model-analysis")
_SPECIAL = str.maketrans(
    {character: "\\" + character for character in "\\`*_[]|~"}
    | {"<": "&lt;", ">": "&gt;", "&": "&amp;", "\n": " ", "\r": " "}
)


class Row(NamedTuple):
    """The texts of a table's row about a slice of the test split."""

    name: str
    photos: str
    mae: str
    bias: str


def section(inputs: Inputs) -> Section:
    """The card as a section of the page."""
    return Section("model-card", "Model card", [Markdown(markdown(inputs))])


def markdown(inputs: Inputs) -> str:
    """The card as Markdown. It states what is not recorded; no field is empty."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "templates"),
        undefined=jinja2.StrictUndefined,
        finalize=_escaped,
        keep_trailing_newline=True,
    )
    return environment.get_template(f"{FILE}.j2").render(_facts(inputs))


def _escaped(value: object) -> str:
    """Text that Markdown shows unchanged, also if it comes from the CSV or is a file name."""
    return str(value).translate(_SPECIAL).strip() or NOT_RECORDED


def _facts(inputs: Inputs) -> dict[str, Any]:
    settings, found = inputs.settings, figures(inputs)
    return {
        **_model(inputs),
        **_photos(inputs),
        **_measured(found, inputs.min_photos),
        "bound": f"{settings['evaluator']['max_mae']:g}",
        "challenge": _challenge(inputs),
        "legal_age": settings["policy"]["legal_age"],
        "refused": f"{found[OVERALL][REFUSED]:.1%}",
        "refused_bound": f"{settings['guard']['max_refused_test']:.1%}",
        "increase": f"{settings['evaluator']['max_mae_increase']:g}",
        "min_photos": inputs.min_photos,
        "licence": settings["review"]["data_licence"],
        "thumbnails": _THUMBNAILS[settings["review"]["thumbnails"]],
    }


def _challenge(inputs: Inputs) -> list[str]:
    recorded = inputs.property_of("evaluation", CHALLENGE)
    return json.loads(recorded)["sentences"] if recorded else [f"Challenge age: {NOT_RECORDED}"]


def _model(inputs: Inputs) -> dict[str, Any]:
    settings, history = inputs.settings, read_history(inputs)
    pixels = settings["transform"]["image_size"]
    return {
        "name": settings["serving"]["model_name"],
        "kind": "ResNet50 (He et al. 2015, arXiv:1512.03385) with the head "
        f"{settings['trainer']['head']}; number of weights: {recorded(history, 'parameters')}; "
        f"input: {pixels} × {pixels} pixels",
        "version": pushed_version(inputs) or "none, because the model was not pushed",
        "decision": _decision(inputs),
        "run": inputs.run.run_id,
        "when": inputs.run.when,
        "who": inputs.run.who,
        "code": inputs.run.code,
        "training": f"{len(history['epochs'])} epochs; the model has the weights of epoch "
        f"{history['best_epoch']}; initial weights: {settings['trainer']['initial_weights']}; "
        f"number format: {recorded(history, 'precision')}",
        "software": ", ".join(f"{name} {distributions.version(name)}" for name in _PACKAGES),
    }


def _decision(inputs: Inputs) -> str:
    if inputs.property_of("blessing", "blessed") != 1:
        return "not passed"
    if inputs.property_of("infra_blessing", "blessed") != 1:
        return "not passed: the metrics are good enough, but the model server can't serve the model"
    return "passed"


def _photos(inputs: Inputs) -> dict[str, Any]:
    splits = data.by_split(inputs)
    reference = population.read(inputs.settings["review"]["population"])
    rejects = json.loads(inputs.property_of("examples", "rejects") or "{}")
    return {
        **{f"{split}_photos": f"{data.size(photos):,}" for split, photos in splits.items()},
        "columns": ", ".join(inputs.extra_columns) or "none",
        "fingerprint": fingerprint(inputs),
        "spans": _spans(inputs),
        "rejects": ", ".join(f"{count:,} {reason}" for reason, count in rejects.items()) or "none",
        "under_represented": ", ".join(data.under_represented(splits, reference)) or "none",
        "population": reference.source,
    }


def _spans(inputs: Inputs) -> str:
    newest = inputs.newest_span
    return "none; all photos are in one folder" if newest is None else f"up to span {newest}"


def _measured(found: Mapping[Slice, Metrics], min_photos: int) -> dict[str, Any]:
    bands = {band: found.get(((features.AGE_BAND, band),)) for band in features.AGE_BANDS}
    groups = {key[0]: metrics for key, metrics in found.items() if _is_group(key)}
    crossed = {
        label(key): metrics
        for key, metrics in found.items()
        if len(key) == 2 and _count(metrics) >= min_photos
    }
    rows = [_row(band, metrics, min_photos) for band, metrics in bands.items()]
    return {
        "overall": _row("all", found[OVERALL], min_photos),
        "bands": rows,
        "groups": [
            _row(label((key,)), groups[key], min_photos)
            for key in sorted(groups, key=lambda key: order((key,)))
        ],
        "worst_crossed": _worst(crossed) or _TOO_FEW,
        "young": "; ".join(_sentence(row) for row in rows[1:3]),
        "old": _sentence(rows[-1]),
        "differences": list(_differences(groups, min_photos)),
        "caveats": list(_caveats(bands, min_photos)),
    }


def _is_group(key: Slice) -> bool:
    return len(key) == 1 and key[0][0] != features.AGE_BAND


def _count(metrics: Metrics | None) -> int:
    return round(metrics[COUNT].value) if metrics else 0


def _row(name: str, metrics: Metrics | None, min_photos: int) -> Row:
    if not metrics:
        return Row(name, "0", "no photos", "no photos")
    count = _count(metrics)
    remark = f", {_TOO_FEW}" if count < min_photos else ""
    bias = metrics[MEAN_ERROR].value
    return Row(name, f"{count:,}", f"{metrics[MAE]:.2f}{remark}", f"{bias:+.2f}{remark}")


def _sentence(row: Row) -> str:
    return f"{row.name} years: MAE {row.mae}, mean error {row.bias}, {row.photos} photos"


def _worst(slices: Mapping[str, Metrics]) -> str:
    """The slice with the largest MAE; an empty text if there is no slice."""
    if not slices:
        return ""
    name, metrics = max(slices.items(), key=lambda item: item[1][MAE].value)
    return f"{name}, {metrics[MAE]:.2f} years, {_count(metrics):,} photos"


def _differences(groups: Mapping[tuple[str, str], Metrics], min_photos: int) -> Iterator[str]:
    """For each column, the values with the smallest and the largest MAE."""
    for column in sorted({column for column, _ in groups}):
        enough = sorted(
            (metrics[MAE].value, value)
            for (name, value), metrics in groups.items()
            if name == column and _count(metrics) >= min_photos
        )
        if len(enough) < 2:
            yield f"{column}: there are {_TOO_FEW} whether groups differ."
            continue
        (_, best), (_, worst) = enough[0], enough[-1]
        low, high = (groups[column, value] for value in (best, worst))
        yield (
            f"{column}: the MAE is between {low[MAE]:.2f} years ({best}, {_count(low):,} photos) "
            f"and {high[MAE]:.2f} years ({worst}, {_count(high):,} photos). {_chance(low, high)}"
        )


def _chance(low: Metrics, high: Metrics) -> str:
    gap = high[MAE].low - low[MAE].high
    if math.isnan(gap):
        return "Without intervals, nobody can say if the difference is chance."
    if gap > 0:
        return "The intervals do not overlap, so chance alone does not explain the difference."
    return "The intervals overlap, so the difference may be chance."


def _caveats(bands: Mapping[str, Metrics | None], min_photos: int) -> Iterator[str]:
    enough = {f"{b} years": m for b, m in bands.items() if m and _count(m) >= min_photos}
    yield f"Age band with the largest MAE: {_worst(enough) or _TOO_FEW}."
    short = [band for band, metrics in bands.items() if _count(metrics) < min_photos]
    yield f"Age bands with too few test photos: {', '.join(short) or 'none'}."

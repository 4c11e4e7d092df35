"""The model card, generated from the run: model_card.md, and the same as a section of the page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from importlib import metadata as distributions
from typing import Any, NamedTuple

import jinja2

from components.gate import MAE
from components.review import data, population
from components.review.evaluation import OVERALL, Figure, Slice, figures
from components.review.inputs import Inputs
from components.review.page import Markdown, Section
from components.review.training import read_history
from schemas import features

FILE = "model_card.md"
NOT_RECORDED = "not recorded"
_THUMBNAILS = {
    True: "the worst mistakes and the likeliest wrong labels, small, on the review page",
    False: "none; thumbnails are switched off",
}
_TOO_FEW = "too few photos to say"
_PACKAGES = ("tfx", "tensorflow", "keras", "tensorflow-model-analysis")
_SPECIAL = str.maketrans(
    {character: "\\" + character for character in "\\`*_[]|~"}
    | {"<": "&lt;", ">": "&gt;", "&": "&amp;", "\n": " ", "\r": " "}
)

Figures = Mapping[Slice, Mapping[str, Figure]]


class Row(NamedTuple):
    """A slice of the test split, ready to be read."""

    name: str
    photos: str
    mae: str
    bias: str


def section(inputs: Inputs) -> Section:
    """The card as a section of the page."""
    return Section("model-card", "Model card", [Markdown(markdown(inputs))])


def markdown(inputs: Inputs) -> str:
    """The card. What the run does not know is stated as such: nothing is left blank."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "templates"),
        undefined=jinja2.StrictUndefined,
        finalize=_said,
        keep_trailing_newline=True,
    )
    return environment.get_template(f"{FILE}.j2").render(_facts(inputs))


def _said(value: object) -> str:
    """Text that Markdown shows as it is, whatever a file's name or a CSV's column holds."""
    return str(value).translate(_SPECIAL).strip() or NOT_RECORDED


def _facts(inputs: Inputs) -> dict[str, Any]:
    settings, found = inputs.settings, figures(inputs)
    return {
        **_model(inputs),
        **_photos(inputs),
        **_measured(found, settings["review"]["min_photos"]),
        "bound": f"{settings['evaluator']['max_mae']:g}",
        "increase": f"{settings['evaluator']['max_mae_increase']:g}",
        "min_photos": settings["review"]["min_photos"],
        "licence": settings["review"]["data_licence"],
        "thumbnails": _THUMBNAILS[settings["review"]["thumbnails"]],
    }


def _model(inputs: Inputs) -> dict[str, Any]:
    settings, history = inputs.settings, read_history(inputs)
    pixels = settings["transform"]["image_size"]
    version = _property(inputs, "pushed_model", "pushed_version")
    return {
        "name": settings["serving"]["model_name"],
        "kind": f"ResNet50 (He et al. 2015, arXiv:1512.03385) with one output, "
        f"{_grouped(history.get('parameters', NOT_RECORDED))} weights; it sees {pixels} × {pixels} "
        "pixels",
        "version": version or "none: it was not pushed",
        "decision": _decision(inputs),
        "run": inputs.run.run_id,
        "when": inputs.run.when,
        "who": inputs.run.who,
        "code": inputs.run.code,
        "training": f"{len(history['epochs'])} epochs, of which number {history['best_epoch']} was "
        f"kept; initial weights: {settings['trainer']['initial_weights']}; computed in "
        f"{history.get('precision', NOT_RECORDED)}",
        "software": ", ".join(f"{name} {distributions.version(name)}" for name in _PACKAGES),
    }


def _decision(inputs: Inputs) -> str:
    if _property(inputs, "blessing", "blessed") != 1:
        return "not let through"
    if _property(inputs, "infra_blessing", "blessed") != 1:
        return "good enough, but not let through: no model server could serve it"
    return "let through"


def _photos(inputs: Inputs) -> dict[str, Any]:
    splits = data.by_split(inputs)
    reference = population.read(inputs.settings["review"]["population"])
    rejects = json.loads(_property(inputs, "examples", "rejects") or "{}")
    columns = json.loads(_property(inputs, "examples", "extra_columns") or "[]")
    return {
        **{f"{split}_photos": f"{data.size(photos):,}" for split, photos in splits.items()},
        "columns": ", ".join(columns) or "none came",
        "fingerprint": _property(inputs, "examples", "fingerprint") or NOT_RECORDED,
        "spans": _spans(inputs),
        "rejects": ", ".join(f"{count:,} {reason}" for reason, count in rejects.items()) or "none",
        "under_represented": ", ".join(data.under_represented(splits, reference)) or "none",
        "population": reference.source,
    }


def _spans(inputs: Inputs) -> str:
    newest = _property(inputs, "examples", "span")
    return f"up to span {newest}" if newest else "none, all photos are in one folder"


def _measured(found: Figures, few: int) -> dict[str, Any]:
    bands = {band: found.get(((features.AGE_BAND, band),)) for band in features.AGE_BANDS}
    groups = {key[0]: metrics for key, metrics in found.items() if _is_group(key)}
    crossed = {
        " and ".join(map(" ".join, key)): metrics
        for key, metrics in found.items()
        if len(key) == 2 and _count(metrics) >= few
    }
    rows = [_row(band, metrics, few) for band, metrics in bands.items()]
    return {
        "overall": _row("all", found[OVERALL], few),
        "bands": rows,
        "groups": [
            _row(" ".join(column), metrics, few) for column, metrics in sorted(groups.items())
        ],
        "worst_crossed": _worst(crossed) or f"{_TOO_FEW} in any",
        "young": "; ".join(_sentence(row) for row in rows[1:3]),
        "old": _sentence(rows[-1]),
        "differences": list(_differences(groups, few)),
        "caveats": list(_caveats(bands, few)),
    }


def _is_group(key: Slice) -> bool:
    return len(key) == 1 and key[0][0] != features.AGE_BAND


def _count(metrics: Mapping[str, Figure] | None) -> int:
    return round(metrics["example_count"].value) if metrics else 0


def _row(name: str, metrics: Mapping[str, Figure] | None, few: int) -> Row:
    if not metrics:
        return Row(name, "0", "no photos", "no photos")
    count = _count(metrics)
    remark = f", {_TOO_FEW}" if count < few else ""
    bias = metrics["mean_prediction"].value - metrics["mean_label"].value
    return Row(name, f"{count:,}", f"{metrics[MAE]:.2f}{remark}", f"{bias:+.2f}{remark}")


def _sentence(row: Row) -> str:
    return f"{row.name} years: MAE {row.mae}, mean error {row.bias}, {row.photos} photos"


def _worst(slices: Mapping[str, Mapping[str, Figure]]) -> str:
    """The slice with the largest MAE, or nothing where there is none."""
    if not slices:
        return ""
    name, metrics = max(slices.items(), key=lambda item: item[1][MAE].value)
    return f"{name}, {metrics[MAE]:.2f} years, {_count(metrics):,} photos"


def _differences(groups: Mapping[tuple[str, str], Mapping[str, Figure]], few: int) -> Iterator[str]:
    """For each column, which values have the smallest and the largest MAE, and if by chance."""
    for column in sorted({column for column, _ in groups}):
        enough = sorted(
            (metrics[MAE].value, value)
            for (name, value), metrics in groups.items()
            if name == column and _count(metrics) >= few
        )
        if len(enough) < 2:
            yield f"{column}: {_TOO_FEW} whether groups differ."
            continue
        (_, best), (_, worst) = enough[0], enough[-1]
        low, high = (groups[column, value] for value in (best, worst))
        yield (
            f"{column}: MAE from {low[MAE]:.2f} ({best}, {_count(low):,} photos) to "
            f"{high[MAE]:.2f} ({worst}, {_count(high):,} photos) years. {_chance(low, high)}"
        )


def _chance(low: Mapping[str, Figure], high: Mapping[str, Figure]) -> str:
    gap = high[MAE].low - low[MAE].high
    if math.isnan(gap):
        return "Whether that is chance is not recorded: there is no interval."
    return (
        "Their intervals are apart: more than chance explains."
        if gap > 0
        else "Their intervals overlap: it may be chance."
    )


def _caveats(bands: Mapping[str, Mapping[str, Figure] | None], few: int) -> Iterator[str]:
    enough = {f"{b} years": m for b, m in bands.items() if m and _count(m) >= few}
    yield f"The worst age band: {_worst(enough) or _TOO_FEW + ' in any'}."
    short = [band for band, metrics in bands.items() if _count(metrics) < few]
    yield f"Age bands with too few test photos to say: {', '.join(short) or 'none'}."


def _property(inputs: Inputs, artifact: str, name: str) -> Any:
    """A property of an artifact of the run; None where there is no such artifact or property."""
    found = inputs.artifacts.get(artifact)
    return found.properties.get(name) if found else None


def _grouped(number: Any) -> str:
    return f"{number:,}" if isinstance(number, int) else str(number)

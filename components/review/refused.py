"""The section "Refused photos": to which photos the model objects, why, and in which groups."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components import predictions
from components.evaluator import CANDIDATE
from components.intervals import Figure, share
from components.review.evaluation import OVERALL, Slice, figures
from components.review.inputs import Inputs
from components.review.page import Block, Cell, Photo, Photos, Row, Section, Table, Text
from components.review.slices import kind, label, order
from components.review.thumbnails import NOTE, OFF, thumbnails
from components.trainer.component import LEFT_OUT_FILE
from schemas import features

_OBJECTION = predictions.objection_column(CANDIDATE)
_MEANINGS = {
    features.NO_PHOTO: "the model could not read the file",
    features.NO_FACE: "no face was found",
    features.SEVERAL_FACES: "another face is almost as large as the largest one",
    features.SMALL_FACE: "the face is too small",
    features.TURNED_FACE: "the face is turned by 45° or more, or upside down",
    features.CUT_FACE: "the face is partly outside the photo",
    features.UNLIKE_TRAINING: "the picture is unlike the photos that the network learned from",
}

Counts = Mapping[Slice, Counter[str]]  # test photos by slice and objection; "" is none


def section(inputs: Inputs) -> Section:
    """The objections, the slices in which they are frequent, and examples of each kind."""
    return Section("refused", "Refused photos", list(_blocks(inputs)))


def _blocks(inputs: Inputs) -> Iterator[Block]:
    photos = pq.read_table(inputs.artifacts["evaluation"].path / predictions.FILE)
    counts = _counts(photos, figures(inputs))
    every, bound = counts[OVERALL], inputs.settings["guard"]["max_refused_test"]
    yield Text(
        [
            "A model objects to a photo if nobody should rely on its age: there is no face, or the "
            "picture is unlike the photos that the network learned from. At a till, the cashier "
            "takes another photo or asks for ID. The MAE on this page is that of the photos "
            "without an objection.",
            f"This model refuses {_share(every):.1%} of the {every.total():,} test photos. The "
            f"gate allows {bound:.1%}.",
        ]
    )
    yield _objections(every, _left_out(inputs))
    yield Text(
        [
            "It is unfair if one group is refused more often than others. The sign ✗ marks a slice "
            "whose whole 95 % interval (Wilson 1927) is above the share of all test photos. About "
            "one slice in forty gets it by chance alone. The mark (few) means fewer than "
            f"{inputs.min_photos} photos."
        ]
    )
    yield _by_slice(counts, inputs.min_photos)
    yield from _examples(inputs, photos)


def _counts(photos: pa.Table, slices: Iterable[Slice]) -> Counts:
    found: dict[Slice, Counter[str]] = defaultdict(Counter)
    for columns in {tuple(column for column, _ in key) for key in slices} | {()}:
        rows = photos.group_by([*columns, _OBJECTION]).aggregate([([], "count_all")])
        for row in rows.to_pylist():
            key = tuple((column, row[column]) for column in columns)
            if all(value is not None for _, value in key):
                found[key][row[_OBJECTION]] += row["count_all"]
    return found


def _share(counts: Counter[str]) -> Figure:
    return share(counts.total() - counts[""], counts.total())


def _left_out(inputs: Inputs) -> Counter[str]:
    """The number of train and eval photos with each objection."""
    file = inputs.artifacts["model_run"].path / LEFT_OUT_FILE
    with file.open(encoding="utf-8", newline="") as lines:
        return Counter(row[features.OBJECTION] for row in csv.DictReader(lines))


def _objections(test: Counter[str], left_out: Counter[str]) -> Table:
    rows: list[Row] = [
        [name, meaning, test[name], f"{share(test[name], test.total()):.1%}", left_out[name]]
        for name, meaning in _MEANINGS.items()
    ]
    columns = [
        "objection", "meaning", "test photos", "share of the test photos (95 % interval)",
        "photos left out of train and eval",
    ]  # fmt: skip
    return Table("Objections", columns, rows)


def _by_slice(counts: Counts, min_photos: int) -> Table:
    kinds = [name for name in _MEANINGS if counts[OVERALL][name]]
    everywhere = _share(counts[OVERALL]).value
    rows: list[Row] = []
    for key in sorted(counts, key=order):
        found, photos = _share(counts[key]), counts[key].total()
        mark = "few" if photos < min_photos else "bad" if found.low > everywhere else ""
        value = Cell(f"{found:.1%}", found.value, mark)
        rows.append([label(key), kind(key), photos, value, *(counts[key][name] for name in kinds)])
    columns = ["slice", "kind", "photos", "refused (95 % interval)", *kinds]
    return Table("Refused test photos of every slice", columns, rows, True, ("kind",))


def _examples(inputs: Inputs, photos: pa.Table) -> Iterator[Block]:
    settings = inputs.settings["review"]
    if not settings["thumbnails"]:
        yield Text([OFF])
        return
    by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in photos.filter(pc.not_equal(photos[_OBJECTION], "")).to_pylist():
        if len(by_kind[row[_OBJECTION]]) < settings["photos"]:
            by_kind[row[_OBJECTION]].append(row)
    if not by_kind:
        return
    yield Text([NOTE])
    ids = frozenset(row[features.PHOTO_ID] for rows in by_kind.values() for row in rows)
    jpegs = thumbnails(inputs.artifacts["examples"].path, ids)
    for name in _MEANINGS:
        if name in by_kind:
            yield Photos(
                f"Examples of {name}",
                [
                    Photo(
                        jpegs[row[features.PHOTO_ID]],
                        f"Refused photo: {_MEANINGS[name]}. Labelled age: {row[features.AGE]:.4g}.",
                        [row[features.FILE_NAME], f"labelled age {row[features.AGE]:.4g}"],
                    )
                    for row in by_kind[name]
                    if row[features.PHOTO_ID] in jpegs
                ],
            )

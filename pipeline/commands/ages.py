"""`goodseed ages`: writes a table of ages and age groups for many photos."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from pipeline.commands import model_server
from pipeline.system import write_text_whole
from serving.versions import newest_version

if TYPE_CHECKING:
    from goodseed_client.ages import AgeGroups
    from goodseed_client.batch import Written
    from rich.console import Console

    from components.intervals import Figure

    Shares = Mapping[str, Figure]  # by age group

AS_COUNTED, CORRECTED = "as counted", "corrected"
WRITTEN, SERVER_FAILED = 0, 1


def add_command(commands: Any) -> None:
    """Adds `ages` to the commands of `goodseed`."""
    ages = commands.add_parser(
        "ages", help="write ages and age groups of many photos", allow_abbrev=False,
        description="Writes the age and age group of each photo, for purchase analytics. "
        "Exit status: 0 written, 1 the server failed, 2 a mistake in the command or its files.",
    )  # fmt: skip
    ages.add_argument(
        "photos", metavar="PHOTOS", help="folder of photos, or CSV with a column of their paths"
    )
    ages.add_argument("--output", required=True, help="file to write: .csv or .parquet")
    ages.add_argument(
        "--column", default="file_name", help="the CSV's column of paths (default: file_name)"
    )
    ages.add_argument(
        "--groups", metavar="GROUPS",
        help="age groups (default: 0-12,13-17,18-20,21-24,25-34,35-44,45-54,55-64,65+)",
    )  # fmt: skip
    ages.add_argument(
        "--correct", metavar="DIR",
        help="correct the shares by the errors of the model in this folder: SERVING_ROOT/NAME",
    )  # fmt: skip
    ages.add_argument("--chart", metavar="FILE", help="draw the shares of the groups as FILE.svg")
    ages.add_argument("--batch-size", type=int, default=32, help="photos per request (default: 32)")
    model_server.add_options(ages)
    ages.set_defaults(command=_ages)


def _ages(options: argparse.Namespace) -> int:
    from goodseed_client import AgeClient, Failure, batch
    from goodseed_client.ages import AGE_GROUPS, AgeGroups
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    output = Path(options.output)
    if output.suffix not in (".csv", ".parquet"):
        raise UserError(f"{output}: --output should end in .csv or .parquet")
    chart = Path(options.chart) if options.chart else None
    if chart and chart.suffix != ".svg":
        raise UserError(f"{chart}: --chart should end in .svg")
    base = Path(options.correct) if options.correct else None
    if base and newest_version(base) is None:
        raise UserError(f"--correct: {base}: there is no version of a model in this folder")
    if options.batch_size < 1:
        raise UserError(f"--batch-size {options.batch_size} should be at least 1")
    try:
        groups = AgeGroups.parse(options.groups) if options.groups else AGE_GROUPS
    except ValueError as error:
        raise UserError(f"--groups: {error}") from None
    try:
        client = AgeClient(**model_server.client_arguments(options))
        photos = batch.find(options.photos, options.column)
    except ValueError as error:
        raise UserError(str(error)) from None
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    try:
        with client, Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task("ages", total=len(photos.rows))
            written = batch.write_ages(
                client, photos, output, options.batch_size,
                lambda done: progress.update(task, completed=done), groups,
            )  # fmt: skip
    except Failure as failure:
        print(f"goodseed: {options.server}: {failure.detail}", file=sys.stderr)
        return SERVER_FAILED
    except OSError as error:
        raise UserError(f"{output}: {error.strerror}") from None
    summary = f"{output}: {len(photos.rows):,} photos, {written.aged:,} with an age"
    if written.aged < len(photos.rows):
        summary += "; the column reason says why others have none"
    if written.objected:
        summary += f"; {written.objected:,} with an objection and so without an age group"
    print(summary)
    shares = {AS_COUNTED: _shares(written.groups)}
    if base:
        shares[CORRECTED] = _corrected(base, written, groups)
    _show(written.groups, shares, Console())
    if chart:
        _draw(shares, chart)
    return WRITTEN


def _shares(groups: Mapping[str, int]) -> Shares:
    """Each group's share of the photos with a group; without any, it is between 0 and 1."""
    from components.intervals import Figure, share

    total = sum(groups.values())
    nothing = Figure(0.0, 0.0, 1.0)
    return {name: share(photos, total) if total else nothing for name, photos in groups.items()}


def _corrected(base: Path, written: Written, groups: AgeGroups) -> Shares:
    """The shares of the real ages, by the errors of the version that answered.

    Raises:
        UserError: these errors are not known.
    """
    from components import confusion

    if len(written.versions) != 1 or None in written.versions:
        answered = ", ".join(sorted(str(one or "an unknown one") for one in written.versions))
        raise UserError(
            f"--correct: it takes answers of one known version, and these answered: "
            f"{answered or 'none'}; ask for one with --label"
        )
    (version,) = written.versions
    file = base / str(version) / "assets" / confusion.FILE
    try:
        table = confusion.read(file)
    except OSError as error:
        raise UserError(
            f"--correct: {file}: {error.strerror}: give the folder that the server reads; models "
            "from before this option have no such file"
        ) from None
    counts = list(written.groups.values())
    try:
        found = confusion.corrected(table, groups.names, groups.of, counts, written.others)
    except ValueError as error:
        raise UserError(f"--correct: {error}: choose other --groups") from None
    return dict(zip(groups.names, found, strict=True))


def _show(groups: Mapping[str, int], shares: Mapping[str, Shares], console: Console) -> None:
    from rich.table import Table

    table = Table("age group", "photos", *(f"{kind} (95 % interval)" for kind in shares))
    for name, photos in groups.items():
        cells = (f"{by_group[name]:.1%}" for by_group in shares.values())
        table.add_row(name, f"{photos:,}", *cells)
    console.print(table)


def _draw(shares: Mapping[str, Shares], file: Path) -> None:
    """Draws the shares as bars with their intervals; the file appears whole."""
    import altair as alt
    import vl_convert

    rows = [
        {"group": name, "kind": kind, "value": one.value, "low": one.low, "high": one.high}
        for kind, by_group in shares.items()
        for name, one in by_group.items()
    ]
    base = alt.Chart(alt.InlineData(rows)).encode(
        alt.X("group:N", sort=None, title="age group, years", axis=alt.Axis(labelAngle=0)),
        alt.XOffset("kind:N", sort=None),
    )
    percent = alt.Axis(format="%")
    bars = base.mark_bar().encode(
        alt.Y("value:Q", title="share of the photos", axis=percent),
        alt.Color(
            "kind:N", sort=None, title=None, legend=alt.Legend() if len(shares) > 1 else None
        ),
    )
    intervals = base.mark_rule(strokeWidth=2).encode(alt.Y("low:Q"), alt.Y2("high:Q"))
    chart = alt.layer(bars, intervals).properties(
        title="Photos by age group, with 95 % intervals",
        width=60 * len(rows),
    )
    try:
        write_text_whole(file, vl_convert.vegalite_to_svg(chart.to_dict()))
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None

"""`goodseed ages`: writes a table of ages and age groups for many photos."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from pipeline.commands import model_server
from pipeline.system import write_text_whole

if TYPE_CHECKING:
    from rich.console import Console

    from components.review.intervals import Figure

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
    shares = _shares(written.groups)
    _show(written.groups, shares, Console())
    if chart:
        _draw(shares, chart)
    return WRITTEN


def _shares(groups: Mapping[str, int]) -> dict[str, Figure]:
    """Each group's share of the photos with a group; without any, it is between 0 and 1."""
    from components.review.intervals import Figure, share

    total = sum(groups.values())
    nothing = Figure(0.0, 0.0, 1.0)
    return {name: share(photos, total) if total else nothing for name, photos in groups.items()}


def _show(groups: Mapping[str, int], shares: Mapping[str, Figure], console: Console) -> None:
    from rich.table import Table

    table = Table("age group", "photos", "share", "95 % interval")
    for name, one in shares.items():
        interval = f"{one.low:.1%} to {one.high:.1%}"
        table.add_row(name, f"{groups[name]:,}", f"{one.value:.1%}", interval)
    console.print(table)


def _draw(shares: Mapping[str, Figure], file: Path) -> None:
    """Draws the shares as bars with their intervals; the file appears whole."""
    import altair as alt
    import vl_convert

    rows = [{"group": name, **asdict(one)} for name, one in shares.items()]
    base = alt.Chart(alt.InlineData(rows)).encode(
        alt.X("group:N", sort=None, title="age group, years", axis=alt.Axis(labelAngle=0))
    )
    percent = alt.Axis(format="%")
    bars = base.mark_bar().encode(alt.Y("value:Q", title="share of the photos", axis=percent))
    intervals = base.mark_rule(strokeWidth=2).encode(alt.Y("low:Q"), alt.Y2("high:Q"))
    chart = alt.layer(bars, intervals).properties(
        title="Photos by age group, with 95 % intervals", width=60 * len(shares)
    )
    try:
        write_text_whole(file, vl_convert.vegalite_to_svg(chart.to_dict()))
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None

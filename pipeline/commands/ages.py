"""`goodseed ages`: writes a table of ages and age groups for many photos."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from components.errors import UserError
from pipeline.commands import model_server

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
    ages.add_argument("--batch-size", type=int, default=32, help="photos per request (default: 32)")
    model_server.add_options(ages)
    ages.set_defaults(command=_ages)


def _ages(options: argparse.Namespace) -> int:
    from goodseed_client import AgeClient, Failure, batch
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    output = Path(options.output)
    if output.suffix not in (".csv", ".parquet"):
        raise UserError(f"{output}: --output should end in .csv or .parquet")
    if options.batch_size < 1:
        raise UserError(f"--batch-size {options.batch_size} should be at least 1")
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
                lambda done: progress.update(task, completed=done),
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
    return WRITTEN

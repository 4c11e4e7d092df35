"""`goodseed run`: the pipeline on this machine."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from components.errors import UserError
from components.review import population
from pipeline import config, summary
from pipeline.commands.config import add_profile


def add_command(commands: Any) -> None:
    """Adds `run` to the commands of `goodseed`."""
    run = commands.add_parser(
        "run", help="run the pipeline on this machine", allow_abbrev=False,
        description="Runs the pipeline on this machine. Exit status: 0 pushed, 3 the gate stayed "
        "shut, 1 a step failed, 2 a mistake in the command or its files.",
    )  # fmt: skip
    run.add_argument("--photos", required=True, help="folder with a labels CSV and photos")
    run.add_argument("--run-dir", required=True, help="folder of the run; made if missing")
    run.add_argument(
        "--exclude", metavar="CSV", help="photos to leave out, as in a review's suspects.csv"
    )
    add_profile(run)
    run.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> NoReturn:
    from rich.console import Console

    from pipeline.local import run_folder

    console = Console()
    loaded = config.load(
        profile=options.profile,
        photos=options.photos,
        run_dir=options.run_dir,
        exclude=options.exclude,
        overrides=options.overrides,
    )
    if not Path(loaded.data.photos).is_dir():
        raise UserError(f"{loaded.data.photos}: no such folder; see --photos")
    if loaded.review.population:
        population.read(loaded.review.population)  # now, not at the end of the run
    with run_folder.use(Path(loaded.run_dir)) as terminal:
        with console.status("loading TFX"):
            from pipeline.local import runner

        document = runner.run(loaded, console)
        summary.show(document, console)
        if document["failure"]:
            print(f"goodseed: {document['failure']}", file=terminal)
            print(f"goodseed: the whole log is in {loaded.run_dir}/run.log", file=terminal)
        sys.stdout.flush()
        terminal.flush()
        # This skips the interpreter's shutdown. The shutdown waits for threads that a failed Beam
        # job left, and TensorFlow's part of it crashed after a full disk.
        os._exit(summary.exit_status(document))

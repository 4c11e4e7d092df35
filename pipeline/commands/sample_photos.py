"""`goodseed sample-photos`: the drawn photos of the demo."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_command(commands: Any) -> None:
    """Adds `sample-photos` to the commands of `goodseed`."""
    sample = commands.add_parser(
        "sample-photos", help="draw a sample of faces with ages", allow_abbrev=False
    )
    sample.add_argument("folder", metavar="DIR", help="new folder")
    sample.add_argument("--count", type=int, default=900, help="how many photos (default: 900)")
    sample.add_argument(
        "--seed", type=int, default=0, help="a different seed gives different faces (default: 0)"
    )
    sample.set_defaults(command=_sample_photos)


def _sample_photos(options: argparse.Namespace) -> int:
    from rich.console import Console

    from pipeline.sample.draw import draw_sample

    console = Console()
    with console.status("drawing faces") as status:
        draw_sample(
            Path(options.folder), options.count, options.seed,
            lambda done, total: status.update(f"drawing faces … {done:,}/{total:,}"),
        )  # fmt: skip
    console.print(f"{options.folder}: {options.count:,} photos", highlight=False)
    return 0

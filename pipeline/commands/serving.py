"""`goodseed serving`: which version of the model the tills get."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.errors import UserError


def add_command(commands: Any) -> None:
    """Adds `serving` to the commands of `goodseed`."""
    serving = commands.add_parser(
        "serving", help="choose which version of the model the tills get", allow_abbrev=False,
        description="Edits the versions and labels in a model server's --model_config_file.",
    )  # fmt: skip
    changes = serving.add_subparsers(required=True, metavar="CHANGE", dest="change")
    for name, text in {
        "load": "load a pushed version beside the others; no till gets it yet",
        "canary": "give a loaded version to the tills that ask for `canary`",
        "promote": "make the canary stable: every till gets it",
        "rollback": "make the version stable again that was stable before the last promotion",
    }.items():
        change = changes.add_parser(name, help=text, description=text, allow_abbrev=False)
        change.add_argument("file", metavar="FILE", type=Path, help="the server's models.config")
        if name == "load":
            change.add_argument("version", metavar="VERSION", type=_version)
        elif name == "canary":
            change.add_argument(
                "version", metavar="VERSION", type=_version_or_stable,
                help="or `stable`, which ends a trial",
            )  # fmt: skip
        change.add_argument("--model", metavar="NAME", help="its name, if FILE has more than one")
        change.add_argument(
            "--serving-root", metavar="DIR", type=Path,
            help="check that DIR/<model>/<version>/ exists for each version",
        )  # fmt: skip
        change.set_defaults(command=_serving)


def _version(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"{text!r} is not a version: versions are whole numbers")
    return int(text)


def _version_or_stable(text: str) -> int | None:
    return None if text == "stable" else _version(text)


def _serving(options: argparse.Namespace) -> int:
    from serving import labels

    changes: dict[str, Callable[[Any], None]] = {
        "load": lambda model: labels.load(model, options.version),
        "canary": lambda model: labels.canary(model, options.version),
        "promote": labels.promote,
        "rollback": labels.rollback,
    }
    try:
        lines = labels.edit(
            options.file, changes[options.change],
            name=options.model, serving_root=options.serving_root,
        )  # fmt: skip
    except labels.LabelError as error:
        raise UserError(str(error)) from None
    print(options.file, *lines, sep="\n  ")
    return 0

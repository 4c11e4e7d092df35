"""`goodseed serve`: a model server on this machine."""

from __future__ import annotations

from typing import Any

NAME = "serve"


def add_command(commands: Any) -> None:
    """Adds `serve` to the help of `goodseed`; `cli.main` calls `command` itself."""
    commands.add_parser(NAME, help="serve models as tensorflow_model_server does")


def command(flags: list[str]) -> int:
    """Runs a model server with tensorflow_model_server's flags; returns its exit status."""
    from serving.server import main

    return main.main(flags)

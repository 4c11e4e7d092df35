"""The `goodseed` command: parses the command line and calls a module of pipeline/commands."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import metadata

from components.errors import UserError
from pipeline import DISTRIBUTION
from pipeline.commands import ages, check, config, kfp, review, run, sample_photos, serve, serving
from pipeline.summary import INTERRUPTED, USER_MISTAKE

COMMANDS = (run, sample_photos, config, review, kfp, serve, serving, check, ages)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    0: pushed, or done; 1: a step failed; 2: a mistake of the user; 3: the gate stayed shut, or
    the advice for a photo is to ask for ID; 130: stopped with Ctrl-C.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the terminal may be unable to show a name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow turns oneDNN off on CPUs without instructions for neural networks. It is faster
    # there too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    given = sys.argv[1:] if arguments is None else list(arguments)
    # TFX passes the command line on to Beam, which would read --profile as an option of its own.
    del sys.argv[1:]
    try:
        if given[:1] == [serve.NAME]:  # argparse would refuse the server's flags
            return serve.command(given[1:])
        options = _parser().parse_args(given)
        return int(options.command(options))
    except UserError as error:
        return _mistake(str(error))
    except ModuleNotFoundError as error:
        # No index has our distributions: both are installed from the wheels of `make dist`.
        wheel = "goodseed_client" if error.name == "goodseed_client" else "goodseed_age_check"
        how = f"run `make dist`, then `pip install dist/{wheel}-*.whl`"
        return _mistake(f"no module {error.name}: {how}")
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="goodseed",
        description="Trains a model that estimates ages from photos, evaluates it and pushes it. "
        "Without a command it prints this help; exit status 0.",
    )
    version = f"goodseed {metadata.version(DISTRIBUTION)}"
    parser.add_argument("--version", action="version", version=version)

    def print_help(_: argparse.Namespace) -> int:
        parser.print_help()
        return 0

    parser.set_defaults(command=print_help)
    commands = parser.add_subparsers(metavar="COMMAND")
    for command in COMMANDS:
        command.add_command(commands)
    return parser


def _mistake(text: str) -> int:
    print(f"goodseed: {text}", file=sys.stderr)
    return USER_MISTAKE


if __name__ == "__main__":
    sys.exit(main())

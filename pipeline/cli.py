"""The `goodseed` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from components.errors import UserError
from pipeline import outcome
from pipeline.commands import ages, check, kfp, review, serving
from pipeline.outcome import INTERRUPTED, PUSHED, USER_MISTAKE


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status.

    0: pushed, or done; 1: a step failed; 2: a mistake of the user's; 3: the gate stayed shut, or
    a photo checked asks for ID; 130: stopped with Ctrl-C.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow leaves oneDNN off where a CPU has no instructions for neural networks. There, too,
    # it helps: 20 images/s trained instead of 10 (ResNet50 at 96 px, two cores of AVX2).
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    given = sys.argv[1:] if arguments is None else list(arguments)
    # TFX hands the command line on to Beam, which would take --profile for one of its own.
    del sys.argv[1:]
    try:
        if given[:1] == ["serve"]:
            return serving.serve(given[1:])
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
        description="Trains, judges and pushes a model that tells ages from photos.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run", help="run the pipeline on this machine", allow_abbrev=False,
        description="Runs the pipeline on this machine. Exit status: 0 pushed, 3 the gate stayed "
        "shut, 1 a step failed, 2 a mistake in the command or its files.",
    )  # fmt: skip
    run.add_argument("--photos", required=True, help="folder with a labels CSV and photos")
    run.add_argument("--run-dir", required=True, help="folder of the run, made where missing")
    run.add_argument(
        "--exclude", metavar="CSV", help="photos to leave out, as in a review's suspects.csv"
    )
    run.add_argument("--profile", default="cpu", help="demo, cpu or gpu (default: cpu)")
    run.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides",
        help="one option of pipeline/config.py instead of the profile's; may be repeated",
    )  # fmt: skip
    run.set_defaults(command=_run)

    sample = commands.add_parser(
        "sample-photos", help="draw a sample of faces with ages", allow_abbrev=False
    )
    sample.add_argument("folder", metavar="DIR", help="folder to make")
    sample.add_argument("--count", type=int, default=900, help="how many photos (default: 900)")
    sample.add_argument("--seed", type=int, default=0, help="another seed, other faces")
    sample.set_defaults(command=_sample_photos)

    review.add_commands(commands)
    kfp.add_commands(commands)
    serving.add_commands(commands)
    check.add_command(commands)
    ages.add_command(commands)
    return parser


def _mistake(text: str) -> int:
    print(f"goodseed: {text}", file=sys.stderr)
    return USER_MISTAKE


def _run(options: argparse.Namespace) -> NoReturn:
    from rich.console import Console

    from pipeline import config
    from pipeline.local import run_folder
    from serving import heap

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
    with run_folder.use(Path(loaded.run_dir)) as terminal:
        with console.status("loading TFX"), heap.permanent():
            from pipeline.local import runner

        document = runner.run(loaded, console)
        outcome.print_summary(document, console)
        if document["failure"]:
            print(f"goodseed: {document['failure']}", file=terminal)
            print(f"goodseed: the whole log is in {loaded.run_dir}/run.log", file=terminal)
        sys.stdout.flush()
        terminal.flush()
        # At once: TensorFlow's teardown has crashed after a full disk (SIGSEGV).
        os._exit(outcome.exit_status(document))


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
    return PUSHED


if __name__ == "__main__":
    sys.exit(main())

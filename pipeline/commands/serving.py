"""The commands of `goodseed` about models that are served: serve, serving, check, ages."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError

if TYPE_CHECKING:
    from goodseed_client import Advice

DONE, SERVER_FAILED, NOT_CLEARED = 0, 1, 3


def add_commands(commands: Any) -> None:
    """Adds them to what argparse's add_subparsers gave."""
    # Its flags are tensorflow_model_server's, in their form: `serve` takes them unread.
    commands.add_parser("serve", help="serve models as tensorflow_model_server does")
    _add_serving(commands)
    _add_check(commands)
    _add_ages(commands)


def serve(flags: list[str]) -> int:
    """Runs a model server with tensorflow_model_server's flags; returns its exit status."""
    from serving.server import main

    return main.main(flags)


def _add_serving(commands: Any) -> None:
    serving = commands.add_parser(
        "serving", help="say which version of the model tills get", allow_abbrev=False,
        description="Edits the versions and labels in a model server's --model_config_file.",
    )  # fmt: skip
    changes = serving.add_subparsers(required=True, metavar="CHANGE", dest="change")
    for name, text in {
        "load": "load a version that was pushed beside the others, for nobody yet",
        "canary": "give a loaded version to the tills that ask for `canary`",
        "promote": "make the canary stable: every till gets it",
        "rollback": "make stable again what was so before the last promotion",
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
        change.add_argument("--model", metavar="NAME", help="where FILE has more than one")
        change.add_argument(
            "--serving-root", metavar="DIR", type=Path,
            help="check that the versions are there, as DIR/<model>/<version>/",
        )  # fmt: skip
        change.set_defaults(command=_serving)


def _add_check(commands: Any) -> None:
    check = commands.add_parser(
        "check", help="ask a model server whether to ask for ID", allow_abbrev=False,
        description="Asks about each photo, as a till does. Exit status: 0 every advice is "
        "NO_CHALLENGE, 3 one is not, 2 a mistake in the command or its files.",
    )  # fmt: skip
    check.add_argument("photos", nargs="+", metavar="PHOTO", help="file of a photo")
    _add_server(check)
    check.add_argument(
        "--timeout", type=float, default=1.5, help="seconds for each photo (default: 1.5)"
    )
    check.add_argument(
        "--policy", metavar="FILE",
        help="JSON with legal_age and challenge_age in years (default: 18 and 25)",
    )  # fmt: skip
    check.add_argument("--audit", metavar="FILE", help="append a JSON line per advice to FILE")
    check.add_argument("--till", default="", help="name of the till in the audit file")
    check.add_argument("--json", action="store_true", help="print a line of JSON per photo")
    check.set_defaults(command=_check)


def _add_ages(commands: Any) -> None:
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
    _add_server(ages)
    ages.set_defaults(command=_ages)


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--server", default="localhost:8500", metavar="HOST:PORT",
        help="TensorFlow Serving's gRPC address (default: localhost:8500)",
    )  # fmt: skip
    parser.add_argument("--label", help="version label (default: stable where the server knows it)")
    parser.add_argument("--tls-ca", metavar="FILE", help="PEM of the authorities to trust")
    parser.add_argument("--tls-cert", metavar="FILE", help="PEM of the client's certificate")
    parser.add_argument("--tls-key", metavar="FILE", help="PEM of its key")


def _version(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"{text!r} is no version: they are whole numbers")
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
    return DONE


def _check(options: argparse.Namespace) -> int:
    from goodseed_client import AgeClient, Kind, Policy

    for photo in options.photos:
        if not Path(photo).is_file():
            raise UserError(f"{photo}: no such file")
    try:
        client = AgeClient(
            **_server(options),
            timeout=options.timeout,
            policy=Policy.load(options.policy) if options.policy else None,
            audit=options.audit,
            till=options.till,
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    cleared = True
    with client:
        for photo in options.photos:
            advice = client.check(photo)
            cleared &= advice.kind is Kind.NO_CHALLENGE
            print(_advice_json(photo, advice) if options.json else _advice_line(photo, advice))
    return DONE if cleared else NOT_CLEARED


def _advice_line(photo: str, advice: Advice) -> str:
    facts = [] if advice.age is None else [f"age {advice.age:.1f}"]
    if advice.model_version is not None:
        facts.append(f"version {advice.model_version}")
    facts.append(f"{advice.latency_ms:.0f} ms")
    return f"{photo}: {advice.kind}: {advice.message} ({', '.join(facts)})"


def _advice_json(photo: str, advice: Advice) -> str:
    return json.dumps(
        {
            "photo": photo,
            "advice": advice.kind,
            "reason": advice.reason,
            "age": advice.age,
            "model_version": advice.model_version,
            "latency_ms": round(advice.latency_ms, 1),
            "message": advice.message,
        }
    )


def _ages(options: argparse.Namespace) -> int:
    from goodseed_client import AgeClient, Failure, batch

    output = Path(options.output)
    try:
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress

        if output.suffix == ".parquet":
            import pyarrow.parquet  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(
            f"no module {error.name}: pip install 'goodseed[analytics]' brings it"
        ) from None
    if output.suffix not in (".csv", ".parquet"):
        raise UserError(f"{output}: --output should end in .csv or .parquet")
    if options.batch_size < 1:
        raise UserError(f"--batch-size {options.batch_size} should be at least 1")
    try:
        client = AgeClient(**_server(options))
        photos = batch.find(options.photos, options.column)
    except ValueError as error:
        raise UserError(str(error)) from None
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    try:
        with client, Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task("ages", total=len(photos.rows))
            aged = batch.write_ages(
                client, photos, output, options.batch_size,
                lambda done: progress.update(task, completed=done),
            )  # fmt: skip
    except Failure as failure:
        print(f"goodseed: {options.server}: {failure.detail}", file=sys.stderr)
        return SERVER_FAILED
    except OSError as error:
        raise UserError(f"{output}: {error.strerror}") from None
    why = "" if aged == len(photos.rows) else "; the column reason says why others have none"
    print(f"{output}: {len(photos.rows):,} photos, {aged:,} with an age{why}")
    return DONE


def _server(options: argparse.Namespace) -> dict[str, Any]:
    """What `_add_server` added, as arguments of AgeClient."""
    names = ("server", "label", "tls_ca", "tls_cert", "tls_key")
    return {name: getattr(options, name) for name in names}

"""`goodseed check`: ask a model server about photos, as a till does."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError

if TYPE_CHECKING:
    from goodseed_client import Advice

DONE, NOT_CLEARED = 0, 3


def add_command(commands: Any) -> None:
    """Adds `check` to the commands of `goodseed`."""
    check = commands.add_parser(
        "check", help="ask a model server whether to ask for ID", allow_abbrev=False,
        description="Asks about each photo, as a till does. Exit status: 0 every advice is "
        "NO_CHALLENGE, 3 one is not, 2 a mistake in the command or its files.",
    )  # fmt: skip
    check.add_argument("photos", nargs="+", metavar="PHOTO", help="file of a photo")
    add_server(check)
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


def add_server(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say how to reach a model server."""
    parser.add_argument(
        "--server", default="localhost:8500", metavar="HOST:PORT",
        help="TensorFlow Serving's gRPC address (default: localhost:8500)",
    )  # fmt: skip
    parser.add_argument("--label", help="version label (default: stable where the server knows it)")
    parser.add_argument("--tls-ca", metavar="FILE", help="PEM of the authorities to trust")
    parser.add_argument("--tls-cert", metavar="FILE", help="PEM of the client's certificate")
    parser.add_argument("--tls-key", metavar="FILE", help="PEM of its key")


def _check(options: argparse.Namespace) -> int:
    from goodseed_client import AgeClient, Kind, Policy

    for photo in options.photos:
        if not Path(photo).is_file():
            raise UserError(f"{photo}: no such file")
    try:
        client = AgeClient(
            **server(options),
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


def server(options: argparse.Namespace) -> dict[str, Any]:
    """What `add_server` added, as arguments of AgeClient."""
    names = ("server", "label", "tls_ca", "tls_cert", "tls_key")
    return {name: getattr(options, name) for name in names}

"""The options of every command that asks a model server."""

from __future__ import annotations

import argparse
from typing import Any


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the server's address, the version label and the files for TLS."""
    parser.add_argument(
        "--server", default="127.0.0.1:8500", metavar="HOST:PORT",
        help="TensorFlow Serving's gRPC address (default: 127.0.0.1:8500)",
    )  # fmt: skip
    parser.add_argument("--label", help="version label (default: stable, if the server knows it)")
    parser.add_argument("--tls-ca", metavar="FILE", help="PEM of the authorities to trust")
    parser.add_argument("--tls-cert", metavar="FILE", help="PEM of the client's certificate")
    parser.add_argument("--tls-key", metavar="FILE", help="PEM of its private key")


def client_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """These options as arguments of AgeClient."""
    names = ("server", "label", "tls_ca", "tls_cert", "tls_key")
    return {name: getattr(options, name) for name in names}

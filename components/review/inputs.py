"""What the page's sections read."""

from __future__ import annotations

import datetime
import getpass
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata as distributions
from pathlib import Path
from typing import Any

from pipeline import DISTRIBUTION

REVISION = "GOODSEED_REVISION"  # environment variable of the image


@dataclass(frozen=True)
class Artifact:
    """An input artifact, as the metadata store has it."""

    kind: str  # TFX's type name
    id: int  # in the metadata store; 0 where there is none
    uri: str  # as the metadata store names it (in KFP s3://…), for lineage only
    path: Path  # where this step reads it
    properties: Mapping[str, Any]  # properties and custom properties


@dataclass(frozen=True)
class RunFacts:
    """The run that the page is about."""

    who: str
    when: str  # UTC, ISO 8601
    code: str  # version and git revision
    run_id: str
    host: str


@dataclass(frozen=True)
class Inputs:
    """All that the sections read."""

    artifacts: Mapping[str, Artifact]
    settings: Mapping[str, Any]  # the whole configuration as plain values
    run: RunFacts


def run_facts(run_id: str, who: str) -> RunFacts:
    """Facts about the run of this process.

    Args:
        run_id: what the runner calls the run.
        who: who runs it; empty: the user of this process.
    """
    now = datetime.datetime.now(datetime.UTC)
    return RunFacts(
        who=who or _user(),
        when=now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        code=f"goodseed {distributions.version(DISTRIBUTION)}, {_revision()}",
        run_id=run_id,
        host=platform.node() or "not recorded",
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"


def _revision() -> str:
    """The git revision that the image was built from, or that is checked out here."""
    if revision := os.environ.get(REVISION):
        return f"revision {revision}"
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "revision not recorded"
    return f"revision {done.stdout.strip() or 'not recorded'}"

"""The data that the sections of the page read."""

from __future__ import annotations

import datetime
import getpass
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata as distributions
from pathlib import Path
from typing import Any

from pipeline import DISTRIBUTION, REVISION
from schemas.features import SPAN

NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Artifact:
    """An input artifact of the step, as the metadata store describes it."""

    kind: str  # TFX's type name
    id: int  # in the metadata store; 0 if the artifact is not in it
    uri: str  # from the metadata store (on Kubeflow s3://…); only shown in the lineage
    path: Path  # this step reads the artifact here
    properties: Mapping[str, Any]  # properties and custom properties


@dataclass(frozen=True)
class RunFacts:
    """Facts about the run that the page describes."""

    who: str
    when: str  # UTC, ISO 8601
    code: str  # version and git revision
    run_id: str
    host: str


@dataclass(frozen=True)
class Inputs:
    """Everything that the sections read."""

    artifacts: Mapping[str, Artifact]
    settings: Mapping[str, Any]  # the whole configuration as plain values
    run: RunFacts

    def property_of(self, artifact: str, name: str) -> Any:
        """A property of an artifact; None if there is no such artifact or property."""
        found = self.artifacts.get(artifact)
        return found.properties.get(name) if found else None

    @property
    def extra_columns(self) -> list[str]:
        """The names of the photos' string features that our own code does not make."""
        return list(json.loads(self.property_of("examples", "extra_columns") or "[]"))

    @property
    def newest_span(self) -> int | None:
        """The newest span of the photos; None if they are not in span folders."""
        return self.property_of("examples", "span") if SPAN in self.extra_columns else None

    @property
    def min_photos(self) -> int:
        """The number of photos that a group needs before the page judges it."""
        return int(self.settings["review"]["min_photos"])


def run_facts(run_id: str, who: str) -> RunFacts:
    """Facts about the run of this process.

    Args:
        run_id: the runner's name of the run.
        who: the person or account that runs it; empty: the user of this process.
    """
    now = datetime.datetime.now(datetime.UTC)
    return RunFacts(
        who=who or _user(),
        when=now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        code=f"goodseed {distributions.version(DISTRIBUTION)}, {_revision()}",
        run_id=run_id,
        host=platform.node() or NOT_RECORDED,
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, the user may have no name
        return f"user {os.getuid()}"


def _revision() -> str:
    """The git revision of the image, or of this checkout."""
    if revision := os.environ.get(REVISION):
        return f"revision {revision}"
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return f"revision {NOT_RECORDED}"
    return f"revision {done.stdout.strip() or NOT_RECORDED}"

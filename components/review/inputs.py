"""What the page's sections read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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

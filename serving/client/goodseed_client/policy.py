"""Whom to ask for ID: data (`policy.json`), and the one function that obeys it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from goodseed_client import wire
from goodseed_client.advice import Failure, Reason
from schemas.features import MAX_AGE

DEFAULT = Path(__file__).with_name("policy.json")


@dataclass(frozen=True)
class Policy:
    """The ages of a shop's policy, in years.

    Raises:
        ValueError: an age is no number, or not 0 < legal age ≤ challenge age ≤ 120.
    """

    legal_age: float  # below it, nothing may be sold
    challenge_age: float  # who looks younger is asked for ID

    def __post_init__(self) -> None:
        ages = asdict(self)
        for name, age in ages.items():
            if isinstance(age, bool) or not isinstance(age, int | float):
                raise ValueError(f"{name} is {age!r}, and should be a number of years")
        if not 0 < self.legal_age <= self.challenge_age <= MAX_AGE:
            raise ValueError(
                f"legal_age {self.legal_age} and challenge_age {self.challenge_age} should be"
                f" above 0, in this order, and at most {MAX_AGE:.0f}"
            )

    @classmethod
    def load(cls, path: str | PathLike[str] = DEFAULT) -> Policy:
        """The policy in a JSON file.

        Raises:
            ValueError: the file can't be read or is no policy; the text says what to put right.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"{path} is no JSON: {error}") from None
        names = {field.name for field in fields(cls)}
        if not isinstance(document, dict) or document.keys() != names:
            raise ValueError(f"{path} should have {', '.join(sorted(names))}, and nothing else")
        try:
            return cls(**document)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @cached_property
    def hash(self) -> str:
        """Which policy it was: the first 12 hex digits of the SHA-256 of its ages."""
        ages = {name: float(age) for name, age in asdict(self).items()}
        return hashlib.sha256(json.dumps(ages, sort_keys=True).encode()).hexdigest()[:12]


class Decision(NamedTuple):
    """An advice without the time that it took, and the cause of what went wrong."""

    reason: Reason
    age: float | None = None  # years
    model_version: int | None = None
    cause: str = ""  # for the log


def decide(answer: bytes | Failure, policy: Policy) -> Decision:
    """The advice on one photo, whatever the server said.

    OLD_ENOUGH comes of a valid age from the challenge age to 120 years, to which the model does not
    object (output `challenge`), and of nothing else.

    Args:
        answer: the bytes of a PredictResponse, or why there are none.
        policy: whom to ask for ID.
    """
    if isinstance(answer, Failure):
        return Decision(answer.reason, cause=answer.detail)
    version = None
    try:
        (prediction,), version = wire.read_answer(answer, photos=1)
        prediction.check()
    except Failure as failure:
        return Decision(failure.reason, None, version, failure.detail)
    age = prediction.age
    if age < policy.challenge_age:
        return Decision(Reason.TOO_YOUNG, age, version)
    if prediction.challenge:
        return Decision(Reason.MODEL_SAYS_SO, age, version)
    return Decision(Reason.OLD_ENOUGH, age, version)

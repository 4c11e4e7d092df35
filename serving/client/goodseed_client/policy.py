"""Who is asked for ID: the policy (`policy.json`), and the function that applies it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from goodseed_client import wire
from goodseed_client.advice import OBJECTIONS, Failure, Reason
from goodseed_client.ages import MAX_AGE

DEFAULT = Path(__file__).with_name("policy.json")


@dataclass(frozen=True)
class Policy:
    """The ages of a shop's policy, in years.

    Raises:
        ValueError: an age is not a number, or not 0 < legal age ≤ challenge age ≤ 120.
    """

    legal_age: float  # younger customers may not buy
    challenge_age: float  # customers who look younger than this are asked for ID

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
        """Reads a policy from a JSON file.

        Raises:
            ValueError: the file can't be read or is not a policy; the text says what to correct.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
        names = {field.name for field in fields(cls)}
        if not isinstance(document, dict) or document.keys() != names:
            raise ValueError(f"{path} should have {', '.join(sorted(names))}, and nothing else")
        try:
            return cls(**document)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @cached_property
    def hash(self) -> str:
        """Identifies the policy: the first 12 hex digits of the SHA-256 of its ages."""
        ages = {name: float(age) for name, age in asdict(self).items()}
        return hashlib.sha256(json.dumps(ages, sort_keys=True).encode()).hexdigest()[:12]


class Decision(NamedTuple):
    """An advice before its time is known, and what went wrong."""

    reason: Reason
    age: float | None = None  # years
    model_version: int | None = None
    cause: str = ""  # for the log


def decide(answer: bytes | Failure, policy: Policy) -> Decision:
    """The advice on one photo, for any answer of the server.

    The reason is OLD_ENOUGH only if the age is valid and between the challenge age and 120 years,
    the model's output `objection` is empty, and its output `challenge` is false. An objection
    comes before TOO_YOUNG: the age of a photo without a face says nothing about the customer. So a
    decision by objection has no age.

    Args:
        answer: the bytes of a PredictResponse, or why there is no answer.
        policy: the shop's policy.
    """
    if isinstance(answer, Failure):
        return Decision(answer.reason, cause=answer.detail)
    version = None
    try:
        (prediction,), version = wire.read_answer(answer, photos=1)
        prediction.check()
        _check_guard(prediction)
    except Failure as failure:
        return Decision(failure.reason, None, version, failure.detail)
    age = prediction.age
    if age < policy.challenge_age:
        return Decision(Reason.TOO_YOUNG, age, version)
    if prediction.challenge:
        return Decision(Reason.MODEL_SAYS_SO, age, version)
    return Decision(Reason.OLD_ENOUGH, age, version)


def _check_guard(prediction: wire.Prediction) -> None:
    """Checks that the model has a guard against photos without a face, and that it lets this pass.

    Raises:
        Failure: UNGUARDED_MODEL, one of OBJECTIONS, or BAD_PHOTO; MODEL_SAYS_SO for an objection
            that this client does not know.
    """
    objection = prediction.objection
    if objection is None or prediction.challenge is None:
        missing = wire.OBJECTION if objection is None else wire.CHALLENGE
        raise Failure(Reason.UNGUARDED_MODEL, f"the model has no output {missing}")
    if objection == "no_photo":
        raise Failure(Reason.BAD_PHOTO, "the model could not read the photo")
    if objection in OBJECTIONS:
        raise Failure(Reason(objection), "the model objects to the photo")
    if objection:
        raise Failure(Reason.MODEL_SAYS_SO, f"an unknown objection: {objection[:50]!r}")

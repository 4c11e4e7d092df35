"""The challenge age: who looks at least so old passes without ID. And the proof for it.

The proof is a fixed-sequence test on photos with known ages. Each challenge age stands for a claim:
at most this share of minors looks so old. The claims are tested one after the other, from the
highest age down. The tests stop before the first claim that is not proved. So the chance that any
of the accepted claims is wrong is at most 5 %, without a correction for the number of tests (Bauer
1991, Statistics in Medicine 10, 871-890; Angelopoulos et al. 2021, arXiv:2110.01052).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import betaincinv

from pipeline import config
from schemas import features

FILE = "certificate.json"  # an asset of the SavedModel
CONFIDENCE = 0.95  # one-sided
HARD_YEARS = 3  # the hardest minors are those of the last years below the legal age
STEP = 0.5  # years
CAVEAT = (
    "The split eval also chose the epoch and the limit of the guard, so the proof is a little too "
    "good. The test split checks it."
)


@dataclass(frozen=True)
class Group:
    """How many people of an age group pass without ID.

    Attributes:
        youngest, oldest: ages in whole years; `oldest` is None for the last group.
        photos: number of the group's photos without an objection.
        passed: how many of them are estimated at the challenge age or above.
    """

    youngest: int
    oldest: int | None
    photos: int
    passed: int

    @property
    def name(self) -> str:
        """The ages in words."""
        return group_name(self.youngest, self.oldest)

    @property
    def aged(self) -> str:
        """The ages as they stand after "people": "below 18", "aged 15 to 17"."""
        return f"aged {self.name}" if self.youngest else self.name

    @property
    def upper(self) -> float:
        """The upper end of the one-sided 95 % interval of the share that passes, 0 to 1.

        It is Clopper & Pearson's (1934, Biometrika 26, 404-413).
        """
        return _upper(self.passed, self.photos)

    @property
    def lower(self) -> float:
        """The lower end of the same interval on the other side, 0 to 1."""
        if not self.passed:
            return 0.0
        return float(betaincinv(self.passed, self.photos - self.passed + 1, 1 - CONFIDENCE))


@dataclass(frozen=True)
class Proof(Group):
    """A group of minors, and what is to be proved about it.

    Attributes:
        max_share: the largest share that may pass, 0 to 1.
        missing: number of further photos without which nothing can be proved.
    """

    max_share: float
    missing: int


@dataclass(frozen=True)
class Certificate:
    """A challenge age and its proofs, on photos of the split eval.

    Attributes:
        challenge_age: years; None: the model challenges everybody.
        certified: whether both proofs hold at the challenge age.
        legal_age: years.
        proofs: one of all minors, one of the hardest.
        caveat: what the proofs do not cover.
    """

    challenge_age: float | None
    certified: bool
    legal_age: int
    proofs: tuple[Proof, ...]
    caveat: str = CAVEAT

    @property
    def threshold(self) -> float:
        """The challenge age, years; infinity if the model challenges everybody."""
        return math.inf if self.challenge_age is None else self.challenge_age

    def write(self, file: Path) -> None:
        """Writes the certificate as JSON."""
        file.write_text(json.dumps(asdict(self), indent=1))

    def sentences(self) -> list[str]:
        """The certificate in plain words."""
        if self.certified:
            return [
                f"Customers who look {self.challenge_age:g} or older pass without ID.",
                *(
                    f"Of 100 customers {proof.aged}, at most {math.ceil(100 * proof.upper)} pass "
                    f"without ID (95 % sure, {proof.passed:,} of {proof.photos:,} eval photos)."
                    for proof in self.proofs
                ),
            ]
        missing = " and ".join(
            f"{proof.missing:,} more eval photos of people {proof.aged}"
            for proof in self.proofs
            if proof.missing
        )
        needed = f"It takes {missing} to prove one." if missing else "Its errors are too large."
        if self.challenge_age is None:
            return [f"No challenge age is proved, so the model challenges everybody. {needed}"]
        return [
            f"NOT PROVED: customers who look {self.challenge_age:g} or older pass without ID, "
            f"because policy.uncertified allows it. {needed}"
        ]


def read(file: Path) -> Certificate:
    """The certificate in a file that `Certificate.write` wrote."""
    values: Mapping[str, Any] = json.loads(file.read_text())
    proofs = tuple(Proof(**proof) for proof in values["proofs"])
    return Certificate(**{**values, "proofs": proofs})


def certify(ages: np.ndarray, estimates: np.ndarray, policy: config.Policy) -> Certificate:
    """Finds the lowest challenge age that is proved.

    Args:
        ages: real ages, years [N].
        estimates: the model's ages of the same photos, years [N]; all without an objection.
        policy: the `policy` section of the configuration.
    """
    groups = (
        (0, policy.max_minor_pass_rate),
        (max(policy.legal_age - HARD_YEARS, 0), policy.max_hard_pass_rate),
    )
    oldest = policy.legal_age - 1
    lowest = [
        _lowest(estimates[within(ages, youngest, oldest)], share) for youngest, share in groups
    ]
    proved = [age for age in lowest if age is not None]
    certified = len(proved) == len(groups)
    at = math.inf
    if certified:
        at = max(*proved, policy.min_challenge_age)
    elif policy.uncertified == "min_challenge_age":
        at = policy.min_challenge_age
    proofs = []
    for youngest, share in groups:
        counts = asdict(count(ages, estimates, youngest, oldest, at))
        missing = max(0, photos_needed(share) - counts["photos"])
        proofs.append(Proof(**counts, max_share=share, missing=missing))
    challenge_age = at if math.isfinite(at) else None
    return Certificate(challenge_age, certified, policy.legal_age, tuple(proofs))


def count(
    ages: np.ndarray, estimates: np.ndarray, youngest: int, oldest: int | None, at: float
) -> Group:
    """The people of an age group, and how many of them are estimated at `at` years or above."""
    group = estimates[within(ages, youngest, oldest)]
    return Group(youngest, oldest, len(group), int(np.sum(group >= at)))


def adult_groups(legal_age: int) -> list[tuple[int, int | None]]:
    """The youngest and the oldest age of each group of adults in reports; the last has no end."""
    starts = [legal_age, *(age for age in (25, 35) if age > legal_age)]
    ends = [*(start - 1 for start in starts[1:]), None]
    return list(zip(starts, ends, strict=True))


def group_name(youngest: int, oldest: int | None) -> str:
    """The ages of a group in words: "below 18", "15 to 17", "35 and older"."""
    if oldest is None:
        return f"{youngest} and older"
    return f"{youngest} to {oldest}" if youngest else f"below {oldest + 1}"


def photos_needed(max_share: float) -> int:
    """The smallest number of photos that proves a share at all, if none of them passes.

    Without a failure, the Clopper-Pearson bound of n photos is 1 - 0.05^(1/n).
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-max_share))


def within(ages: np.ndarray, youngest: int, oldest: int | None) -> np.ndarray:
    """Which ages, in years, belong to a group, bool [N]."""
    return (ages >= youngest) & (ages < (math.inf if oldest is None else oldest + 1))


def _upper(passed: int, photos: int) -> float:
    if passed == photos:
        return 1.0
    return float(betaincinv(passed + 1, photos - passed, CONFIDENCE))


def _lowest(estimates: np.ndarray, max_share: float) -> float | None:
    """The last challenge age of the fixed sequence that is proved, years; None if none is."""
    proved = None
    for age in np.arange(features.MAX_AGE, -STEP, -STEP):
        if _upper(int(np.sum(estimates >= age)), len(estimates)) > max_share:
            break
        proved = float(age)
    return proved

"""Who passes without ID: who looks old enough, and is hardly a minor. And the proof for it.

The proof is a fixed-sequence test on photos with known ages. Each limit of the probability of being
a minor stands for a claim: at most this share of minors passes. The claims are tested one after the
other, from the strictest limit up. The tests stop before the first claim that is not proved. So the
chance that any of the accepted claims is wrong is at most 5 %, without a correction for the number
of tests (Bauer 1991, Statistics in Medicine 10, 871-890; Angelopoulos et al. 2021,
arXiv:2110.01052).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import betaincinv

from pipeline import config

FILE = "certificate.json"  # an asset of the SavedModel
CONFIDENCE = 0.95  # one-sided
HARD_YEARS = 3  # the hardest minors are those of the last years below the legal age
STEP = 0.0001  # of the probability of being a minor; most limits are a few percent
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
        passed: how many of them pass without ID.
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
        return float(_upper(np.array(self.passed), self.photos))

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
    """A rule and its proofs, on photos of the split eval.

    Attributes:
        challenge_age: estimates below it are challenged, years; None: everybody is.
        max_p_minor: higher probabilities of being a minor are challenged, 0 to 1; None: none is.
        certified: whether both proofs hold.
        legal_age: years.
        proofs: one of all minors, one of the hardest.
        caveat: what the proofs do not cover.
    """

    challenge_age: float | None
    max_p_minor: float | None
    certified: bool
    legal_age: int
    proofs: tuple[Proof, ...]
    caveat: str = CAVEAT

    def passes(self, estimates: Any, p_minor: Any) -> Any:
        """Who passes without ID, bool [N]; not those whose figures are NaN.

        Args:
            estimates: the model's ages, years [N], as an array or a tensor.
            p_minor: their probabilities of being a minor, 0 to 1 [N].
        """
        age = math.inf if self.challenge_age is None else self.challenge_age
        limit = math.inf if self.max_p_minor is None else self.max_p_minor
        return (estimates >= age) & (p_minor <= limit)

    def write(self, file: Path) -> None:
        """Writes the certificate as JSON."""
        file.write_text(json.dumps(asdict(self), indent=1), "utf-8")

    def sentences(self) -> list[str]:
        """The certificate in plain words."""
        if self.certified:
            rule = f"Customers pass without ID if they look {self.challenge_age:g} or older"
            if self.max_p_minor != 1:
                rule += f" and are minors with a probability of at most {self.max_p_minor:.2%}"
            return [
                f"{rule}.",
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
        needed = f"A proof takes {missing}." if missing else "Its errors are too large."
        if self.challenge_age is None:
            return [f"Nothing is proved about minors, so the model challenges everybody. {needed}"]
        return [
            f"NOT PROVED: customers who look {self.challenge_age:g} or older pass without ID, "
            f"because policy.uncertified allows it. {needed}"
        ]


def read(file: Path) -> Certificate:
    """The certificate in a file that `Certificate.write` wrote."""
    values: Mapping[str, Any] = json.loads(file.read_text("utf-8"))
    proofs = tuple(Proof(**proof) for proof in values["proofs"])
    return Certificate(**{**values, "proofs": proofs})


def certify(
    ages: np.ndarray, estimates: np.ndarray, p_minor: np.ndarray, policy: config.Policy
) -> Certificate:
    """Finds the largest limit of the probability of being a minor that is proved.

    Args:
        ages: real ages, years [N].
        estimates: the model's ages of the same photos, years [N]; all without an objection.
        p_minor: their probabilities of being a minor, 0 to 1 [N].
        policy: the `policy` section of the configuration.
    """
    youngest_hard, oldest = hard_minors(policy.legal_age)
    groups = ((0, policy.max_minor_pass_rate), (youngest_hard, policy.max_hard_pass_rate))
    old_enough = estimates >= policy.min_challenge_age
    limits = []
    for youngest, share in groups:
        chosen = within(ages, youngest, oldest)
        limits.append(_largest(p_minor[chosen & old_enough], int(chosen.sum()), share))
    proved = [limit for limit in limits if limit is not None]
    certified = len(proved) == len(groups)
    open_ = certified or policy.uncertified == "min_challenge_age"
    rule = Certificate(
        policy.min_challenge_age if open_ else None,
        min(proved) if certified else None,
        certified,
        policy.legal_age,
        (),
    )
    passes = rule.passes(estimates, p_minor)
    proofs = []
    for youngest, share in groups:
        group = count(ages, passes, youngest, oldest)
        missing = max(0, photos_needed(share) - group.photos)
        proofs.append(Proof(**asdict(group), max_share=share, missing=missing))
    return replace(rule, proofs=tuple(proofs))


def count(ages: np.ndarray, passes: np.ndarray, youngest: int, oldest: int | None) -> Group:
    """The people of an age group, and how many of them pass.

    Args:
        ages: real ages, years [N].
        passes: who passes without ID, bool [N].
        youngest: first age of the group, whole years.
        oldest: its last age, whole years; None: it has no end.
    """
    chosen = within(ages, youngest, oldest)
    return Group(youngest, oldest, int(chosen.sum()), int(passes[chosen].sum()))


def hard_minors(legal_age: int) -> tuple[int, int]:
    """The youngest and the oldest age of the hardest minors, whole years."""
    return max(legal_age - HARD_YEARS, 0), legal_age - 1


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


def _upper(passed: np.ndarray, photos: int) -> np.ndarray:
    """The upper end of the one-sided 95 % interval, for each number of those who pass."""
    failed = np.maximum(photos - passed, 1)  # without any, the end is 1
    return np.where(passed < photos, betaincinv(passed + 1, failed, CONFIDENCE), 1.0)


def _largest(p_minor: np.ndarray, photos: int, max_share: float) -> float | None:
    """The last limit of the fixed sequence that is proved; None if none is.

    Args:
        p_minor: of the minors who look old enough, 0 to 1.
        photos: number of all minors.
        max_share: the claim: at most this share of them passes.
    """
    limits = np.arange(0, 1 + STEP / 2, STEP)
    passed = np.searchsorted(np.sort(p_minor), limits, side="right")
    proved = _upper(passed, photos) <= max_share
    first = len(limits) if proved.all() else int(np.argmin(proved))  # that is not proved
    return round(float(limits[first - 1]), 4) if first else None

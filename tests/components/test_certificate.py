"""Who passes without ID, and whether the proof is sound."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import binom, binomtest, norm

from components.certificate import (
    STEP,
    Certificate,
    Group,
    adult_groups,
    certify,
    count,
    photos_needed,
    read,
)
from pipeline.config import Policy

# Real ages and estimates, years, and the probability of being a minor.
Photos = tuple[np.ndarray, np.ndarray, np.ndarray]

ANY_AGE = Policy(min_challenge_age=0)


def people(count: int, spread: float, seed: int = 0, oldest: float = 90) -> Photos:
    """People whose errors are normal with this standard deviation, years."""
    random = np.random.default_rng(seed)
    ages = random.uniform(0, oldest, count)
    estimates = ages + random.normal(0, spread, count)
    return ages, estimates, p_minor(estimates)


def p_minor(estimates: np.ndarray) -> np.ndarray:
    """A probability of being a minor; calibrated or not, it falls with the estimate."""
    return np.asarray(expit((18 - estimates) / 4))


@given(st.integers(0, 300), st.integers(1, 300))
def test_the_bounds_are_clopper_and_pearsons(passed: int, photos: int) -> None:
    passed = min(passed, photos)
    group = Group(0, 17, photos, passed)
    above = binomtest(passed, photos, alternative="less").proportion_ci(0.95, "exact").high
    below = binomtest(passed, photos, alternative="greater").proportion_ci(0.95, "exact").low
    assert group.upper == pytest.approx(above, abs=1e-9)
    assert group.lower == pytest.approx(below, abs=1e-9)


def test_a_group_without_photos_is_not_proved() -> None:
    assert Group(15, 17, 0, 0).upper == 1 and Group(15, 17, 0, 0).lower == 0


def true_share(youngest: int, spread: float, limit: float) -> float:
    """The share of all people of `youngest` to 17 years whose probability is at most `limit`."""
    ages = np.linspace(youngest, 18, 2001)
    return float(np.mean(norm.sf(18 - 4 * logit(limit), ages, spread)))


def test_each_bound_is_violated_in_at_most_five_percent_of_populations() -> None:
    """A limit that lets too many minors pass is certified in at most 5 % of the cases."""
    violated, certified = np.zeros(2, int), 0
    random = np.random.default_rng(0)
    for seed in range(1000):
        spread = random.uniform(2, 12)
        photos = people(int(random.integers(250, 1500)), spread, seed, oldest=18)
        found = certify(*photos, ANY_AGE)
        certified += found.certified
        if found.certified:
            # One bound after the other: the stricter limit would hide a wrong laxer one.
            for at, (youngest, share) in enumerate(((0, 0.05), (15, 0.1))):
                alone = ANY_AGE.model_copy(
                    update={"max_hard_pass_rate": 0.999} if at == 0 else
                    {"max_minor_pass_rate": 0.999}
                )  # fmt: skip
                limit = certify(*photos, alone).max_p_minor
                assert limit is not None
                violated[at] += true_share(youngest, spread, limit) > share
    assert certified > 900
    most = binom.ppf(0.999, 1000, 0.05)
    assert (violated <= most).all() and (violated > 0).all(), violated


def test_the_proved_limit_is_the_highest_one() -> None:
    """A step more would not be proved any more."""
    ages, estimates, probabilities = people(5000, 6)
    found = certify(ages, estimates, probabilities, ANY_AGE)
    assert found.certified and found.max_p_minor is not None
    for proof in found.proofs:
        assert proof.upper <= proof.max_share
        assert proof.passed == np.sum(
            (ages >= proof.youngest) & (ages < 18) & (probabilities <= found.max_p_minor)
        )
    passes = probabilities <= found.max_p_minor + STEP
    above = [count(ages, passes, proof.youngest, 17) for proof in found.proofs]
    assert any(
        group.upper > proof.max_share for group, proof in zip(above, found.proofs, strict=True)
    )


def test_it_stops_at_the_first_limit_that_is_not_proved() -> None:
    """Of 100 minors, 3 pass at 0.2 %, and 60 at 40 %."""
    ages, estimates = np.full(100, 16.0), np.full(100, 60.0)
    probabilities = np.array([0.002] * 3 + [0.4] * 57 + [1.0] * 40)
    for policy, limit in ((Policy(), 0.0019), (Policy(max_minor_pass_rate=0.08), 0.3999)):
        assert certify(ages, estimates, probabilities, policy).max_p_minor == limit


def test_who_looks_too_young_is_asked_whatever_is_proved() -> None:
    photos = people(2000, 0.5)
    found = certify(*photos, Policy())
    assert found.challenge_age == 25 and found.max_p_minor == 1
    assert found.passes(*photos[1:]).tolist() == (photos[1] >= 25).tolist()
    assert certify(*photos, Policy(min_challenge_age=21)).challenge_age == 21


def test_who_has_no_figures_does_not_pass() -> None:
    everybody = Certificate(0.0, None, False, 18, ())
    nobody = Certificate(None, None, False, 18, ())
    figures = np.array([40.0, np.nan, 40.0]), np.array([0.5, 0.5, np.nan])
    assert everybody.passes(*figures).tolist() == [True, False, False]
    assert not nobody.passes(*figures).any()


@pytest.mark.parametrize(("share", "photos"), [(0.05, 59), (0.1, 29), (0.01, 299)])
def test_photos_without_a_failure_that_prove_a_share(share: float, photos: int) -> None:
    assert photos_needed(share) == photos
    assert Group(0, 17, photos, 0).upper <= share < Group(0, 17, photos - 1, 0).upper


def test_too_few_minors_challenge_everybody_and_say_how_many_are_missing() -> None:
    ages = np.array([*[10.0] * 40, *[16.0] * 9, *[40.0] * 500])
    found = certify(ages, ages, p_minor(ages), Policy())
    assert (found.challenge_age, found.max_p_minor, found.certified) == (None, None, False)
    (sentence,) = found.sentences()
    assert "challenges everybody" in sentence
    assert "10 more eval photos of people below 18" in sentence
    assert "20 more eval photos of people aged 15 to 17" in sentence
    allowed = certify(ages, ages, p_minor(ages), Policy(uncertified="min_challenge_age"))
    assert (allowed.challenge_age, allowed.max_p_minor, allowed.certified) == (25, None, False)
    assert allowed.sentences()[0].startswith("NOT PROVED")


def test_no_minors_at_all() -> None:
    found = certify(np.array([40.0]), np.array([40.0]), np.array([0.0]), Policy())
    assert found.challenge_age is None
    assert [proof.missing for proof in found.proofs] == [59, 29]


def test_the_sentences_of_a_certificate() -> None:
    found = certify(*people(2000, 6), Policy())
    first, *groups = found.sentences()
    assert first == (
        "Customers pass without ID if they look 25 or older and are minors with a probability of "
        f"at most {found.max_p_minor:.2%}."
    )
    (simple, *_) = certify(*people(2000, 0.5), Policy()).sentences()
    assert simple == "Customers pass without ID if they look 25 or older."
    assert groups[0].startswith("Of 100 customers below 18, at most ")
    assert groups[1].startswith("Of 100 customers aged 15 to 17, at most ")


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    for spread in (3, 40):
        found = certify(*people(900, spread), Policy())
        found.write(tmp_path / "certificate.json")
        assert read(tmp_path / "certificate.json") == found
        json.loads((tmp_path / "certificate.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("legal_age", "groups"),
    [
        (18, [(18, 24), (25, 34), (35, None)]),
        (25, [(25, 34), (35, None)]),
        (30, [(30, 34), (35, None)]),
        (40, [(40, None)]),
    ],
)
def test_the_groups_of_adults(legal_age: int, groups: list[tuple[int, int | None]]) -> None:
    assert adult_groups(legal_age) == groups


def test_a_young_legal_age() -> None:
    found = certify(*people(3000, 1), Policy(legal_age=2, min_challenge_age=0))
    assert [proof.name for proof in found.proofs] == ["below 2", "below 2"]
    assert isinstance(found, Certificate)

"""The correction of counted age groups."""

from __future__ import annotations

import numpy as np
import pytest
from goodseed_client.ages import AgeGroups
from hypothesis import given, settings
from hypothesis import strategies as st

from components import confusion
from components.confusion import Confusion
from components.intervals import Figure

GROUPS = AgeGroups.parse("0-17,18-24,25-34,35+")
STARTS, ENDS = np.array([0, 18, 25, 35]), np.array([18, 25, 35, 80])
MIXTURE = np.array([0.02, 0.38, 0.2, 0.4])  # of the customers


def estimated(random: np.random.Generator, ages: np.ndarray) -> np.ndarray:
    """What a model with a bias of a year and an MAE of about 5 years says."""
    return np.maximum(ages + 1 + random.normal(0, 6, len(ages)), 0)


def measured(random: np.random.Generator, photos: int = 4000) -> Confusion:
    """The confusion on eval photos, which have another mixture of ages than the customers."""
    ages = random.uniform(0, 80, photos)
    return confusion.count(ages, estimated(random, ages))


def customers(random: np.random.Generator, count: int) -> list[int]:
    """How many customers with MIXTURE the model puts into each group."""
    groups = random.choice(4, count, p=MIXTURE)
    said = estimated(random, random.uniform(STARTS[groups], ENDS[groups]))
    return [sum(GROUPS.of(age) == name for age in said) for name in GROUPS.names]


def correct(table: Confusion, counts: list[int], groups: AgeGroups = GROUPS) -> list[Figure]:
    return confusion.corrected(table, groups.names, groups.of, counts, 0)


def test_a_known_mixture_is_recovered() -> None:
    random = np.random.default_rng(0)
    counts = customers(random, 20_000)
    as_counted = np.array(counts) / sum(counts)
    assert np.abs(as_counted - MIXTURE).max() > 0.05  # otherwise there would be nothing to correct
    found = correct(measured(random, 100_000), counts)
    assert [share.value for share in found] == pytest.approx(list(MIXTURE), abs=0.04)
    assert all(one.low <= share <= one.high for one, share in zip(found, MIXTURE, strict=True))


@pytest.mark.slow
def test_the_intervals_cover_the_mixture() -> None:
    random = np.random.default_rng(1)
    covered = [
        one.low <= share <= one.high
        for _ in range(60)
        for one, share in zip(
            correct(measured(random, 1000), customers(random, 1000)), MIXTURE, strict=True
        )
    ]
    assert np.mean(covered) > 0.88


def test_without_errors_nothing_changes() -> None:
    table = {(age, age): 5 for age in range(80)}
    found = correct(table, [10, 20, 30, 40])
    assert [share.value for share in found] == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1e-6)


def test_customers_outside_the_groups_are_no_part_of_the_shares() -> None:
    """20 of 60 adults are taken for minors, who are in no group."""
    table = {(10, 10): 50, (20, 20): 40, (20, 10): 20, (40, 40): 60}
    groups = AgeGroups.parse("18-24,25+")
    found = confusion.corrected(table, groups.names, groups.of, [40, 60], 120)
    assert [share.value for share in found] == pytest.approx([0.5, 0.5], abs=1e-3)


def test_a_group_without_eval_photos() -> None:
    with pytest.raises(ValueError, match="on no photo of the age group 35\\+"):
        correct({(10, 10): 5, (20, 20): 5, (30, 30): 5}, [1, 1, 1, 1])


def test_no_customers() -> None:
    found = correct({(age, age): 5 for age in range(80)}, [0, 0, 0, 0])
    assert all(0 <= share.low <= share.high <= 1 for share in found)


@given(
    photos=st.lists(st.tuples(st.floats(0, 120), st.floats(0, 120)), max_size=50),
)
@settings(deadline=None)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, photos: list[tuple[float, float]]
) -> None:
    file = tmp_path_factory.mktemp("confusion") / confusion.FILE
    ages, estimates = (np.array([pair[at] for pair in photos]) for at in (0, 1))
    counted = confusion.count(ages, estimates)
    assert sum(counted.values()) == len(photos)
    confusion.write(counted, file)
    assert confusion.read(file) == counted

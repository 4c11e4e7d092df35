"""The client's own copies of names and age groups are those of the schemas."""

from __future__ import annotations

import pytest
from goodseed_client import ages, batch, wire
from goodseed_client.advice import OBJECTIONS
from hypothesis import given
from hypothesis import strategies as st

features = pytest.importorskip("schemas.features")


def test_the_names_are_those_of_the_schemas() -> None:
    assert ages.MAX_AGE == features.MAX_AGE
    assert ages.AGE_GROUPS == features.AGE_BANDS
    assert (wire.IMAGE, wire.AGE, wire.VALID) == (features.IMAGE, features.AGE, features.VALID)
    assert (wire.OBJECTION, wire.CHALLENGE) == (features.OBJECTION, features.CHALLENGE)
    assert {*OBJECTIONS, features.NO_PHOTO} == {*features.OBJECTIONS}
    assert batch.FILE_NAME == features.FILE_NAME


@given(st.floats(0, ages.MAX_AGE))
def test_the_groups_are_the_bands_of_the_schemas(age: float) -> None:
    assert ages.age_group(age) == features.age_band(age)

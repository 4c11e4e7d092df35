"""The reference population: a valid table is read, any other gives a message of one line."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import UserError
from components.review import population
from schemas import features

SOURCE = "# Exampleland, 1 May 2024. Source: its Office of Statistics\n"
BANDS = [f"{first}-{after - 1}" for first, after in pairwise(features.AGE_BAND_STARTS)] + ["65+"]


def table(*rows: str, head: str = SOURCE) -> str:
    return head + "\n".join(["age,people", *rows]) + "\n"


def test_the_bundled_table() -> None:
    germany = population.read(None)
    assert "Destatis" in germany.source
    assert list(germany.shares) == list(features.AGE_BANDS)
    assert sum(germany.shares.values()) == pytest.approx(1)
    minors = 784787 + 774302 + 794814 + 791835 + 780817
    assert germany.shares["13–17"] == pytest.approx(minors / 84_669_326)


@given(st.lists(st.integers(0, 10**9), min_size=9, max_size=9).filter(any))
def test_a_row_for_each_band(people: list[int]) -> None:
    found = population.parse(table(*(f"{b}, {n}" for b, n in zip(BANDS, people, strict=True))))
    assert found.source == SOURCE.strip("# \n")
    assert list(found.shares.values()) == pytest.approx([n / sum(people) for n in people])


@given(st.lists(st.floats(0, 1e9), min_size=66, max_size=121).filter(any))
def test_a_row_for_each_year(people: list[float]) -> None:
    last = len(people) - 1
    rows = [f"{age}{'+' if age == last else ''},{n!r}" for age, n in enumerate(people)]
    shares = population.parse(table(*rows)).shares
    assert shares["18–20"] == pytest.approx(sum(people[18:21]) / sum(people))


@given(st.text() | st.lists(st.text(), max_size=9).map(lambda rows: table(*rows)))
def test_any_other_text_gives_a_message_of_one_line(text: str) -> None:
    try:
        shares = population.parse(text).shares
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (table("0+,1", head=""), "name the source of the figures"),
        ("", "name the source of the figures"),
        (SOURCE, "has to be age,people"),
        (SOURCE + "alter,leute\n", "has to be age,people"),
        (table(), "0+"),
        (table("0-12,5", "14-17,5"), "line 4: the next age has to be 13, not 14"),
        (table("0-12,5", "12-17,5"), "line 4: the next age has to be 13, not 12"),
        (table("0-14,5"), "line 3: the ages lie in the bands 0–12 and 13–17"),
        (table("0+,5"), "line 3: the ages lie in the bands 0–12 and 65+"),
        (table("0-12,5"), "13+"),
        (table("twelve,5"), "line 3: 'twelve' is not an age"),
        (table("0-12,many"), "line 3: 'many' is not a number of people"),
        (table("0-12,-1"), "line 3: '-1' is not a number of people"),
        (table("0-12,nan"), "line 3: 'nan' is not a number of people"),
        (table("0-12,1,000"), "line 3: 3 cells instead of 2"),
        (table('0-12,"5'), "line 3: "),
        (table("12-0,5"), "line 3: '12-0' ends before it starts"),
        (table(*(f"{band},0" for band in BANDS)), "the sum of the people is not a number above 0"),
    ],
)
def test_a_wrong_table(text: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text(text, "utf-8")
    with pytest.raises(UserError) as raised:
        population.read(str(file))
    assert str(raised.value).startswith(f"review.population: {file}: ")
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.csv: No such file"):
        population.read(str(tmp_path / "nowhere.csv"))
    (tmp_path / "latin.csv").write_bytes("# Bevölkerung\n".encode("latin-1"))
    with pytest.raises(UserError, match="not text in UTF-8"):
        population.read(str(tmp_path / "latin.csv"))

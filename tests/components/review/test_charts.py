"""Charts follow the page's colours, have a description, and contain no scripts."""

from __future__ import annotations

import itertools
import re
from importlib import resources
from xml.etree import ElementTree

import altair as alt
import pytest

from components.review import charts

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert(1)</script>\"'&]]>"
RIGHT_TO_LEFT = "\u202eabc\u202c"


def drawn(label: str = "0–12", number: int = 1) -> str:
    rows = [
        {"band": label, "mae": 5.0, "model": "this"},
        {"band": "65+", "mae": 8.0, "model": "live"},
    ]
    spec = (
        alt.Chart(alt.InlineData(rows))
        .mark_point(clip=True)
        .encode(x="mae:Q", y=alt.Y("band:N", axis=alt.Axis(labelLimit=0)), color="model:N")
    )
    return str(charts.svg(spec, f"Title {label}", f"Description {label}", number))


@pytest.mark.parametrize(
    "label", [HOSTILE, RIGHT_TO_LEFT, "n" * 300], ids=["hostile", "right_to_left", "long"]
)
def test_labels_are_text_and_nothing_else(label: str) -> None:
    root = ElementTree.fromstring(drawn(label))
    assert label in [text.text for text in root.iter(f"{SVG}text")]
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None and title.text == f"Title {label}"
    assert description is not None and description.text == f"Description {label}"
    assert not [element.tag for element in root.iter() if element.tag == f"{SVG}script"]


def test_a_screen_reader_gets_one_picture_with_its_description() -> None:
    root = ElementTree.fromstring(drawn())
    ids = {element.get("id"): element.tag for element in root.iter() if element.get("id")}
    assert root.get("role") == "img"
    named = [ids[name] for name in (root.get("aria-labelledby") or "").split()]
    assert named == [f"{SVG}title", f"{SVG}desc"]
    assert not [element.tag for element in root.iter() if element.get("role") not in (None, "img")]


def test_all_colours_are_those_of_the_page() -> None:
    picture = drawn()
    colours = set(re.findall(r'(?:fill|stroke)="([^"]*)"', picture))
    assert {"var(--series-1)", "var(--series-2)", "currentColor"} <= colours
    assert colours <= {*charts.COLOURS, charts.INK, charts.GRID, "none", "transparent"}
    assert "style=" not in picture


def test_each_id_contains_the_number_of_the_chart() -> None:
    """Vega numbers its ids per process, so the charts of two processes may have the same ids."""
    for number in (1, 2):
        picture = drawn(number=number)
        ids = set(re.findall(r' id="([^"]*)"', picture))
        referred = set(re.findall(r"url\(#([^)]*)\)", picture))
        assert referred and referred <= ids
        assert all(name.startswith(f"chart-{number}-") for name in ids)


def luminance(colour: str) -> float:
    """WCAG 2.2's relative luminance of #rrggbb."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio, 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_series_stand_out_and_differ_in_grey(theme: int) -> None:
    css = resources.files("components.review").joinpath("assets", "page.css").read_text("utf-8")
    paper = re.findall(r"--paper: (#[0-9a-f]+);", css)[theme]
    paper = paper if len(paper) == 7 else "#" + "".join(2 * digit for digit in paper[1:])
    series = [re.findall(rf"--series-{at}: (#[0-9a-f]{{6}});", css)[theme] for at in range(1, 5)]
    assert all(contrast(colour, paper) >= 3 for colour in series)  # WCAG 2.2, 1.4.11
    assert all(contrast(one, other) >= 1.4 for one, other in itertools.combinations(series, 2))

"""The page shows text as text, is accessible, and works without a network and without scripts."""

from __future__ import annotations

import html
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import altair as alt
import pytest
from PIL import Image

from components.review.page import (
    Cell,
    Chart,
    Markdown,
    Photo,
    Photos,
    Section,
    Table,
    Text,
    Verdict,
    render,
)
from tests.browser import Browser

HOSTILE = "<script>document.title='taken'</script>\"'&]]><img src=x onerror=document.title='taken'>"
LONG = "n" * 300
WIDE = [f"interval {at} of many" for at in range(16)]  # columns
KIND = "R&D <kind>"  # a possible name of a column in a CSV


def table(rows: int = 40) -> Table:
    """Unsorted values; one of them is NaN."""
    numbers = [*((at * 37) % rows for at in range(rows)), float("nan")]
    return Table(
        f"Slices {HOSTILE}",
        ["slice", KIND, f"MAE {HOSTILE}"],
        [
            [f"slice {at} {HOSTILE if at == 3 else ''}", "even" if at % 2 == 0 else "odd",
             Cell(f"{number:.2f}", number, "good" if number == 1 else "")]
            for at, number in enumerate(numbers)
        ],
        interactive=True,
        filters=(KIND,),
    )  # fmt: skip


def chart() -> Chart:
    rows = [{"band": band, "mae": mae} for band, mae in (("0–12", 5.0), (HOSTILE, 8.0))]
    spec = alt.Chart(alt.InlineData(rows)).mark_point(clip=True).encode(x="mae:Q", y="band:N")
    return Chart(f"A chart {HOSTILE}", f"Points {HOSTILE}", spec.properties(width=300))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every kind of block, and with hostile text in each."""
    jpeg = io.BytesIO()
    Image.new("RGB", (96, 96), (90, 120, 60)).save(jpeg, "JPEG")
    photo = Photo(jpeg.getvalue(), f"A photo {HOSTILE}", [HOSTILE, LONG])
    text = render(
        f"Review {HOSTILE}",
        [
            Section("first", "First", [Verdict(HOSTILE, True), Text([HOSTILE])]),
            Section("second", "Second", [Verdict("No.", False), chart(), chart(), table()]),
            Section("third", "Third", [Table("Plain", ["a"], [[LONG]]), Photos("Them", [photo])]),
            Section("wide", "Wide", [Table("Wide", WIDE, [["0.12 (0.01 to 1.23)"] * 16] * 3)]),
            Section("fourth", "Fourth", [Markdown(f"# Card\n\n{HOSTILE}")]),
        ],
        ["model_card.md"],
    )
    file = tmp_path_factory.mktemp("page") / "index.html"
    file.write_text(text, "utf-8")
    return file


class Attributes(HTMLParser):
    """The names of all attributes in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names |= {name for name, _ in attrs}


def test_the_policy_allows_one_style_and_one_script(page: Path) -> None:
    text = re.sub(r"(?s)(<script[^>]*>).*?</script>", r"\1", page.read_text("utf-8"))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    policy = html.unescape(policy)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy and text.count("<script") == 1 == text.count("<style")
    parser = Attributes()
    parser.feed(text)
    assert not [name for name in parser.names if name == "style" or name.startswith("on")]


def test_ids_are_unique(page: Path) -> None:
    ids = re.findall(r' id="([^"]*)"', re.sub(r"(?s)<script.*", "", page.read_text("utf-8")))
    assert len(ids) == len(set(ids))


def test_nan_comes_last() -> None:
    text = render("t", [Section("s", "S", [table(4)])])
    assert re.findall(r'data-order="([^"]*)"', text)[-1] == "1e+300"
    assert "nan" not in html.unescape(re.sub(r"(?s)<(script|style).*?</\1>", "", text))


@pytest.mark.e2e
@pytest.mark.parametrize("width", [375, 1440])
@pytest.mark.parametrize("dark", [False, True])
def test_accessibility(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width, dark=dark)
    assert browser.console_messages() == []
    assert browser.run("return document.title").startswith("Review <script>")
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.accessibility_violations() == []


@pytest.mark.e2e
@pytest.mark.parametrize(("width", "used"), [(1600, 1400), (1000, 1000), (400, 400)])
def test_the_page_fits_its_window(browser: Browser, page: Path, width: int, used: int) -> None:
    browser.open(page, width)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    scrollbar = width - browser.run("return document.documentElement.clientWidth")
    body = browser.run("return document.body.getBoundingClientRect().width")
    assert body == min(used, width - scrollbar)
    first, second = browser.run(
        "return [...document.querySelectorAll('figure')].map((f) => f.getBoundingClientRect().top)"
    )
    assert (first == second) == (width == 1600)  # the charts stand side by side
    # What is wider than the window scrolls in a box of its own, and its caption can be read.
    inside = """const body = document.body.getBoundingClientRect();
        return [...document.querySelectorAll(arguments[0])]
            .every((box) => box.getBoundingClientRect().right <= body.right)"""
    assert browser.run(inside, "section > *, figure > *, caption")
    assert not browser.run(inside, "table")


def column(browser: Browser, at: int) -> list[str]:
    return browser.run(
        "return [...document.querySelectorAll('table.interactive tbody tr')]"
        ".map((row) => row.cells[arguments[0]].firstChild.textContent)",
        at,
    )


@pytest.mark.e2e
def test_sorting_and_filtering(browser: Browser, page: Path) -> None:
    browser.open(page)
    header = "document.querySelectorAll('table.interactive thead th')[2]"
    browser.run(f"{header}.querySelector('[role=button]').click()")
    values = column(browser, 2)
    assert values == [f"{number:.2f}" for number in range(40)] + ["–"]
    assert browser.run(f"return {header}.ariaSort") == "ascending"
    browser.run(f"{header}.querySelector('[role=button]').click()")
    assert column(browser, 2) == [*values[-2::-1], "–"]  # NaN stays last
    assert browser.run(f"return {header}.ariaSort") == "descending"
    browser.run(
        "const select = document.querySelector('.filters select'); select.value = 'odd';"
        "select.dispatchEvent(new Event('change'))"
    )
    assert set(column(browser, 1)) == {"odd"}
    browser.run(
        "const field = document.querySelector('.dt-search input'); field.value = '\"slice 17\"';"
        "field.dispatchEvent(new Event('input'))"
    )
    assert column(browser, 0) == ["slice 17 "]


@pytest.mark.e2e
def test_without_scripts_the_page_shows_the_tables(browser: Browser, page: Path) -> None:
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.chrome.get(page.as_uri())
        rows = len(browser.chrome.find_elements("css selector", "table.interactive tbody tr"))
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)
    assert rows == 41


@pytest.mark.e2e
def test_printing_keeps_every_row(browser: Browser, page: Path) -> None:
    browser.open(page)
    printed = browser.printed()
    for at in range(41):
        assert re.search(rf"slice {at}\s", printed)
    assert "Plain" in printed and "In words" not in printed


@pytest.mark.e2e
def test_a_wide_table_is_printed_on_landscape_sheets(browser: Browser, page: Path) -> None:
    """Otherwise the browser shrinks all sheets until the table fits."""
    browser.open(page)
    for sheet in browser.sheets():
        landscape = sheet.mediabox.width > sheet.mediabox.height
        assert landscape == ("0.12 (0.01" in " ".join(sheet.extract_text().split()))


@pytest.mark.e2e
def test_a_printed_table_shows_that_it_is_filtered(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run(
        "const field = document.querySelector('.dt-search input'); field.value = '\"slice 17\"';"
        "field.dispatchEvent(new Event('input'))"
    )
    assert "1 rows of 41" in browser.printed()


@pytest.mark.e2e
def test_printed_text_is_dark(browser: Browser, page: Path) -> None:
    browser.open(page, dark=True)
    browser.command("Emulation.setEmulatedMedia", media="print",
                    features=[{"name": "prefers-color-scheme", "value": "dark"}])  # fmt: skip
    assert browser.run("return getComputedStyle(document.body).color") == "rgb(29, 31, 33)"

"""Builds the page from sections of text, tables, charts and photos, as one self-contained file."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import itables.options
import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup

from components.review import charts


@dataclass(frozen=True)
class Text:
    """Paragraphs of plain text. The page escapes them."""

    paragraphs: Sequence[str]


@dataclass(frozen=True)
class Markdown:
    """Text in CommonMark with tables. The page shows raw HTML in it as text."""

    text: str


@dataclass(frozen=True)
class Verdict:
    """The most important sentence. A sign and a colour mark it as good or bad."""

    text: str
    good: bool


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    value: float | str | None = None  # the sort key; None: the text. NaN comes last
    mark: str = ""  # "", "good", "bad" or "few" (too few photos); the page adds a sign to each


Row = Sequence[Cell | str | float | int]  # `as_cell` writes the numbers


@dataclass(frozen=True)
class Table:
    """A table. A reader can sort and filter an `interactive` one."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Row]
    interactive: bool = False
    filters: Sequence[str] = ()  # columns that get a list of their values to choose from


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title: stands above the chart.
        description: the same figures in words.
        spec: an `altair` chart (Vega-Lite) without a title. It uses only the colours of charts.py.
    """

    title: str
    description: str
    spec: Any


@dataclass(frozen=True)
class Photo:
    """A thumbnail and its facts."""

    jpeg: bytes
    alternative: str
    facts: Sequence[str]


@dataclass(frozen=True)
class Photos:
    """A row of thumbnails."""

    caption: str
    photos: Sequence[Photo]


Block = Text | Markdown | Verdict | Table | Chart | Photos


@dataclass(frozen=True)
class Section:
    """A part of the page. The table of contents has an entry for it."""

    id: str  # the anchor
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)


def render(title: str, sections: Sequence[Section], files: Sequence[str] = ()) -> str:
    """The page as HTML.

    Its Content-Security-Policy only allows its own style, its own script and the module that this
    script makes (`blob:`).

    Args:
        title: of the page.
        sections: in the order of the page.
        files: names of files in the same folder. The page links to them.
    """
    style, script = _asset("page.css"), _script()
    numbers = itertools.count(1)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("components.review"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "cell": as_cell,
        "markdown": _markdown,
        "base64": _base64,
        "numeric": _numeric,
    }
    environment.tests |= {
        kind.__name__.lower(): lambda block, kind=kind: isinstance(block, kind)
        for kind in (Text, Markdown, Verdict, Table, Chart, Photos)
    }
    return environment.get_template("page.html.j2").render(
        title=title,
        sections=sections,
        files=files,
        # Not escaped, because they are ours. The policy names their hashes.
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        number=lambda: next(numbers),
        svg=lambda chart, at: charts.svg(chart.spec, chart.title, chart.description, at),
    )


def _asset(name: str) -> str:
    return resources.files("components.review").joinpath("assets", name).read_text("utf-8")


def _script() -> str:
    """The script of the page: page.js, and the text of itables' DataTables bundle as a constant.

    The bundle is an ES module. Without a network, a page can only import a module from a URL that
    it makes itself. page.js does this. `</` is escaped, because it would end the script element.
    """
    bundle = Path(itables.options.dt_bundle).read_text("utf-8")
    text = json.dumps(bundle, ensure_ascii=False).replace("</", r"<\/")
    return f"const BUNDLE = {text};\n{_asset('page.js')}"


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _markdown(text: str) -> Markup:
    """Renders CommonMark with tables. Its headings are of lower levels than a section's."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + 2, 6)}"
    return Markup(parser.renderer.render(tokens, parser.options, {}))


def as_cell(value: Cell | str | float | int) -> Cell:
    """A cell whose sort key a browser can read: a finite number, or None for the text."""
    if isinstance(value, str):
        value = Cell(value)
    elif not isinstance(value, Cell):
        value = Cell(f"{value:,}" if isinstance(value, int) else f"{value:,.2f}", value)
    if isinstance(value.value, float) and not math.isfinite(value.value):
        return Cell("–" if value.text == "nan" else value.text, _LAST, value.mark)
    return value


def _numeric(table: Table, at: int) -> bool:
    """Whether all cells of a column are numbers."""
    values = [as_cell(row[at]).value for row in table.rows]
    return bool(values) and all(isinstance(value, int | float) for value in values)


_LAST = 1e300  # sort key of a cell without a number; page.js uses it too

"""The page: sections of text, tables, charts and photos, as one file that needs nothing else."""

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
    """Paragraphs; plain text, which is escaped."""

    paragraphs: Sequence[str]


@dataclass(frozen=True)
class Markdown:
    """Text in CommonMark with tables; raw HTML in it is shown, not obeyed."""

    text: str


@dataclass(frozen=True)
class Verdict:
    """A sentence to see first, marked as good or bad by more than its colour."""

    text: str
    good: bool


@dataclass(frozen=True)
class Cell:
    """A table's cell: what is read, and what it is sorted by."""

    text: str
    value: float | str | None = None  # None: the text; numbers sort as numbers, NaN last
    mark: str = ""  # "", "good", "bad" or "few" (too few photos to say); never by colour alone


Row = Sequence[Cell | str | float | int | None]  # numbers are written as `Cell`s would be


@dataclass(frozen=True)
class Table:
    """A table; `interactive` ones can be sorted by each column and filtered."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Row]
    interactive: bool = False
    filters: Sequence[str] = ()  # columns with a filter of their own, by value


@dataclass(frozen=True)
class Chart:
    """A picture, drawn as SVG.

    Attributes:
        title: what it shows, above it.
        description: text alternative: what one sees, in a sentence or two with the figures.
        spec: an `altair` chart (Vega-Lite), without title and colours of its own other than those
            of `charts.py`.
    """

    title: str
    description: str
    spec: Any


@dataclass(frozen=True)
class Photo:
    """A thumbnail and what is known of it."""

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
    """A part of the page with an entry in its table of contents."""

    id: str  # the anchor
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)


def render(title: str, sections: Sequence[Section], files: Sequence[str] = ()) -> str:
    """The page as HTML.

    Its Content-Security-Policy allows its own style, its own script and what this script makes
    (`blob:`), and nothing else.

    Args:
        title: of the whole.
        sections: in their order.
        files: names of files beside it, which it links to.
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
        "cell": _cell,
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
        # Not escaped: ours, and by their hashes the only ones that a browser obeys.
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
    """The page's one script: page.js, with the text of itables' DataTables bundle as a constant.

    The bundle is an ES module. A page without a network can import one only from a URL that it
    makes itself: page.js does so. In the text of a script `</` would end the script.
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
    """CommonMark with tables, its headings below those of a section."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + 2, 6)}"
    return Markup(parser.renderer.render(tokens, parser.options, {}))


def _cell(value: Cell | str | float | int | None) -> Cell:
    """A cell as the template takes it: sorted by a number that a browser reads, or by its text."""
    if not isinstance(value, Cell):
        if value is None:
            value = Cell("–", math.nan)
        elif isinstance(value, str):
            value = Cell(value)
        else:
            value = Cell(f"{value:,}" if isinstance(value, int) else f"{value:,.2f}", value)
    if isinstance(value.value, float) and not math.isfinite(value.value):
        return Cell("–" if value.text == "nan" else value.text, _LAST, value.mark)
    return value


def _numeric(table: Table, at: int) -> bool:
    """Whether a column holds numbers."""
    values = [_cell(row[at]).value for row in table.rows]
    return bool(values) and all(isinstance(value, int | float) for value in values)


_LAST = 1e300  # what is no number sorts behind all numbers

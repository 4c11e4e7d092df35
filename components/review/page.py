"""The page: sections of text, tables, charts and photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


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


@dataclass(frozen=True)
class Table:
    """A table; `interactive` ones can be sorted by each column and filtered."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str | float | int | None]]  # numbers are written by `Cell`s
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

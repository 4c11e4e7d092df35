"""Draws Altair's charts as SVG. Their colours follow the page: light, dark or on paper."""

from __future__ import annotations

import re

import altair as alt
import vl_convert
from markupsafe import Markup, escape

# Hues of Okabe & Ito 2008, "Color Universal Design": colour-blind people can tell them apart. Each
# has its own lightness, so they differ in grey too. page.css defines them for light and dark.
COLOURS = tuple(f"var(--series-{number})" for number in range(1, 5))
INK, GRID = "currentColor", "var(--grid)"
FILL = COLOURS[0]  # for a chart with one series

_WIDTH = 520  # default width of a chart, pixels
_CONFIG = {
    "aria": False,  # a screen reader reads the description instead
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None, "continuousWidth": _WIDTH, "discreteWidth": _WIDTH},
    "axis": {
        "labelColor": INK, "titleColor": INK, "domainColor": INK, "tickColor": INK,
        "gridColor": GRID, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal",
        # The reader's font may be wider than the font that Vega measures with.
        "titlePadding": 14, "labelSeparation": 10,
    },
    "axisQuantitative": {"tickCount": 7},
    "legend": {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12,
               "labelLimit": 0, "orient": "top"},
    "header": {"labelColor": INK, "titleColor": INK, "labelFontSize": 12},
    "range": {"category": list(COLOURS)},
    "bar": {"color": FILL}, "line": {"color": FILL}, "point": {"color": FILL, "filled": True},
    "rule": {"color": INK}, "tick": {"color": FILL}, "area": {"color": FILL},
    "text": {"color": INK},
}  # fmt: skip


def svg(spec: alt.TopLevelMixin, title: str, description: str, number: int) -> Markup:
    """A chart as an SVG element.

    Text stays text, and there are no scripts and no styles in it.

    Args:
        spec: the chart.
        title: for screen readers.
        description: for screen readers.
        number: number of the chart on the page. It makes the chart's ids unique.
    """
    drawn = vl_convert.vegalite_to_svg({**spec.to_dict(), "config": _CONFIG})
    drawn = re.sub(r' (role|aria-[a-z]+|class|style)="[^"]*"', "", drawn)
    drawn = re.sub(r'(id="|url\(#)', rf"\g<1>chart-{number}-", drawn)
    size = re.search(r'viewBox="(0 0 ([\d.]+) [\d.]+)"', drawn)
    assert size, "Vega's SVG has a viewBox"
    inside = drawn[drawn.index(">") + 1 :]
    title_id, description_id = f"chart-{number}-title", f"chart-{number}-description"
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size[1]}" width="{size[2]}"'
        f' role="img" aria-labelledby="{title_id} {description_id}">'
        f'<title id="{title_id}">{escape(title)}</title>'
        f'<desc id="{description_id}">{escape(description)}</desc>'
        f"{inside}"
    )

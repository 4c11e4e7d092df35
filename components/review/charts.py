"""Altair's charts as SVG that follows the page: its ink and width, light or dark, on paper."""

from __future__ import annotations

import re

import altair as alt
import vl_convert
from markupsafe import Markup, escape

# The hues of Okabe & Ito 2008, "Color Universal Design", that the colour-blind tell apart, each of
# another lightness, so that they differ in grey as well. The page has others for the dark.
COLOURS = tuple(f"var(--series-{number})" for number in range(1, 5))
INK, GRID = "currentColor", "var(--grid)"
FILL = COLOURS[0]  # of a chart with one series
AREA_SCALE = alt.Scale(scheme="cividis")  # for heat maps; Nuñez et al. 2018, for the colour-blind

_WIDTH = 520  # pixels in which a chart is laid out, unless it says otherwise
_CONFIG = {
    "aria": False,  # a screen reader gets the description
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None, "continuousWidth": _WIDTH, "discreteWidth": _WIDTH},
    "axis": {
        "labelColor": INK, "titleColor": INK, "domainColor": INK, "tickColor": INK,
        "gridColor": GRID, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal",
        # Room for a reader's font, which may be wider than the one that it is laid out with.
        "titlePadding": 14, "labelSeparation": 10,
    },
    "axisQuantitative": {"tickCount": 7},
    "legend": {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12,
               "orient": "top"},
    "header": {"labelColor": INK, "titleColor": INK, "labelFontSize": 12},
    "range": {"category": list(COLOURS)},
    "bar": {"color": FILL}, "line": {"color": FILL}, "point": {"color": FILL, "filled": True},
    "rule": {"color": INK}, "tick": {"color": FILL}, "area": {"color": FILL},
    "text": {"color": INK},
}  # fmt: skip


def svg(spec: alt.TopLevelMixin, title: str, description: str, number: int) -> Markup:
    """A chart as an SVG element for the page's `number`-th place.

    Text stays text; nothing in it acts, and its ids are no other chart's.
    """
    drawn = vl_convert.vegalite_to_svg({**spec.to_dict(), "config": _CONFIG})
    drawn = re.sub(r' (role|aria-[a-z]+|class|style)="[^"]*"', "", drawn)
    drawn = re.sub(r'(id="|url\(#)', rf"\g<1>chart-{number}-", drawn)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn)
    assert size, "vega's SVG says its size"
    inside = drawn[drawn.index(">") + 1 :]
    name, told = f"chart-{number}-title", f"chart-{number}-told"
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size[0][9:-1]}" width="{size[1]}"'
        f' role="img" aria-labelledby="{name} {told}">'
        f'<title id="{name}">{escape(title)}</title><desc id="{told}">{escape(description)}</desc>'
        f"{inside}"
    )

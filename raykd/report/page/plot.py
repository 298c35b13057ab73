"""A figure with the words around it, put into a page and beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from raykd.report.figures.style import RC, keep
from raykd.report.page import html
from raykd.report.page.html import text


@dataclass(frozen=True)
class Plot:
    """One figure and the words around it; `drawn` is a sentence where there is nothing to draw."""

    name: str
    title: str
    drawn: Figure | str
    caption: str


def placed(plots: Sequence[Plot], out: Path) -> dict[str, str]:
    """{name: HTML} of each figure; PNG and SVG are written into OUT/figures."""
    shown: dict[str, str] = {}
    for plot in plots:
        title = f"<h3>{text(plot.title)}</h3>"
        if isinstance(plot.drawn, str):
            shown[plot.name] = f'{title}<p class="missing" data-missing="{plot.name}">{text(plot.drawn)}</p>'
            continue
        with rc_context(RC):
            svg = keep(plot.drawn, plot.name, plot.title, out / "figures")
        wide = plot.drawn.get_figwidth() > 8
        shown[plot.name] = title + html.drawing(svg, plot.name, text(plot.caption), wide)
    return shown

"""A figure with the words around it, put into a page and beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from raykd.report.figures.style import RC_PARAMS, save_figure


@dataclass(frozen=True)
class Plot:
    """One figure and the words around it; `figure` is a sentence where there is nothing to draw."""

    name: str
    title: str
    figure: Figure | str
    caption: str


@dataclass(frozen=True)
class PageFigure:
    """A figure as a page shows it; without an SVG the caption says why there is none."""

    name: str
    title: str
    caption: str
    svg: Markup | None = None
    css_class: str = ""  # "wide" or "half"


def save_plots(plots: Sequence[Plot], out: Path) -> dict[str, PageFigure]:
    """Writes each figure as PNG and SVG into OUT/figures, and returns them for the page, by name."""
    return {plot.name: _save_plot(plot, out / "figures") for plot in plots}


def _save_plot(plot: Plot, folder: Path) -> PageFigure:
    if isinstance(plot.figure, str):
        return PageFigure(plot.name, plot.title, plot.figure)
    with rc_context(RC_PARAMS):
        svg = Markup(save_figure(plot.figure, plot.name, plot.title, folder))
    return PageFigure(
        plot.name, plot.title, plot.caption, svg, "wide" if plot.figure.get_figwidth() > 8 else "half"
    )

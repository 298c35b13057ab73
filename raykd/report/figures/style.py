"""How figures look (Okabe and Ito's palette), and how one is kept: PNG, SVG, and SVG for inside the page.

Inside the page each colour becomes a CSS variable, so that one drawing serves light, dark and print.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from raykd.report.figures.fonts import escape_texts, list_fonts, restore_missing

INK, MUTED, GRID, CARD = "#24292f", "#6e7781", "#d8dee4", "#ffffff"
BLUE, VERMILLION, GREEN, PURPLE, ORANGE = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"
SKY = "#56b4e9"
QUALITY_COLOURS = ("#cfd6dd", "#a9c0d3", "#7aaacb", "#3f8dbd", BLUE)  # worse to better
LEADER_COLOURS = (VERMILLION, BLUE, GREEN, PURPLE, ORANGE)
SERIES_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v")
LINESTYLES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (9, 3)))
COLOURS = {  # light: (variable, dark)
    INK: ("ink", "#e6edf3"),
    MUTED: ("muted", "#9aa4af"),
    GRID: ("grid", "#343b44"),
    CARD: ("card", "#161b22"),
    BLUE: ("blue", "#4aa8e0"),
    VERMILLION: ("vermillion", "#f58a42"),
    GREEN: ("green", "#2fc39a"),
    PURPLE: ("purple", "#e09cc3"),
    ORANGE: ("orange", "#f0b429"),
    SKY: ("sky", "#b5e1ff"),
    QUALITY_COLOURS[0]: ("level0", "#39424c"),
    QUALITY_COLOURS[1]: ("level1", "#3d5569"),
    QUALITY_COLOURS[2]: ("level2", "#3f6c8d"),
    QUALITY_COLOURS[3]: ("level3", "#448ab8"),
}
HALF_WIDTH, FULL_WIDTH = 5.2, 10.6  # inches: a column of the page, the whole page
RC_PARAMS: dict[Any, Any] = {  # the keys are a Literal of matplotlib 3.11 only
    "font.family": [*list_fonts(), "sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "figure.facecolor": CARD,
    "axes.facecolor": CARD,
    "svg.fonttype": "none",
    "text.parse_math": False,
}


@dataclass(frozen=True)
class SeriesStyle:
    """How one of many series is drawn; series that share a colour differ in marker and line style."""

    colour: str
    marker: str
    linestyle: Any


def series_style(index: int) -> SeriesStyle:
    """Returns the style of the series at a place of a fixed order."""
    cycle, colour = divmod(index, len(SERIES_COLOURS))
    turn, marker = divmod(cycle, len(MARKERS))  # where the markers begin again, with other lines
    return SeriesStyle(SERIES_COLOURS[colour], MARKERS[marker], LINESTYLES[(turn + marker) % len(LINESTYLES)])


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure of so many inches."""
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, name: str, label: str, folder: Path) -> str:
    """Writes NAME.png and NAME.svg; returns the SVG for the page, its ids and colours made the page's."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.StringIO()
    with rc_context({**RC_PARAMS, "svg.hashsalt": name}):
        escape_texts(figure)
        figure.savefig(folder / f"{name}.png", dpi=200)
        figure.set_layout_engine("none")  # the layout is done: the same places in both
        canvas: Any = FigureCanvasSVG(figure)  # savefig would draw everything twice
        canvas.print_svg(buffer, metadata={"Date": None})
    svg = restore_missing(buffer.getvalue())
    (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    return inline_svg(svg, name, label)


def inline_svg(svg: str, name: str, label: str) -> str:
    """Returns a figure's SVG for inside the page: ids of its own, colours as the page's CSS variables."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'href="#', f'href="#{name}-', body)
    body = body.replace("url(#", f"url(#{name}-")
    for light, (variable, _) in COLOURS.items():
        body = body.replace(light, f"var(--{variable})")
    body = re.sub(r"\n\s*", "\n", body)
    head = re.search(r'viewBox="([^"]*)"', body)
    assert head is not None, f"matplotlib wrote an SVG without a viewBox: {name}"
    start = f'<svg viewBox="{head[1]}" xmlns:xlink="http://www.w3.org/1999/xlink" role="img"'
    return f'{start} aria-label="{escape(label, quote=True)}"{body[body.index(">") :]}'


def wrap_path(path: str, width: int = 18) -> str:
    """Returns a long path over several lines, broken after a slash or an underscore, never cut."""
    lines = [""]
    for part in re.findall(r"[^/_ ]*[/_ ]?", path):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def axis_limits(values: Sequence[float]) -> tuple[float, float]:
    """Returns limits that show the bulk: a few collapsed values do not flatten the rest."""
    low, quarter, middle, high = (float(q) for q in np.quantile(values, (0.0, 0.25, 0.5, 1.0)))
    floor = quarter - 3.0 * max(high - quarter, 2 * (middle - quarter), 0.25)
    low = max(low, floor)
    margin = 0.06 * max(high - low, 0.5)
    return low - margin, high + margin


def mark_clipped(axes: Axes, xs: Sequence[float], values: Sequence[float], low: float) -> None:
    """Marks what lies below the window with a triangle at its lower edge."""
    below = [x for x, value in zip(xs, values, strict=True) if value < low]
    if below:
        transform = axes.get_xaxis_transform()
        label = f"below the axis (n={len(below)})"
        axes.plot(
            below, [0.02] * len(below), "v", color=MUTED, markersize=5, transform=transform, label=label,
            clip_on=False,
        )  # fmt: skip


def add_legend(figure: Figure, columns: int = 3) -> None:
    """Draws one legend under the axes, each label once, so that it never covers data."""
    handles: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(str(label), handle)
    if handles:
        figure.legend(
            handles=list(handles.values()), labels=list(handles), loc="outside lower center", ncols=columns
        )

"""Figures of several fields together: parallel coordinates of the leading ones and the accuracy."""

from collections.abc import Sequence
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from raykd.report.figures.slices import MOST_FIELDS, short
from raykd.report.figures.style import (
    BLUE,
    CARD,
    INK,
    LEVELS,
    MUTED,
    VERMILLION,
    WIDE,
    breakable,
    figure,
    window,
)
from raykd.report.rows.types import RunData, TrialRow, accuracy
from raykd.report.stats.importances import unit
from raykd.spec import Choice, Dimension, Scalar

MOST_LINES = 250


def parallel(run: RunData, paths: Sequence[str]) -> Figure | str:
    """Parallel coordinates of the leading fields and the accuracy."""
    trials = run.finished()
    paths = paths[:MOST_FIELDS]
    if len(trials) < 2 or not paths:
        return "Parallel coordinates need two finished trials that differ."
    low, high = window([accuracy(t) for t in trials])
    drawn = figure(WIDE, 4.9)
    axes = drawn.add_subplot()
    worst_first = [*trials[:100], *trials[100 :: max(1, ceil(len(trials) / MOST_LINES))]][::-1]
    for place, trial in enumerate(worst_first):
        ys = _heights(run, paths, trial, low, high)
        level = LEVELS[place * len(LEVELS) // len(worst_first)]
        axes.plot(range(len(ys)), ys, color=level, lw=0.8 + place / len(worst_first), alpha=0.8)
    marked = [(run.at_paper(), INK, (0, (4, 2)), "the paper's point"), (trials[0], VERMILLION, "-", "best")]
    for chosen, colour, dashes, label in marked:
        if chosen is not None:
            ys = _heights(run, paths, chosen, low, high)
            axes.plot(
                range(len(ys)), ys, color=colour, ls=dashes, lw=2.2, label=f"{label} (trial {chosen.number})"
            )
    for x, path in enumerate(paths):
        _scale(axes, x, [(unit(run.space[path], v), short(v)) for v in _ticks(run.space[path])])
    ends = [(0.0, f"{low:.1f}"), (0.5, f"{(low + high) / 2:.1f}"), (1.0, f"{high:.1f} %")]
    _scale(axes, len(paths), ends)
    names = [breakable(run.title(path), 16) for path in paths] + ["held-out\naccuracy (%)"]
    axes.set_xticks(range(len(names)), names, rotation=32, ha="left", rotation_mode="anchor")
    axes.xaxis.tick_top()
    axes.set(xlim=(-0.1, len(paths) + 0.55), ylim=(-0.16, 1.06), yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    swatches = [
        Line2D([], [], color=LEVELS[0], label="worst fifth"),
        Line2D([], [], color=BLUE, label="best fifth"),
    ]
    handles = [*axes.get_legend_handles_labels()[0], *swatches]
    drawn.legend(handles=handles, loc="outside lower center", ncols=4)
    return drawn


def _heights(run: RunData, paths: Sequence[str], trial: TrialRow, low: float, high: float) -> list[float]:
    """A trial's height on each axis; -0.12 where the field was not called for."""
    row = [unit(run.space[path], trial.drawn.get(path)) for path in paths]
    row.append((accuracy(trial) - low) / (high - low))
    return [-0.12 if np.isnan(y) else min(1.04, max(-0.06, y)) for y in row]


def _scale(axes: Axes, x: int, ticks: Sequence[tuple[float, str]]) -> None:
    axes.plot([x, x], [0, 1], color=MUTED, lw=1.2, zorder=4)
    box = {"facecolor": CARD, "alpha": 0.8, "edgecolor": "none", "pad": 0.6}
    for y, label in ticks:
        axes.plot([x - 0.045, x], [y, y], color=MUTED, lw=1.2, zorder=4)
        axes.text(x + 0.06, y, label, fontsize=7.5, va="center", ha="left", bbox=box, zorder=5)


def _ticks(dimension: Dimension) -> list[Scalar]:
    """Ends and middle of a range; the values of a choice, at most seven."""
    if isinstance(dimension, Choice):
        return list(dimension.values[:: ceil(len(dimension.values) / 7)])
    low, high = dimension.low, dimension.high
    middle = (low * high) ** 0.5 if dimension.log else (low + high) / 2
    if dimension.integer:
        return sorted({int(low), round(middle), int(high)})
    return [low, middle, high]

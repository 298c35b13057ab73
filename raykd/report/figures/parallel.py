"""Figures of several parameters together: parallel coordinates of the leading ones and the accuracy."""

from collections.abc import Sequence
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from raykd.report.figures.slices import MAX_PARAMS, shorten
from raykd.report.figures.style import (
    BLUE,
    CARD,
    FULL_WIDTH,
    INK,
    MUTED,
    QUALITY_COLOURS,
    VERMILLION,
    axis_limits,
    new_figure,
    wrap_path,
)
from raykd.report.rows.types import RunData, TrialRow, get_accuracy
from raykd.report.stats.importances import scale_to_unit
from raykd.spec import Choice, Dimension, Scalar

MAX_LINES = 250


def plot_parallel_coordinates(run: RunData, paths: Sequence[str]) -> Figure | str:
    """Draws parallel coordinates of the leading parameters and the accuracy."""
    trials = run.complete_trials()
    paths = paths[:MAX_PARAMS]
    if len(trials) < 2 or not paths:
        return "Parallel coordinates need two finished trials that differ."
    low, high = axis_limits([get_accuracy(t) for t in trials])
    figure = new_figure(FULL_WIDTH, 4.9)
    axes = figure.add_subplot()
    worst_first = [*trials[:100], *trials[100 :: max(1, ceil(len(trials) / MAX_LINES))]][::-1]
    for rank, trial in enumerate(worst_first):
        ys = _get_heights(run, paths, trial, low, high)
        colour = QUALITY_COLOURS[rank * len(QUALITY_COLOURS) // len(worst_first)]
        axes.plot(range(len(ys)), ys, color=colour, lw=0.8 + rank / len(worst_first), alpha=0.8)
    marked_trials = [
        (run.paper_trial(), INK, (0, (4, 2)), "the paper's point"),
        (trials[0], VERMILLION, "-", "best"),
    ]
    for marked_trial, colour, linestyle, label in marked_trials:
        if marked_trial is not None:
            ys = _get_heights(run, paths, marked_trial, low, high)
            axes.plot(
                range(len(ys)), ys, color=colour, ls=linestyle, lw=2.2,
                label=f"{label} (trial {marked_trial.number})",
            )  # fmt: skip
    for x, path in enumerate(paths):
        _draw_scale(
            axes, x, [(scale_to_unit(run.space[path], v), shorten(v)) for v in _choose_ticks(run.space[path])]
        )
    accuracy_ticks = [(0.0, f"{low:.1f}"), (0.5, f"{(low + high) / 2:.1f}"), (1.0, f"{high:.1f} %")]
    _draw_scale(axes, len(paths), accuracy_ticks)
    names = [wrap_path(run.axis_title(path), 16) for path in paths] + [f"held-out\n{run.metric_title} (%)"]
    axes.set_xticks(range(len(names)), names, rotation=32, ha="left", rotation_mode="anchor")
    axes.xaxis.tick_top()
    axes.set(xlim=(-0.1, len(paths) + 0.55), ylim=(-0.16, 1.06), yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    swatches = [
        Line2D([], [], color=QUALITY_COLOURS[0], label="worst fifth"),
        Line2D([], [], color=BLUE, label="best fifth"),
    ]
    handles = [*axes.get_legend_handles_labels()[0], *swatches]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _get_heights(run: RunData, paths: Sequence[str], trial: TrialRow, low: float, high: float) -> list[float]:
    """A trial's height on each axis; -0.12 where the parameter was not active."""
    heights = [scale_to_unit(run.space[path], trial.params.get(path)) for path in paths]
    heights.append((get_accuracy(trial) - low) / (high - low))
    return [-0.12 if np.isnan(y) else min(1.04, max(-0.06, y)) for y in heights]


def _draw_scale(axes: Axes, x: int, ticks: Sequence[tuple[float, str]]) -> None:
    axes.plot([x, x], [0, 1], color=MUTED, lw=1.2, zorder=4)
    box = {"facecolor": CARD, "alpha": 0.8, "edgecolor": "none", "pad": 0.6}
    for y, label in ticks:
        axes.plot([x - 0.045, x], [y, y], color=MUTED, lw=1.2, zorder=4)
        axes.text(x + 0.06, y, label, fontsize=7.5, va="center", ha="left", bbox=box, zorder=5)


def _choose_ticks(dimension: Dimension) -> list[Scalar]:
    """Ends and middle of a range; the values of a choice, at most seven."""
    if isinstance(dimension, Choice):
        return list(dimension.values[:: ceil(len(dimension.values) / 7)])
    low, high = dimension.low, dimension.high
    middle = (low * high) ** 0.5 if dimension.log else (low + high) / 2
    if dimension.integer:
        return sorted({int(low), round(middle), int(high)})
    return [low, middle, high]

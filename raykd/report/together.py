"""Figures of several fields together: parallel coordinates, and the contour of the two leading ones."""

from collections.abc import Sequence
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator
from sklearn.ensemble import ExtraTreesRegressor

from raykd.report.data import RunData, TrialRow, accuracy
from raykd.report.fields import MOST_FIELDS, log_ticks, short
from raykd.report.figures import HELD_OUT
from raykd.report.importances import matrix, unit
from raykd.report.style import (
    BLUE,
    CARD,
    GRID,
    HALF,
    INK,
    LEVELS,
    MUTED,
    VERMILLION,
    WIDE,
    breakable,
    figure,
    legend,
    window,
)
from raykd.space import Choice, Dimension, Range, Scalar

MOST_LINES = 250
FEWEST = 20  # trials that drew both fields, for a contour
WHITE, BLACK, RED = "#fffffe", "#000001", "#d55e01"  # on the surface: the same in light and dark


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


def contour(run: RunData, paths: Sequence[str]) -> Figure | str:
    """Accuracy over the two leading numeric fields, as a forest of random splits smooths it."""
    numeric = [path for path in paths if isinstance(run.space[path], Range)]
    trials = run.finished()
    pair = _pair(run, numeric, trials)
    if pair is None:
        return f"A contour needs two numeric fields that {FEWEST} finished trials drew together."
    table = matrix(run, pair, trials)
    both = ~np.isnan(table).any(axis=1)
    target = np.array([accuracy(t) for t in trials])[both]
    forest = ExtraTreesRegressor(200, min_samples_leaf=4, random_state=0).fit(table[both], target)
    grid = np.linspace(0, 1, 70)
    mesh = np.stack(np.meshgrid(grid, grid), axis=-1)
    surface = forest.predict(mesh.reshape(-1, 2)).reshape(70, 70)
    drawn = figure(HALF, 4.4)
    axes = drawn.add_subplot(
        xlabel=breakable(run.title(pair[0]), 40), ylabel=breakable(run.title(pair[1]), 40)
    )
    filled = axes.contourf(grid, grid, surface, levels=9, cmap="cividis")
    axes.plot(
        *table[both].T, "o", color=WHITE, mec=BLACK, mew=0.6, ms=3.8, label=f"trial (n={int(both.sum())})"
    )
    for trial, mark, colour, size, label in (
        (run.at_paper(), "*", BLACK, 15, "the paper's point"),
        (trials[0], "D", RED, 8, "best"),
    ):
        spot = matrix(run, pair, [trial])[0] if trial is not None else np.array([np.nan])
        if not np.isnan(spot).any():
            axes.plot(*spot, mark, color=colour, mec=WHITE, ms=size, label=label)
    for axis, path in zip((axes.xaxis, axes.yaxis), pair, strict=True):
        ticks = _grid_ticks(run.space[path])
        axis.set_ticks([unit(run.space[path], v) for v in ticks], [f"{v:.3g}" for v in ticks])
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.grid(visible=False)
    bar = drawn.colorbar(filled, ax=axes, label="predicted " + HELD_OUT)
    bar.outline.set_edgecolor(GRID)
    legend(drawn, 3)
    return drawn


def _pair(run: RunData, numeric: Sequence[str], trials: Sequence[TrialRow]) -> tuple[str, str] | None:
    table = ~np.isnan(matrix(run, numeric, trials))
    pairs = [(a, b) for b in range(len(numeric)) for a in range(b)]
    good = [(a, b) for a, b in pairs if (table[:, a] & table[:, b]).sum() >= FEWEST]
    return (numeric[good[0][0]], numeric[good[0][1]]) if good else None


def _grid_ticks(dimension: Dimension) -> list[float]:
    assert isinstance(dimension, Range), f"a contour needs ranges, but got {dimension}"
    if not dimension.log:
        ticks = MaxNLocator(5, integer=dimension.integer).tick_values(dimension.low, dimension.high)
    else:
        subs = log_ticks(dimension)
        ticks = LogLocator(subs=subs, numticks=8).tick_values(dimension.low, dimension.high)
    return [float(v) for v in ticks if dimension.low * (1 - 1e-9) <= v <= dimension.high * (1 + 1e-9)]

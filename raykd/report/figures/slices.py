"""Figures of single fields: importances, and accuracy against each leading field."""

from collections.abc import Sequence
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from raykd.report.figures.history import HELD_OUT
from raykd.report.figures.style import (
    BLUE,
    CARD,
    HALF,
    INK,
    MUTED,
    ORANGE,
    VERMILLION,
    WIDE,
    breakable,
    figure,
    legend,
    window,
)
from raykd.report.rows.types import RunData, TrialRow, accuracy, scored
from raykd.report.stats.importances import Importances, unit
from raykd.spec import Choice, Dimension, Range, Scalar

MOST_FIELDS, MOST_POINTS = 12, 400


def bars(run: RunData, found: Importances | str) -> Figure | str:
    """Importances with their intervals."""
    if isinstance(found, str):
        return found
    rows = found.rows[:MOST_FIELDS]
    drawn = figure(HALF, 1.1 + 0.33 * len(rows))
    axes = drawn.add_subplot(xlabel="importance (points of accuracy)")
    ys = range(len(rows))
    axes.barh(ys, [row.mean for row in rows], 0.62, color=BLUE)
    half = [row.high - row.mean for row in rows]
    axes.errorbar([row.mean for row in rows], ys, xerr=half, fmt="none", ecolor=INK, capsize=3, lw=1.2)
    axes.axvline(0, color=MUTED, lw=0.9)
    axes.set_yticks(ys, [breakable(row.path, 30) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    return drawn


def short(value: Scalar) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = text.lower() if isinstance(value, bool) else text
    return text if len(text) <= 12 else f"{text[:11]}…"


def slices(run: RunData, paths: Sequence[str]) -> Figure | str:
    """Accuracy against each leading field."""
    trials = run.finished()
    paths = paths[:MOST_FIELDS]
    if len(trials) < 2 or not paths:
        return "Slices need two finished trials that differ."
    columns = min(4, len(paths))
    lines = ceil(len(paths) / columns)
    drawn = figure(WIDE if columns > 2 else HALF * columns, 2.45 * lines + 0.4)
    low, high = window([accuracy(t) for t in trials])
    others = [t for t in run.trials if t.state == "PRUNED" and scored(t)]
    for i, path in enumerate(paths):
        axes = drawn.add_subplot(lines, columns, i + 1)
        spread = _spread(run, path)
        _dots(axes, path, spread, others, "x", ORANGE, 3.6, "pruned, at its last epoch")
        _dots(axes, path, spread, trials[1:], "o", BLUE, 4.2, "complete")
        _dots(axes, path, spread, trials[:1], "D", VERMILLION, 6.0, "best")
        paper = [t for t in trials if t.role == "paper"]
        _dots(axes, path, spread, paper, "*", INK, 11, "the paper's point")
        axes.set_ylim(low, high)
        axes.set_xlabel(breakable(run.title(path), 26))
        if i % columns == 0:
            axes.set_ylabel(HELD_OUT)
        else:
            axes.tick_params(labelleft=False)
        _field_axis(axes, run.space[path])
    legend(drawn, 4)
    return drawn


def _spread(run: RunData, path: str) -> dict[int, float]:
    """Where each trial stands on the field's axis; the values of a choice are spread a little."""
    dimension = run.space[path]
    rng = np.random.default_rng(0)
    best = next((t.number for t in run.finished()), None)
    places = {}
    for trial in run.trials:
        value = trial.drawn.get(path)
        jitter = float(rng.uniform(-0.2, 0.2))
        if value is None or np.isnan(unit(dimension, value)):
            continue
        if isinstance(dimension, Choice):
            marked = trial.role == "paper" or trial.number == best
            places[trial.number] = dimension.values.index(value) + (0 if marked else jitter)
        else:
            places[trial.number] = float(value)
    return places


def _dots(
    axes: Axes,
    path: str,
    x: dict[int, float],
    trials: Sequence[TrialRow],
    mark: str,
    fill: str,
    size: float,
    name: str,
) -> None:
    some = [t for t in trials if t.number in x]
    some = some[:: max(1, ceil(len(some) / MOST_POINTS))]
    if some:
        xs, ys = [x[t.number] for t in some], [accuracy(t) for t in some]
        edge = fill if mark == "x" else CARD
        axes.plot(xs, ys, mark, color=fill, mec=edge, mew=0.9 if mark == "x" else 0.5, ms=size, label=name)


def _field_axis(axes: Axes, dimension: Dimension) -> None:
    """The x axis of a field: its range, logarithmic where the search was; or its values."""
    if isinstance(dimension, Choice):
        names = [short(v) for v in dimension.values]
        crowded = sum(map(len, names)) > 22
        turn = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
        axes.set_xticks(range(len(names)), names)
        for label in axes.get_xticklabels():
            label.set(**turn)
        axes.set_xlim(-0.5, len(names) - 0.5)
        return
    _number_axis(axes, dimension)


def _number_axis(axes: Axes, dimension: Range) -> None:
    if dimension.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=log_ticks(dimension), numticks=8))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=dimension.integer))


def log_ticks(dimension: Range) -> tuple[float, ...]:
    """Which multiples of each power of ten to label, so that labels neither lack nor collide."""
    ratio = dimension.high / dimension.low
    if ratio < 40:
        return (1.0, 2.0, 5.0)
    return (1.0, 3.0) if ratio < 400 else (1.0,)

"""Figures of single parameters: importances, and accuracy against each leading one."""

from collections.abc import Sequence
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from raykd.report.figures.style import (
    BLUE,
    CARD,
    FULL_WIDTH,
    HALF_WIDTH,
    INK,
    MUTED,
    ORANGE,
    VERMILLION,
    add_legend,
    axis_limits,
    new_figure,
    wrap_path,
)
from raykd.report.rows.types import RunData, TrialRow, get_accuracy, has_accuracy
from raykd.report.stats.importances import Importances, scale_to_unit
from raykd.spec import Choice, Dimension, Range, Scalar

MAX_PARAMS, MAX_POINTS = 12, 400


def plot_importances(run: RunData, importances: Importances | str) -> Figure | str:
    """Draws importances with their intervals."""
    if isinstance(importances, str):
        return importances
    rows = importances.rows[:MAX_PARAMS]
    figure = new_figure(HALF_WIDTH, 1.1 + 0.33 * len(rows))
    axes = figure.add_subplot(xlabel=f"importance (points of {run.metric_title})")
    ys = range(len(rows))
    axes.barh(ys, [row.mean for row in rows], 0.62, color=BLUE)
    half_widths = [row.high - row.mean for row in rows]
    axes.errorbar([row.mean for row in rows], ys, xerr=half_widths, fmt="none", ecolor=INK, capsize=3, lw=1.2)
    axes.axvline(0, color=MUTED, lw=0.9)
    axes.set_yticks(ys, [wrap_path(row.path, 30) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    return figure


def shorten(value: Scalar) -> str:
    """Returns a value as a tick label of at most 12 characters."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = text.lower() if isinstance(value, bool) else text
    return text if len(text) <= 12 else f"{text[:11]}…"


def plot_slices(run: RunData, paths: Sequence[str]) -> Figure | str:
    """Draws accuracy against each leading parameter."""
    trials = run.complete_trials()
    paths = paths[:MAX_PARAMS]
    if len(trials) < 2 or not paths:
        return "Slices need two finished trials that differ."
    num_columns = min(4, len(paths))
    num_rows = ceil(len(paths) / num_columns)
    figure = new_figure(FULL_WIDTH if num_columns > 2 else HALF_WIDTH * num_columns, 2.45 * num_rows + 0.4)
    low, high = axis_limits([get_accuracy(t) for t in trials])
    pruned_trials = [t for t in run.trials if t.state == "PRUNED" and has_accuracy(t)]
    for i, path in enumerate(paths):
        axes = figure.add_subplot(num_rows, num_columns, i + 1)
        x_positions = _get_x_positions(run, path)
        _scatter(axes, x_positions, pruned_trials, "x", ORANGE, 3.6, "pruned, at its last epoch")
        _scatter(axes, x_positions, trials[1:], "o", BLUE, 4.2, "complete")
        _scatter(axes, x_positions, trials[:1], "D", VERMILLION, 6.0, "best")
        paper_trials = [t for t in trials if t.role == "paper"]
        _scatter(axes, x_positions, paper_trials, "*", INK, 11, "the paper's point")
        axes.set_ylim(low, high)
        axes.set_xlabel(wrap_path(run.axis_title(path), 26))
        if i % num_columns == 0:
            axes.set_ylabel(run.held_out_label)
        else:
            axes.tick_params(labelleft=False)
        _format_param_axis(axes, run.space[path])
    add_legend(figure, 4)
    return figure


def _get_x_positions(run: RunData, path: str) -> dict[int, float]:
    """Where each trial stands on the parameter's axis; the values of a choice are spread a little."""
    dimension = run.space[path]
    rng = np.random.default_rng(0)
    best_number = next((t.number for t in run.complete_trials()), None)
    positions = {}
    for trial in run.trials:
        value = trial.params.get(path)
        jitter = float(rng.uniform(-0.2, 0.2))
        if value is None or np.isnan(scale_to_unit(dimension, value)):
            continue
        if isinstance(dimension, Choice):
            is_marked = trial.role == "paper" or trial.number == best_number
            positions[trial.number] = dimension.values.index(value) + (0 if is_marked else jitter)
        else:
            positions[trial.number] = float(value)
    return positions


def _scatter(
    axes: Axes,
    x_positions: dict[int, float],
    trials: Sequence[TrialRow],
    marker: str,
    colour: str,
    size: float,
    label: str,
) -> None:
    shown = [t for t in trials if t.number in x_positions]
    shown = shown[:: max(1, ceil(len(shown) / MAX_POINTS))]
    if shown:
        xs, ys = [x_positions[t.number] for t in shown], [get_accuracy(t) for t in shown]
        edge_colour = colour if marker == "x" else CARD
        axes.plot(
            xs, ys, marker, color=colour, mec=edge_colour, mew=0.9 if marker == "x" else 0.5, ms=size,
            label=label,
        )  # fmt: skip


def _format_param_axis(axes: Axes, dimension: Dimension) -> None:
    """The x axis of a parameter: its range, logarithmic where the search was; or its values."""
    if isinstance(dimension, Choice):
        labels = [shorten(v) for v in dimension.values]
        crowded = sum(map(len, labels)) > 22
        label_rotation = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
        axes.set_xticks(range(len(labels)), labels)
        for label in axes.get_xticklabels():
            label.set(**label_rotation)
        axes.set_xlim(-0.5, len(labels) - 0.5)
        return
    _format_number_axis(axes, dimension)


def _format_number_axis(axes: Axes, dimension: Range) -> None:
    if dimension.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=log_ticks(dimension), numticks=8))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=dimension.integer))


def log_ticks(dimension: Range) -> tuple[float, ...]:
    """Returns which multiples of each power of ten to label, so that labels neither lack nor collide."""
    ratio = dimension.high / dimension.low
    if ratio < 40:
        return (1.0, 2.0, 5.0)
    return (1.0, 3.0) if ratio < 400 else (1.0,)

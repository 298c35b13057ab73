"""Figures of runs side by side. A method has the same colour, marker and line style on every page."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from raykd import methods
from raykd.report.comparison.recipe_results import CE, KD, PairTable
from raykd.report.figures.style import (
    CARD,
    FULL_WIDTH,
    HALF_WIDTH,
    INK,
    MUTED,
    SeriesStyle,
    add_legend,
    axis_limits,
    new_figure,
    series_style,
)
from raykd.report.rows.types import RunData, get_accuracy, get_seconds, has_accuracy

CONTROL_STYLES = {CE: SeriesStyle(MUTED, "o", "-"), KD: SeriesStyle(INK, "s", "-")}


def method_style(method: str, repeat: int = 0) -> SeriesStyle:
    """Returns a method's style; runs of one method differ in line style and marker."""
    names = [name for name in methods.names() if name not in CONTROL_STYLES]
    index = names.index(method) if method in names else len(names)
    style = CONTROL_STYLES.get(method) or series_style(index)
    return (
        style
        if repeat == 0
        else SeriesStyle(
            style.colour, series_style(index + 6 * repeat).marker, series_style(index + 6 * repeat).linestyle
        )
    )


def run_styles(runs: Sequence[RunData]) -> list[tuple[RunData, SeriesStyle]]:
    """Returns each run with its style: its method's, and no style twice."""
    num_seen: dict[str, int] = {}
    styles = []
    for run in runs:
        styles.append((run, method_style(run.method, num_seen.get(run.method, 0))))
        num_seen[run.method] = num_seen.get(run.method, 0) + 1
    return styles


def plot_test_accuracies(table: PairTable) -> Figure | str:
    """Draws the test accuracy of each recipe: seeds, means with 95 % intervals, the papers' numbers."""
    results = [result for result in table.results if result.accuracies]
    if not results:
        return "Nothing has been confirmed on the test set yet (`raykd confirm`)."
    figure = new_figure(FULL_WIDTH, 1.4 + 0.36 * len(results))
    axes = figure.add_subplot(xlabel=table.runs[0].test_label)
    for y, result in enumerate(results):
        style, mean = method_style(result.method), result.mean_accuracy()
        assert mean is not None, f"{result.name} has no seeds"
        axes.plot([*result.accuracies.values()], [y + 0.2] * mean.n, ".", color=MUTED, ms=6, label="one seed")
        face_colour = style.colour if result.source == "searched" else CARD
        axes.errorbar(
            mean.mean, y, xerr=mean.half_width, fmt=style.marker, color=style.colour, mfc=face_colour,
            ms=6, capsize=3.5, lw=1.5,
        )  # fmt: skip
        for row in result.published:
            axes.plot(
                row.value, y - 0.05, "|", color=INK, ms=15, mew=1.6, label="printed by a paper or its code"
            )
    axes.set_yticks(
        range(len(results)), [f"{result.label} (n={len(result.accuracies)})" for result in results]
    )
    axes.set_ylim(len(results) - 0.5, -0.5)
    axes.set_xlim(*_seed_limits([value for result in results for value in result.accuracies.values()]))
    axes.grid(visible=False, axis="y")
    add_legend(figure, 3)
    return figure


def _figure_height(table: PairTable) -> float:
    """Inches, with room for a legend line of each run."""
    return 3.7 + 0.19 * len(table.runs)


def _seed_limits(values: Sequence[float]) -> tuple[float, float]:
    """Limits around the seeds: the interval of two seeds is so wide that it would flatten all others."""
    margin = max(0.5, 0.4 * (max(values) - min(values)))
    return min(values) - margin, min(100.0, max(values) + margin)


def plot_edf(table: PairTable) -> Figure | str:
    """Draws which part of a search's trials stayed at or below each accuracy."""
    figure = new_figure(HALF_WIDTH, _figure_height(table))
    axes = figure.add_subplot(xlabel=table.runs[0].held_out_label, ylabel="part of all trials at or below it")
    all_accuracies: list[float] = []
    for run, style in run_styles(table.runs):
        ended = [t for t in run.trials if t.state in ("COMPLETE", "PRUNED", "FAIL")]
        accuracies = sorted(get_accuracy(t) for t in ended if has_accuracy(t) and t.state != "FAIL")
        if not accuracies:
            continue
        failed = len(ended) - len(accuracies)
        heights = [(failed + i + 1) / len(ended) for i in range(len(accuracies))]
        label = f"{run.name} (n={len(ended)})"
        axes.step(accuracies, heights, where="post", color=style.colour, ls=style.linestyle, label=label)
        all_accuracies += accuracies
    if not all_accuracies:
        return "No trial has ended with an accuracy yet, so there is no distribution."
    axes.set_xlim(*axis_limits(all_accuracies))
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    add_legend(figure, 1 if len(table.runs) > 4 else 2)
    return figure


def plot_anytime(table: PairTable) -> Figure | str:
    """Draws the best held-out accuracy so far against the device-hours spent on the search."""
    figure = new_figure(HALF_WIDTH, _figure_height(table))
    device_kinds = {run.device_kind for run in table.runs}
    axes = figure.add_subplot(
        xlabel=f"{' or '.join(sorted(device_kinds))}-hours of the search",
        ylabel="best " + table.runs[0].held_out_label,
    )
    best_accuracies: list[float] = []
    for run, style in run_styles(table.runs):
        points = best_so_far(run)
        if points:
            hours, best = zip(*points, strict=True)
            label = f"{run.name} ({best[-1]:.2f} %)"
            axes.step(hours, best, where="post", color=style.colour, ls=style.linestyle, label=label)
            axes.plot(hours[-1], best[-1], style.marker, color=style.colour, ms=6)
            best_accuracies += best
    if not best_accuracies:
        return "No trial has finished yet, so there is nothing to set against its cost."
    axes.set_ylim(*axis_limits(best_accuracies))
    axes.set_xlim(left=0)
    add_legend(figure, 1 if len(table.runs) > 4 else 2)
    return figure


def best_so_far(run: RunData) -> list[tuple[float, float]]:
    """Returns (device-hours spent when a trial ended, the best finished accuracy so far)."""
    ended_trials = [t for t in run.trials if t.started is not None and t.ended is not None]
    hours, best, points = 0.0, -1.0, []
    for trial in sorted(ended_trials, key=lambda t: t.ended or 0):
        hours += get_seconds(trial) / 3600 * run.trial_devices
        if trial.state == "COMPLETE" and has_accuracy(trial) and not trial.breaks:
            best = max(best, get_accuracy(trial))
        if best >= 0:
            points.append((hours, best))
    return points

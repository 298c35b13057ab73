"""Figures of how a run went, over trials and epochs. Each is drawn, or says in one sentence why not."""

from collections.abc import Sequence
from math import ceil, isfinite

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from raykd.report.figures.style import (
    BLUE,
    CARD,
    FULL_WIDTH,
    GREEN,
    HALF_WIDTH,
    INK,
    LEADER_COLOURS,
    MUTED,
    ORANGE,
    VERMILLION,
    add_legend,
    axis_limits,
    mark_clipped,
    new_figure,
)
from raykd.report.rows.types import EpochRow, RunData, TrialRow, TrialState, get_accuracy, has_accuracy
from raykd.report.stats import tests

MAX_CURVES, MAX_POINTS = 250, 80
STATE_COLOURS: dict[TrialState, str] = {
    "COMPLETE": BLUE,
    "PRUNED": ORANGE,
    "FAIL": VERMILLION,
    "RUNNING": GREEN,
}


def plot_optimization_history(run: RunData) -> Figure | str:
    """Draws the accuracy of each trial in the order of the search."""
    scored_trials = [t for t in run.trials if has_accuracy(t) and t.state != "FAIL"]
    if not scored_trials:
        return f"No trial has a held-out {run.metric_title} yet, so there is no history to draw."
    figure = new_figure(FULL_WIDTH, 3.9)
    axes = figure.add_subplot(xlabel="trial (number)", ylabel=run.held_out_label)
    state_styles = [
        ("PRUNED", "x", ORANGE, ORANGE),
        ("RUNNING", "o", CARD, GREEN),
        ("COMPLETE", "o", BLUE, CARD),
    ]
    for state, marker, face_colour, edge_colour in state_styles:
        group = [t for t in scored_trials if t.state == state]
        label = f"{state.lower()} (n={len(group)})"
        if group:
            xs, ys = [t.number for t in group], [get_accuracy(t) for t in group]
            axes.plot(
                xs, ys, marker, color=face_colour, markeredgecolor=edge_colour, markeredgewidth=1.1,
                markersize=5.5, label=label,
            )  # fmt: skip
    low, high = axis_limits([get_accuracy(t) for t in scored_trials])
    failed_numbers = [t.number for t in run.trials if t.state == "FAIL"]
    if failed_numbers:
        transform = axes.get_xaxis_transform()
        label = f"failed, at the top edge (n={len(failed_numbers)})"
        axes.plot(
            failed_numbers, [1.0] * len(failed_numbers), "|", color=VERMILLION, ms=13, mew=1.6,
            transform=transform, label=label,
        )  # fmt: skip
    _draw_best_so_far(axes, run)
    _draw_paper_point(axes, run)
    mark_clipped(axes, [t.number for t in scored_trials], [get_accuracy(t) for t in scored_trials], low)
    axes.set_ylim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    add_legend(figure, 3)
    return figure


def _draw_best_so_far(axes: Axes, run: RunData) -> None:
    best_accuracies: list[float] = []
    in_order = sorted(run.complete_trials(), key=lambda t: t.number)
    for trial in in_order:
        best_accuracies.append(max(get_accuracy(trial), best_accuracies[-1] if best_accuracies else -1.0))
    if best_accuracies:
        numbers = [*(t.number for t in in_order), max(t.number for t in run.trials)]
        axes.plot(
            numbers, [*best_accuracies, best_accuracies[-1]], color=INK, drawstyle="steps-post", lw=1.2,
            label="best so far",
        )  # fmt: skip


def _draw_paper_point(axes: Axes, run: RunData) -> None:
    paper = run.paper_trial()
    if paper is not None:
        axes.axhline(get_accuracy(paper), color=MUTED, linestyle=(0, (5, 3)), linewidth=1.0)
        label = f"the paper's point ({get_accuracy(paper):.2f} %)"
        axes.plot(
            paper.number, get_accuracy(paper), "*", color=INK, mec=CARD, markersize=15, label=label, zorder=5
        )


def plot_learning_curves(run: RunData) -> Figure | str:
    """Draws accuracy over the epochs: the leaders in colour, the others behind, pruned ones to their end."""
    rows = {
        n: [r for r in trial_epochs if isfinite(r.accuracy)]
        for n, trial_epochs in run.epochs_by_trial().items()
    }
    rows = {number: trial_epochs for number, trial_epochs in rows.items() if trial_epochs}
    if not rows:
        return "No trial has finished an epoch yet, so there are no learning curves."
    figure = new_figure(FULL_WIDTH, 4.4)
    axes = figure.add_subplot(xlabel="epoch", ylabel=run.held_out_label)
    trials_by_number = {t.number: t for t in run.trials}
    leader_numbers = {t.number for t in get_leaders(run)}
    other_numbers = [number for number in rows if number not in leader_numbers]
    segments = [
        _thin_curve(rows[number])
        for number in other_numbers[:: max(1, ceil(len(other_numbers) / MAX_CURVES))]
    ]
    axes.add_collection(
        LineCollection(
            segments,
            colors=MUTED,
            linewidths=0.7,
            alpha=max(0.25, 0.6 - len(segments) / 400),
            label="other trials",
        )
    )
    pruned_rows = [
        rows[n][-1] for n in other_numbers if n in trials_by_number and trials_by_number[n].state == "PRUNED"
    ]
    if pruned_rows:
        xs, ys = [r.epoch for r in pruned_rows], [r.accuracy for r in pruned_rows]
        axes.plot(
            xs, ys, "x", color=ORANGE, ms=4.5, mew=1.1, label=f"pruned here (n={len(pruned_rows)})", zorder=3
        )
    for trial, (colour, linestyle, label) in leader_styles(run):
        line = _thin_curve(rows.get(trial.number, []))
        axes.plot(
            *zip(*line, strict=True), color=colour, linestyle=linestyle, label=label, zorder=4
        ) if line else None
    _draw_rungs(axes, run)
    low, high = axis_limits(
        [trial_epochs[-1].accuracy for n, trial_epochs in rows.items() if n in leader_numbers]
        or [r[-1].accuracy for r in rows.values()]
    )
    late_accuracies = [
        r.accuracy
        for trial_epochs in rows.values()
        for r in trial_epochs
        if r.epoch >= max(1, run.budget_epochs // 5)
    ]
    axes.set_ylim(
        min(low, axis_limits(late_accuracies)[0]) if late_accuracies else low,
        max(high, axis_limits(late_accuracies)[1]) if late_accuracies else high,
    )
    axes.set_xlim(
        0, max(run.budget_epochs, max(trial_epochs[-1].epoch for trial_epochs in rows.values())) * 1.01
    )
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
    add_legend(figure, 4)
    return figure


def get_leaders(run: RunData, count: int = 5) -> list[TrialRow]:
    """Returns the best trials, and the paper's point if it is not among them."""
    best = run.complete_trials()[:count]
    paper = run.paper_trial()
    return [*best, paper] if paper is not None and paper not in best else best


def leader_styles(run: RunData) -> list[tuple[TrialRow, tuple[str, str, str]]]:
    """Returns of each leader its colour, line style and label; the paper's point is drawn in ink."""
    colours = iter(LEADER_COLOURS)
    styles = []
    for trial in get_leaders(run):
        label = f"trial {trial.number} ({get_accuracy(trial):.2f} %)"
        if trial.role == "paper":
            styles.append((trial, (INK, "--", f"the paper's point, {label}")))
        else:
            styles.append((trial, (next(colours), "-", label)))
    return styles


def _thin_curve(rows: Sequence[EpochRow]) -> list[tuple[float, float]]:
    step = max(1, ceil(len(rows) / MAX_POINTS))
    kept_rows = [*rows[:-1:step], *rows[-1:]]
    return [(row.epoch, row.accuracy) for row in kept_rows]


def _draw_rungs(axes: Axes, run: RunData) -> None:
    for i, epoch in enumerate(run.rungs):
        label = f"rungs (epochs {', '.join(map(str, run.rungs))})" if i == 0 else ""
        axes.axvline(epoch, color=MUTED, linestyle=":", linewidth=1.1, label=label, zorder=1)


def plot_rank_correlations(run: RunData) -> Figure | str:
    """Draws the rank correlation of each epoch with the end, raw and averaged weights."""
    rows = tests.rank_correlations(run)
    if not rows:
        return (
            f"Rank correlations need at least {tests.MIN_TRIALS} finished trials with epochs before the last."
        )
    figure = new_figure(HALF_WIDTH, 4.1)
    axes = figure.add_subplot(xlabel="epoch", ylabel="rank correlation with the end\n(Spearman's rho)")
    xs = [row.epoch for row in rows]
    low, high = [row.ema.low for row in rows], [row.ema.high for row in rows]
    axes.fill_between(xs, low, high, color=BLUE, alpha=0.18, linewidth=0)
    marker = "o" if len(rows) < 25 else ""
    axes.plot(xs, [r.ema.rho for r in rows], color=BLUE, marker=marker, ms=4, label="averaged weights, 95 %")
    raw = [(row.epoch, row.raw.rho) for row in rows if row.raw is not None]
    if raw:
        axes.plot(
            *zip(*raw, strict=True), color=VERMILLION, ls="--", marker=marker, ms=4, label="raw weights"
        )
    better_half = [(row.epoch, row.ema_better_half.rho) for row in rows if row.ema_better_half is not None]
    if better_half:
        axes.plot(
            *zip(*better_half, strict=True), color=GREEN, ls="-.", lw=1.1, label="averaged, better half"
        )
    _draw_rungs(axes, run)
    axes.set_ylim(min(-0.05, *low), 1.03)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
    add_legend(figure, 2)
    return figure

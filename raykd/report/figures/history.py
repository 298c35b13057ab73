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
    GREEN,
    HALF,
    INK,
    LEADERS,
    MUTED,
    ORANGE,
    VERMILLION,
    WIDE,
    clipped,
    figure,
    legend,
    window,
)
from raykd.report.rows.types import EpochRow, RunData, TrialRow, TrialState, accuracy, scored
from raykd.report.stats import tests

HELD_OUT = "held-out accuracy (%)"
MOST_CURVES, MOST_POINTS = 250, 80
LANES: dict[TrialState, str] = {"COMPLETE": BLUE, "PRUNED": ORANGE, "FAIL": VERMILLION, "RUNNING": GREEN}


def history(run: RunData) -> Figure | str:
    """Accuracy of each trial in the order of the search."""
    shown = [t for t in run.trials if scored(t) and t.state != "FAIL"]
    if not shown:
        return "No trial has a held-out accuracy yet, so there is no history to draw."
    drawn = figure(WIDE, 3.9)
    axes = drawn.add_subplot(xlabel="trial (number)", ylabel=HELD_OUT)
    kinds = [("PRUNED", "x", ORANGE, ORANGE), ("RUNNING", "o", CARD, GREEN), ("COMPLETE", "o", BLUE, CARD)]
    for state, marker, face, edge in kinds:
        some = [t for t in shown if t.state == state]
        label = f"{state.lower()} (n={len(some)})"
        if some:
            xs, ys = [t.number for t in some], [accuracy(t) for t in some]
            axes.plot(
                xs,
                ys,
                marker,
                color=face,
                markeredgecolor=edge,
                markeredgewidth=1.1,
                markersize=5.5,
                label=label,
            )
    low, high = window([accuracy(t) for t in shown])
    failed = [t.number for t in run.trials if t.state == "FAIL"]
    if failed:
        place = axes.get_xaxis_transform()
        label = f"failed, at the top edge (n={len(failed)})"
        axes.plot(
            failed, [1.0] * len(failed), "|", color=VERMILLION, ms=13, mew=1.6, transform=place, label=label
        )
    _so_far(axes, run)
    _paper(axes, run)
    clipped(axes, [t.number for t in shown], [accuracy(t) for t in shown], low)
    axes.set_ylim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend(drawn, 3)
    return drawn


def _so_far(axes: Axes, run: RunData) -> None:
    best: list[float] = []
    order = sorted(run.finished(), key=lambda t: t.number)
    for trial in order:
        best.append(max(accuracy(trial), best[-1] if best else -1.0))
    if best:
        ends = [*(t.number for t in order), max(t.number for t in run.trials)]
        axes.plot(ends, [*best, best[-1]], color=INK, drawstyle="steps-post", lw=1.2, label="best so far")


def _paper(axes: Axes, run: RunData) -> None:
    paper = run.at_paper()
    if paper is not None:
        axes.axhline(accuracy(paper), color=MUTED, linestyle=(0, (5, 3)), linewidth=1.0)
        label = f"the paper's point ({accuracy(paper):.2f} %)"
        axes.plot(
            paper.number, accuracy(paper), "*", color=INK, mec=CARD, markersize=15, label=label, zorder=5
        )


def curves(run: RunData) -> Figure | str:
    """Accuracy over the epochs: the leaders in colour, the others behind, pruned ones where they stopped."""
    rows = {n: [r for r in of if isfinite(r.accuracy)] for n, of in run.curves().items()}
    rows = {number: of for number, of in rows.items() if of}
    if not rows:
        return "No trial has finished an epoch yet, so there are no learning curves."
    drawn = figure(WIDE, 4.4)
    axes = drawn.add_subplot(xlabel="epoch", ylabel=HELD_OUT)
    known = {t.number: t for t in run.trials}
    front = {t.number for t in leaders(run)}
    back = [number for number in rows if number not in front]
    lines = [_line(rows[number]) for number in back[:: max(1, ceil(len(back) / MOST_CURVES))]]
    axes.add_collection(
        LineCollection(
            lines, colors=MUTED, linewidths=0.7, alpha=max(0.25, 0.6 - len(lines) / 400), label="other trials"
        )
    )
    ends = [rows[n][-1] for n in back if n in known and known[n].state == "PRUNED"]
    if ends:
        xs, ys = [r.epoch for r in ends], [r.accuracy for r in ends]
        axes.plot(xs, ys, "x", color=ORANGE, ms=4.5, mew=1.1, label=f"pruned here (n={len(ends)})", zorder=3)
    for trial, (colour, dashes, label) in styles(run):
        line = _line(rows.get(trial.number, []))
        axes.plot(
            *zip(*line, strict=True), color=colour, linestyle=dashes, label=label, zorder=4
        ) if line else None
    _rungs(axes, run)
    low, high = window(
        [of[-1].accuracy for n, of in rows.items() if n in front] or [r[-1].accuracy for r in rows.values()]
    )
    late = [r.accuracy for of in rows.values() for r in of if r.epoch >= max(1, run.budget_epochs // 5)]
    axes.set_ylim(min(low, window(late)[0]) if late else low, max(high, window(late)[1]) if late else high)
    axes.set_xlim(0, max(run.budget_epochs, max(of[-1].epoch for of in rows.values())) * 1.01)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
    legend(drawn, 4)
    return drawn


def leaders(run: RunData, count: int = 5) -> list[TrialRow]:
    """The best trials, and the paper's point if it is not among them."""
    best = run.finished()[:count]
    paper = run.at_paper()
    return [*best, paper] if paper is not None and paper not in best else best


def styles(run: RunData) -> list[tuple[TrialRow, tuple[str, str, str]]]:
    """Of each leader: the colour, the dashes, and the label; the paper's point is drawn in ink."""
    colours = iter(LEADERS)
    styles = []
    for trial in leaders(run):
        name = f"trial {trial.number} ({accuracy(trial):.2f} %)"
        if trial.role == "paper":
            styles.append((trial, (INK, "--", f"the paper's point, {name}")))
        else:
            styles.append((trial, (next(colours), "-", name)))
    return styles


def _line(rows: Sequence[EpochRow]) -> list[tuple[float, float]]:
    step = max(1, ceil(len(rows) / MOST_POINTS))
    kept = [*rows[:-1:step], *rows[-1:]]
    return [(row.epoch, row.accuracy) for row in kept]


def _rungs(axes: Axes, run: RunData) -> None:
    for i, epoch in enumerate(run.rungs):
        label = f"rungs (epochs {', '.join(map(str, run.rungs))})" if i == 0 else ""
        axes.axvline(epoch, color=MUTED, linestyle=":", linewidth=1.1, label=label, zorder=1)


def ranks(run: RunData) -> Figure | str:
    """Rank correlation of each epoch with the end, raw and averaged weights."""
    rows = tests.rank_correlations(run)
    if not rows:
        return f"Rank correlations need at least {tests.FEWEST} finished trials with epochs before the last."
    drawn = figure(HALF, 4.1)
    axes = drawn.add_subplot(xlabel="epoch", ylabel="rank correlation with the end\n(Spearman's rho)")
    xs = [row.epoch for row in rows]
    low, high = [row.averaged.low for row in rows], [row.averaged.high for row in rows]
    axes.fill_between(xs, low, high, color=BLUE, alpha=0.18, linewidth=0)
    marks = "o" if len(rows) < 25 else ""
    axes.plot(
        xs, [r.averaged.rho for r in rows], color=BLUE, marker=marks, ms=4, label="averaged weights, 95 %"
    )
    raw = [(row.epoch, row.raw.rho) for row in rows if row.raw is not None]
    if raw:
        axes.plot(*zip(*raw, strict=True), color=VERMILLION, ls="--", marker=marks, ms=4, label="raw weights")
    half = [(row.epoch, row.best_half.rho) for row in rows if row.best_half is not None]
    if half:
        axes.plot(*zip(*half, strict=True), color=GREEN, ls="-.", lw=1.1, label="averaged, better half")
    _rungs(axes, run)
    axes.set_ylim(min(-0.05, *low), 1.03)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
    legend(drawn, 2)
    return drawn

"""Figures of runs side by side. A method has the same colour, mark and dashes on every page."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from raykd import methods
from raykd.report.comparison.lines import CE, KD, Table
from raykd.report.figures.history import HELD_OUT
from raykd.report.figures.style import CARD, HALF, INK, MUTED, WIDE, Look, figure, legend, look, window
from raykd.report.rows.types import RunData, accuracy, scored, spent

CONTROLS = {CE: Look(MUTED, "o", "-"), KD: Look(INK, "s", "-")}


def method_look(method: str, again: int = 0) -> Look:
    """A method's look; of runs of one method, each after the first differs in its dashes and mark."""
    names = [name for name in methods.names() if name not in CONTROLS]
    place = names.index(method) if method in names else len(names)
    own = CONTROLS.get(method) or look(place)
    return (
        own if again == 0 else Look(own.colour, look(place + 6 * again).mark, look(place + 6 * again).dashes)
    )


def looks(runs: Sequence[RunData]) -> list[tuple[RunData, Look]]:
    seen: dict[str, int] = {}
    found = []
    for run in runs:
        found.append((run, method_look(run.method, seen.get(run.method, 0))))
        seen[run.method] = seen.get(run.method, 0) + 1
    return found


def accuracies(table: Table) -> Figure | str:
    """Test accuracy of each line: seeds as points, means with 95 % intervals, the papers' numbers."""
    lines = [line for line in table.lines if line.seeds]
    if not lines:
        return "Nothing has been confirmed on the test set yet (`raykd confirm`)."
    drawn = figure(WIDE, 1.4 + 0.36 * len(lines))
    axes = drawn.add_subplot(xlabel="test accuracy (%)")
    for y, line in enumerate(lines):
        own, mean = method_look(line.method), line.mean()
        assert mean is not None, f"{line.name} has no seeds"
        axes.plot([*line.seeds.values()], [y + 0.2] * mean.n, ".", color=MUTED, ms=6, label="one seed")
        face = own.colour if line.what == "searched" else CARD
        axes.errorbar(
            mean.mean, y, xerr=mean.half, fmt=own.mark, color=own.colour, mfc=face, ms=6, capsize=3.5, lw=1.5
        )
        for row in line.published:
            axes.plot(
                row.value, y - 0.05, "|", color=INK, ms=15, mew=1.6, label="printed by a paper or its code"
            )
    axes.set_yticks(range(len(lines)), [f"{line.place} (n={len(line.seeds)})" for line in lines])
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xlim(*_span([value for line in lines for value in line.seeds.values()]))
    axes.grid(visible=False, axis="y")
    legend(drawn, 3)
    return drawn


def _height(table: Table) -> float:
    """Inches, with room for a legend line of each run."""
    return 3.7 + 0.19 * len(table.runs)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Limits around the seeds: the interval of two seeds is so wide that it would flatten all others."""
    margin = max(0.5, 0.4 * (max(values) - min(values)))
    return min(values) - margin, min(100.0, max(values) + margin)


def edf(table: Table) -> Figure | str:
    """Which part of a search's trials stayed at or below each accuracy."""
    drawn = figure(HALF, _height(table))
    axes = drawn.add_subplot(xlabel=HELD_OUT, ylabel="part of all trials at or below it")
    shown: list[float] = []
    for run, own in looks(table.runs):
        ended = [t for t in run.trials if t.state in ("COMPLETE", "PRUNED", "FAIL")]
        values = sorted(accuracy(t) for t in ended if scored(t) and t.state != "FAIL")
        if not values:
            continue
        failed = len(ended) - len(values)
        heights = [(failed + i + 1) / len(ended) for i in range(len(values))]
        label = f"{run.name} (n={len(ended)})"
        axes.step(values, heights, where="post", color=own.colour, ls=own.dashes, label=label)
        shown += values
    if not shown:
        return "No trial has ended with an accuracy yet, so there is no distribution."
    axes.set_xlim(*window(shown))
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    legend(drawn, 1 if len(table.runs) > 4 else 2)
    return drawn


def anytime(table: Table) -> Figure | str:
    """The best held-out accuracy so far against the device-hours spent on the search."""
    drawn = figure(HALF, _height(table))
    device = {run.device for run in table.runs}
    axes = drawn.add_subplot(
        xlabel=f"{' or '.join(sorted(device))}-hours of the search", ylabel="best " + HELD_OUT
    )
    ends: list[float] = []
    for run, own in looks(table.runs):
        points = so_far(run)
        if points:
            hours, best = zip(*points, strict=True)
            label = f"{run.name} ({best[-1]:.2f} %)"
            axes.step(hours, best, where="post", color=own.colour, ls=own.dashes, label=label)
            axes.plot(hours[-1], best[-1], own.mark, color=own.colour, ms=6)
            ends += best
    if not ends:
        return "No trial has finished yet, so there is nothing to set against its cost."
    axes.set_ylim(*window(ends))
    axes.set_xlim(left=0)
    legend(drawn, 1 if len(table.runs) > 4 else 2)
    return drawn


def so_far(run: RunData) -> list[tuple[float, float]]:
    """(device-hours spent when a trial ended, the best finished accuracy so far)."""
    ended = [t for t in run.trials if t.started is not None and t.ended is not None]
    hours, best, points = 0.0, -1.0, []
    for trial in sorted(ended, key=lambda t: t.ended or 0):
        hours += spent(trial) / 3600 * run.trial_devices
        if trial.state == "COMPLETE" and scored(trial):
            best = max(best, accuracy(trial))
        if best >= 0:
            points.append((hours, best))
    return points

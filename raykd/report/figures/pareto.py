"""Several objectives: what accuracy costs, and the trials that no other trial beats in everything."""

from typing import NamedTuple

from matplotlib.figure import Figure

from raykd.report.figures.history import HELD_OUT
from raykd.report.figures.style import BLUE, CARD, HALF, INK, VERMILLION, figure, legend
from raykd.report.rows.types import RunData, TrialRow, accuracy

TITLES = {"seconds_per_epoch": "seconds per epoch", "parameters": "parameters of the student"}


class Point(NamedTuple):
    """A finished trial: its accuracy (%), and what it cost in each other objective."""

    number: int
    accuracy: float
    costs: tuple[float, ...]


def points(run: RunData) -> list[Point]:
    """The finished trials whose objectives are all known."""
    found = []
    for trial in run.finished():
        costs = [cost for name in run.objectives[1:] if (cost := _cost(trial, name)) is not None]
        if len(costs) == len(run.objectives) - 1:
            found.append(Point(trial.number, accuracy(trial), tuple(costs)))
    return found


def _cost(trial: TrialRow, name: str) -> float | None:
    return {"seconds_per_epoch": trial.seconds_per_epoch, "parameters": trial.parameters}[name]


def front(found: list[Point]) -> list[Point]:
    """Those that no other is at least as good as in every objective and better in one."""
    return [one for one in found if not any(_beats(other, one) for other in found)]


def _beats(a: Point, b: Point) -> bool:
    mine, theirs = (-a.accuracy, *a.costs), (-b.accuracy, *b.costs)
    return mine != theirs and all(x <= y for x, y in zip(mine, theirs, strict=True))


def fronts(run: RunData) -> Figure | str:
    """Accuracy against every other objective, a panel each."""
    found = points(run)
    if not found:
        return "No trial has finished with all its objectives yet."
    best, names = front(found), run.objectives[1:]
    drawn = figure(HALF * len(names), 3.6)
    for place, name in enumerate(names):
        axes = drawn.add_subplot(1, len(names), place + 1, xlabel=TITLES[name], ylabel=HELD_OUT)
        for some, face, label in ((found, CARD, "finished"), (best, BLUE, "not beaten in everything")):
            xs, ys = [p.costs[place] for p in some], [p.accuracy for p in some]
            of = f"{label} (n={len(some)})" if place == 0 else None
            axes.plot(xs, ys, "o", color=face, markeredgecolor=BLUE, markersize=5.5, label=of)
        paper = next((p for p in found if p.number == (at.number if (at := run.at_paper()) else None)), None)
        if paper is not None:
            of = "the paper's point" if place == 0 else None
            axes.plot(
                [paper.costs[place]], [paper.accuracy], "D", color=VERMILLION, ms=7, mfc="none", label=of
            )
        for point in best:
            at_point = (point.costs[place], point.accuracy)
            axes.annotate(str(point.number), at_point, (4, 3), textcoords="offset points", color=INK, size=7)
    legend(drawn, 3)
    return drawn

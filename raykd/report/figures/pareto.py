"""Several objectives: what accuracy costs, and the trials that no other trial beats in everything."""

from typing import NamedTuple

from matplotlib.figure import Figure

from raykd.report.figures.style import BLUE, CARD, HALF_WIDTH, INK, VERMILLION, add_legend, new_figure
from raykd.report.rows.types import RunData, TrialRow, get_accuracy

OBJECTIVE_TITLES = {"seconds_per_epoch": "seconds per epoch", "parameters": "parameters of the student"}


class ObjectivePoint(NamedTuple):
    """A finished trial: its accuracy (%), and what it cost in each other objective."""

    number: int
    accuracy: float
    costs: tuple[float, ...]


def objective_points(run: RunData) -> list[ObjectivePoint]:
    """Returns the finished trials whose objectives are all known."""
    points = []
    for trial in run.complete_trials():
        costs = [cost for name in run.objectives[1:] if (cost := _get_cost(trial, name)) is not None]
        if len(costs) == len(run.objectives) - 1:
            points.append(ObjectivePoint(trial.number, get_accuracy(trial), tuple(costs)))
    return points


def _get_cost(trial: TrialRow, name: str) -> float | None:
    return {"seconds_per_epoch": trial.seconds_per_epoch, "parameters": trial.parameters}[name]


def pareto_front(points: list[ObjectivePoint]) -> list[ObjectivePoint]:
    """Returns those that no other is at least as good as in every objective and better in one."""
    return [point for point in points if not any(_dominates(other, point) for other in points)]


def _dominates(a: ObjectivePoint, b: ObjectivePoint) -> bool:
    objectives_a, objectives_b = (-a.accuracy, *a.costs), (-b.accuracy, *b.costs)
    return objectives_a != objectives_b and all(
        x <= y for x, y in zip(objectives_a, objectives_b, strict=True)
    )


def plot_pareto_front(run: RunData) -> Figure | str:
    """Draws accuracy against every other objective, a panel each."""
    points = objective_points(run)
    if not points:
        return "No trial has finished with all its objectives yet."
    front_points, names = pareto_front(points), run.objectives[1:]
    figure = new_figure(HALF_WIDTH * len(names), 3.6)
    for column, name in enumerate(names):
        axes = figure.add_subplot(
            1, len(names), column + 1, xlabel=OBJECTIVE_TITLES[name], ylabel=run.held_out_label
        )
        for group, face_colour, label in (
            (points, CARD, "finished"),
            (front_points, BLUE, "not beaten in everything"),
        ):
            xs, ys = [p.costs[column] for p in group], [p.accuracy for p in group]
            group_label = f"{label} (n={len(group)})" if column == 0 else None
            axes.plot(xs, ys, "o", color=face_colour, markeredgecolor=BLUE, markersize=5.5, label=group_label)
        paper = next(
            (
                p
                for p in points
                if p.number == (paper_trial.number if (paper_trial := run.paper_trial()) else None)
            ),
            None,
        )
        if paper is not None:
            group_label = "the paper's point" if column == 0 else None
            axes.plot(
                [paper.costs[column]], [paper.accuracy], "D", color=VERMILLION, ms=7, mfc="none",
                label=group_label,
            )  # fmt: skip
        for point in front_points:
            at_point = (point.costs[column], point.accuracy)
            axes.annotate(str(point.number), at_point, (4, 3), textcoords="offset points", color=INK, size=7)
    add_legend(figure, 3)
    return figure

"""Embeddings of student and teacher side by side, as the confirmation measured them."""

from collections import Counter
from collections.abc import Sequence

from matplotlib.figure import Figure

from raykd.report.figures.style import CARD, FULL_WIDTH, GRID, add_legend, new_figure, series_style
from raykd.report.rows.types import EmbeddingPoint, RunData
from raykd.report.stats.student_analysis import group_analyses

MAX_CLASSES = 10  # with a colour of their own: those of the most images


def plot_embeddings(run: RunData) -> Figure | str:
    """Draws the two nets' embeddings of the same test images, two principal components each."""
    analyses = [
        analysis
        for rows in group_analyses(run).values()
        for _, analysis in rows
        if analysis.embedding.get("student")
    ]
    if not analyses:
        return "No embeddings were measured (the confirmation writes them)."
    panels = [(net, points) for net, points in analyses[0].embedding.items() if points]
    counts = Counter(str(point[2]) for point in panels[0][1])
    classes = sorted(sorted(counts), key=lambda name: -counts[name])[:MAX_CLASSES]
    figure = new_figure(FULL_WIDTH, 4.6)
    for i, (net, points) in enumerate(panels):
        axes = figure.add_subplot(1, 2, i + 1, xlabel="component 1", ylabel="component 2")
        axes.set_title(f"{net} ({run.student if net == 'student' else run.teacher}, n={len(points)} images)")
        others = [point for point in points if str(point[2]) not in classes]
        if others:
            axes.plot(*_split_xy(others), ".", color=GRID, ms=4, label="other classes")
        for index, name in enumerate(sorted(classes)):
            of_class, style = [point for point in points if str(point[2]) == name], series_style(index)
            axes.plot(
                *_split_xy(of_class), style.marker, color=style.colour, mec=CARD, mew=0.4, ms=5, label=name
            )
        axes.grid(visible=False)
    add_legend(figure, 6)
    return figure


def _split_xy(points: Sequence[EmbeddingPoint]) -> tuple[list[float], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]

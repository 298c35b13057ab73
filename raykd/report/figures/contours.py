"""Contours: the accuracy over pairs of the leading fields, as a forest of random splits smooths it."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from sklearn.ensemble import ExtraTreesRegressor

from raykd.report.figures.slices import log_ticks
from raykd.report.figures.style import GRID, HALF, WIDE, breakable, figure, legend
from raykd.report.rows.types import RunData, TrialRow
from raykd.report.stats.importances import FEWEST, Matrix, judged, matrix, unit
from raykd.spec import Dimension, Range

PANELS, CELLS = 3, 70
WHITE, BLACK, RED = "#fffffe", "#000001", "#d55e01"  # on the surface: the same in light and dark
Pair = tuple[str, str]


def contours(run: RunData, paths: Sequence[str]) -> Figure | str:
    """One panel for each pair of the leading numeric fields that enough trials drew together."""
    numeric = [path for path in paths if isinstance(run.space[path], Range)]
    trials, answers, epoch = judged(run)
    pairs = _pairs(run, numeric, trials)
    if not pairs:
        return f"A contour needs two numeric fields that {FEWEST} trials drew together and that vary."
    surfaces = [_surface(matrix(run, pair, trials), np.array(answers)) for pair in pairs]
    levels = MaxNLocator(10).tick_values(min(s.min() for s in surfaces), max(s.max() for s in surfaces))
    drawn = figure(WIDE if len(pairs) > 1 else HALF, 4.3)
    grid = np.linspace(0, 1, CELLS)
    for i, (pair, surface) in enumerate(zip(pairs, surfaces, strict=True)):
        axes = drawn.add_subplot(1, len(pairs), i + 1)
        filled = axes.contourf(grid, grid, surface, levels=levels, cmap="cividis")
        _trials(axes, run, pair, trials)
        _scales(axes, run, pair)
    bar = drawn.colorbar(filled, ax=drawn.axes, label=f"predicted held-out accuracy\nat epoch {epoch} (%)")
    bar.outline.set_edgecolor(GRID)
    legend(drawn, 3)
    return drawn


def _pairs(run: RunData, numeric: Sequence[str], trials: Sequence[TrialRow]) -> list[Pair]:
    """The first pairs, by the rank of the lesser field, that FEWEST trials drew together."""
    table = ~np.isnan(matrix(run, numeric, trials))
    ranked = sorted(combinations(range(len(numeric)), 2), key=lambda pair: (pair[1], pair[0]))
    good = [(a, b) for a, b in ranked if (table[:, a] & table[:, b]).sum() >= FEWEST]
    return [(numeric[a], numeric[b]) for a, b in good[:PANELS]]


def _surface(table: Matrix, target: Matrix) -> Matrix:
    both = ~np.isnan(table).any(axis=1)
    forest = ExtraTreesRegressor(200, min_samples_leaf=4, random_state=0).fit(table[both], target[both])
    mesh = np.stack(np.meshgrid(*[np.linspace(0, 1, CELLS)] * 2), axis=-1)
    return np.asarray(forest.predict(mesh.reshape(-1, 2)).reshape(CELLS, CELLS), dtype=np.float64)


def _trials(axes: Axes, run: RunData, pair: Pair, trials: Sequence[TrialRow]) -> None:
    table = matrix(run, pair, trials)
    table = table[~np.isnan(table).any(axis=1)]
    axes.plot(*table.T, "o", color=WHITE, mec=BLACK, mew=0.6, ms=3.8, label="trial")
    best = next(iter(run.finished()), None)
    marked = ((run.at_paper(), "*", BLACK, 15, "the paper's point"), (best, "D", RED, 8, "best"))
    for trial, mark, colour, size, label in marked:
        spot = matrix(run, pair, [trial])[0] if trial is not None else np.array([np.nan])
        if not np.isnan(spot).any():
            axes.plot(*spot, mark, color=colour, mec=WHITE, ms=size, label=label)


def _scales(axes: Axes, run: RunData, pair: Pair) -> None:
    for axis, path in zip((axes.xaxis, axes.yaxis), pair, strict=True):
        ticks = _ticks(run.space[path])
        axis.set_ticks([unit(run.space[path], v) for v in ticks], [f"{v:.3g}" for v in ticks])
        axis.set_label_text(breakable(run.title(path), 30))
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.grid(visible=False)


def _ticks(dimension: Dimension) -> list[float]:
    assert isinstance(dimension, Range), f"a contour needs ranges, but got {dimension}"
    if not dimension.log:
        ticks = MaxNLocator(5, integer=dimension.integer).tick_values(dimension.low, dimension.high)
    else:
        subs = log_ticks(dimension)
        ticks = LogLocator(subs=subs, numticks=8).tick_values(dimension.low, dimension.high)
    return [float(v) for v in ticks if dimension.low * (1 - 1e-9) <= v <= dimension.high * (1 + 1e-9)]

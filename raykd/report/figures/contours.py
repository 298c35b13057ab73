"""Contours: the accuracy over pairs of the leading parameters, as a forest of random splits smooths it."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from sklearn.ensemble import ExtraTreesRegressor

from raykd.report.figures.slices import log_ticks
from raykd.report.figures.style import FULL_WIDTH, GRID, HALF_WIDTH, add_legend, new_figure, wrap_path
from raykd.report.rows.types import RunData, TrialRow
from raykd.report.stats.importances import MIN_TRIALS, Matrix, build_matrix, scale_to_unit, select_trials
from raykd.spec import Dimension, Range

MAX_PANELS, GRID_CELLS = 3, 70
WHITE, BLACK, RED = "#fffffe", "#000001", "#d55e01"  # on the surface: the same in light and dark
PathPair = tuple[str, str]


def plot_contours(run: RunData, paths: Sequence[str]) -> Figure | str:
    """Draws a panel for each pair of the leading numeric parameters that enough trials drew together."""
    numeric_paths = [path for path in paths if isinstance(run.space[path], Range)]
    trials, accuracies, epoch = select_trials(run)
    pairs = _choose_pairs(run, numeric_paths, trials)
    if not pairs:
        return f"A contour needs two numeric parameters that {MIN_TRIALS} trials drew together and that vary."
    surfaces = [_fit_surface(build_matrix(run, pair, trials), np.array(accuracies)) for pair in pairs]
    levels = MaxNLocator(10).tick_values(min(s.min() for s in surfaces), max(s.max() for s in surfaces))
    figure = new_figure(FULL_WIDTH if len(pairs) > 1 else HALF_WIDTH, 4.3)
    grid = np.linspace(0, 1, GRID_CELLS)
    for i, (pair, surface) in enumerate(zip(pairs, surfaces, strict=True)):
        axes = figure.add_subplot(1, len(pairs), i + 1)
        filled_contours = axes.contourf(grid, grid, surface, levels=levels, cmap="cividis")
        _draw_trials(axes, run, pair, trials)
        _format_axes(axes, run, pair)
    colour_bar = figure.colorbar(
        filled_contours, ax=figure.axes, label=f"predicted held-out {run.metric_title}\nat epoch {epoch} (%)"
    )
    colour_bar.outline.set_edgecolor(GRID)
    add_legend(figure, 3)
    return figure


def _choose_pairs(run: RunData, numeric_paths: Sequence[str], trials: Sequence[TrialRow]) -> list[PathPair]:
    """The first pairs, by the rank of the lesser parameter, that MIN_TRIALS trials drew together."""
    is_set = ~np.isnan(build_matrix(run, numeric_paths, trials))
    ranked = sorted(combinations(range(len(numeric_paths)), 2), key=lambda pair: (pair[1], pair[0]))
    shared = [(a, b) for a, b in ranked if (is_set[:, a] & is_set[:, b]).sum() >= MIN_TRIALS]
    return [(numeric_paths[a], numeric_paths[b]) for a, b in shared[:MAX_PANELS]]


def _fit_surface(features: Matrix, target: Matrix) -> Matrix:
    is_complete = ~np.isnan(features).any(axis=1)
    forest = ExtraTreesRegressor(200, min_samples_leaf=4, random_state=0).fit(
        features[is_complete], target[is_complete]
    )
    mesh = np.stack(np.meshgrid(*[np.linspace(0, 1, GRID_CELLS)] * 2), axis=-1)
    return np.asarray(forest.predict(mesh.reshape(-1, 2)).reshape(GRID_CELLS, GRID_CELLS), dtype=np.float64)


def _draw_trials(axes: Axes, run: RunData, pair: PathPair, trials: Sequence[TrialRow]) -> None:
    features = build_matrix(run, pair, trials)
    features = features[~np.isnan(features).any(axis=1)]
    axes.plot(*features.T, "o", color=WHITE, mec=BLACK, mew=0.6, ms=3.8, label="trial")
    best = next(iter(run.complete_trials()), None)
    marked_trials = ((run.paper_trial(), "*", BLACK, 15, "the paper's point"), (best, "D", RED, 8, "best"))
    for trial, marker, colour, size, label in marked_trials:
        point = build_matrix(run, pair, [trial])[0] if trial is not None else np.array([np.nan])
        if not np.isnan(point).any():
            axes.plot(*point, marker, color=colour, mec=WHITE, ms=size, label=label)


def _format_axes(axes: Axes, run: RunData, pair: PathPair) -> None:
    for axis, path in zip((axes.xaxis, axes.yaxis), pair, strict=True):
        ticks = _choose_ticks(run.space[path])
        axis.set_ticks([scale_to_unit(run.space[path], v) for v in ticks], [f"{v:.3g}" for v in ticks])
        axis.set_label_text(wrap_path(run.axis_title(path), 30))
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.grid(visible=False)


def _choose_ticks(dimension: Dimension) -> list[float]:
    assert isinstance(dimension, Range), f"a contour needs ranges, but got {dimension}"
    if not dimension.log:
        ticks = MaxNLocator(5, integer=dimension.integer).tick_values(dimension.low, dimension.high)
    else:
        subs = log_ticks(dimension)
        ticks = LogLocator(subs=subs, numticks=8).tick_values(dimension.low, dimension.high)
    return [float(v) for v in ticks if dimension.low * (1 - 1e-9) <= v <= dimension.high * (1 + 1e-9)]

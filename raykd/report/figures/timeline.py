"""Figures of a run's course: devices over time, loss terms over epochs, retrainings on the test set."""

from math import ceil, isfinite

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from raykd.report.figures.history import MAX_POINTS, STATE_COLOURS, get_leaders, leader_styles
from raykd.report.figures.style import BLUE, CARD, FULL_WIDTH, HALF_WIDTH, INK, MUTED, add_legend, new_figure
from raykd.report.rows.types import RunData, state_label
from raykd.report.stats import tests


def plot_timeline(run: RunData) -> Figure | str:
    """Draws which device ran which trial when."""
    started = [(t.started, t) for t in run.trials if t.started is not None]
    started.sort(key=lambda pair: (pair[0], pair[1].number))
    if not started:
        return "No trial has started yet, so there is no timeline."
    first_start = started[0][0]
    last_end = max([start for start, _ in started] + [t.ended for _, t in started if t.ended is not None])
    lanes: list[
        tuple[str, float]
    ] = []  # device and when its last bar ends; a shared device has several lanes
    bars = []
    for start, trial in started:
        end = trial.ended if trial.ended is not None else last_end
        free_lanes = [
            i for i, (device, until) in enumerate(lanes) if device == trial.device and until <= start + 1
        ]
        lane = free_lanes[0] if free_lanes else len(lanes)
        lanes[lane : lane + 1] = [(trial.device, end)]
        bars.append((lane, (start - first_start) / 3600, (max(end, start) - start) / 3600, trial))
    lane_order = sorted(range(len(lanes)), key=lambda i: (lanes[i][0], i))
    row_of_lane = {lane: i for i, lane in enumerate(lane_order)}
    figure = new_figure(FULL_WIDTH, min(9.0, 1.5 + 0.28 * len(lanes)))
    axes = figure.add_subplot(xlabel="time since the first trial (hours)", ylabel="device")
    for state, colour in STATE_COLOURS.items():
        bars_of_state = [
            (row_of_lane[lane], left, width) for lane, left, width, trial in bars if trial.state == state
        ]
        if bars_of_state:
            ys, lefts, widths = zip(*bars_of_state, strict=True)
            axes.barh(
                ys, widths, 0.74, lefts, color=colour, edgecolor=CARD, linewidth=0.5, label=state_label(state)
            )
    names = [lanes[lane][0] or "unknown" for lane in lane_order]
    label_rows = [i for i, name in enumerate(names) if i == 0 or names[i - 1] != name]
    label_rows = label_rows[:: max(1, ceil(len(label_rows) / 30))]
    axes.set_yticks(label_rows, [names[i] if len(names[i]) < 30 else f"{names[i][:29]}…" for i in label_rows])
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    add_legend(figure, 4)
    return figure


def plot_loss_terms(run: RunData) -> Figure | str:
    """Draws each raw loss term of the leaders over the epochs."""
    rows = run.epochs_by_trial()
    names = sorted({name for t in get_leaders(run) for row in rows.get(t.number, []) for name in row.terms})
    if not names:
        return "No finished trial has recorded loss terms."
    num_columns = min(3, len(names))
    num_rows = ceil(len(names) / num_columns)
    figure = new_figure(FULL_WIDTH if num_columns > 1 else HALF_WIDTH, 2.7 * num_rows + 0.5)
    for i, name in enumerate(names):
        axes = figure.add_subplot(num_rows, num_columns, i + 1, xlabel="epoch", ylabel=f"{name} (raw)")
        for trial, (colour, linestyle, label) in leader_styles(run):
            points = [(row.epoch, row.terms[name]) for row in rows.get(trial.number, []) if name in row.terms]
            points = [point for point in points if isfinite(point[1])]
            if points:
                step = max(1, ceil(len(points) / MAX_POINTS))
                axes.plot(
                    *zip(*points[::step], strict=True), color=colour, linestyle=linestyle, lw=1.1, label=label
                )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    add_legend(figure, 4)
    return figure


def plot_confirmations(run: RunData) -> Figure | str:
    """Draws the test accuracy of each retraining: seeds as points, means with 95 % intervals."""
    groups = tests.accuracies_by_seed(run)
    if not groups:
        return "Nothing has been confirmed on the test set yet (`raykd confirm`)."
    figure = new_figure(HALF_WIDTH, 1.5 + 0.42 * len(groups))
    axes = figure.add_subplot(xlabel=run.test_label)
    for y, seeds in enumerate(groups.values()):
        values = list(seeds.values())
        mean = tests.mean_interval(values)
        axes.plot(values, [y + 0.17] * len(values), "o", color=MUTED, mec=CARD, ms=5, alpha=0.8)
        axes.errorbar(
            mean.mean, y - 0.1, xerr=mean.half_width, fmt="D", color=BLUE, ms=5.5, capsize=3.5, lw=1.6
        )
    handles = [
        Line2D([], [], color=BLUE, marker="D", ms=5.5, label="mean, 95 % interval"),
        Line2D([], [], color=MUTED, marker="o", ms=5, ls="", label="one seed"),
    ]
    published_lines = [
        axes.axvline(row.value, color=INK, ls="--", lw=1.1, label="published") for row in run.published
    ]
    left, right = axes.get_xlim()
    axes.set_xlim(max(left, -2.0), min(right, 102.0))  # an interval of few seeds may leave what there is
    axes.set_yticks(range(len(groups)), [f"{name} (n={len(seeds)})" for name, seeds in groups.items()])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    figure.legend(handles=handles + published_lines[:1], loc="outside lower center", ncols=3)
    return figure

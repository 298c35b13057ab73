"""Figures of a run's course: devices over time, loss terms over epochs, retrainings on the test set."""

from math import ceil, isfinite

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from raykd.report.figures.history import LANES, MOST_POINTS, leaders, styles
from raykd.report.figures.style import BLUE, CARD, HALF, INK, MUTED, WIDE, figure, legend
from raykd.report.rows.types import RunData, said
from raykd.report.stats import tests


def timeline(run: RunData) -> Figure | str:
    """Which device ran which trial when."""
    began = [(t.started, t) for t in run.trials if t.started is not None]
    began.sort(key=lambda pair: (pair[0], pair[1].number))
    if not began:
        return "No trial has started yet, so there is no timeline."
    zero = began[0][0]
    last = max([start for start, _ in began] + [t.ended for _, t in began if t.ended is not None])
    lanes: list[
        tuple[str, float]
    ] = []  # device and when its last bar ends; a shared device has several lanes
    bars = []
    for start, trial in began:
        end = trial.ended if trial.ended is not None else last
        free = [i for i, (device, until) in enumerate(lanes) if device == trial.device and until <= start + 1]
        lane = free[0] if free else len(lanes)
        lanes[lane : lane + 1] = [(trial.device, end)]
        bars.append((lane, (start - zero) / 3600, (max(end, start) - start) / 3600, trial))
    order = sorted(range(len(lanes)), key=lambda i: (lanes[i][0], i))
    place = {lane: i for i, lane in enumerate(order)}
    drawn = figure(WIDE, min(9.0, 1.5 + 0.28 * len(lanes)))
    axes = drawn.add_subplot(xlabel="time since the first trial (hours)", ylabel="device")
    for state, colour in LANES.items():
        some = [(place[lane], left, width) for lane, left, width, trial in bars if trial.state == state]
        if some:
            ys, lefts, widths = zip(*some, strict=True)
            axes.barh(
                ys,
                widths,
                0.74,
                lefts,
                color=colour,
                edgecolor=CARD,
                linewidth=0.5,
                label=said(state),
            )
    names = [lanes[lane][0] or "unknown" for lane in order]
    first = [i for i, name in enumerate(names) if i == 0 or names[i - 1] != name]
    first = first[:: max(1, ceil(len(first) / 30))]
    axes.set_yticks(first, [names[i] if len(names[i]) < 30 else f"{names[i][:29]}…" for i in first])
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    legend(drawn, 4)
    return drawn


def terms(run: RunData) -> Figure | str:
    """Each raw loss term of the leaders over the epochs."""
    rows = run.curves()
    names = sorted({name for t in leaders(run) for row in rows.get(t.number, []) for name in row.terms})
    if not names:
        return "No finished trial has recorded loss terms."
    columns = min(3, len(names))
    lines = ceil(len(names) / columns)
    drawn = figure(WIDE if columns > 1 else HALF, 2.7 * lines + 0.5)
    for i, name in enumerate(names):
        axes = drawn.add_subplot(lines, columns, i + 1, xlabel="epoch", ylabel=f"{name} (raw)")
        for trial, (colour, dashes, label) in styles(run):
            of = [(row.epoch, row.terms[name]) for row in rows.get(trial.number, []) if name in row.terms]
            of = [point for point in of if isfinite(point[1])]
            if of:
                step = max(1, ceil(len(of) / MOST_POINTS))
                axes.plot(*zip(*of[::step], strict=True), color=colour, linestyle=dashes, lw=1.1, label=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    legend(drawn, 4)
    return drawn


def confirmed(run: RunData) -> Figure | str:
    """Test accuracy of each retraining: seeds as points, means with 95 % intervals."""
    groups = tests.by_seed(run)
    if not groups:
        return "Nothing has been confirmed on the test set yet (`raykd confirm`)."
    drawn = figure(HALF, 1.5 + 0.42 * len(groups))
    axes = drawn.add_subplot(xlabel="test accuracy (%)")
    for y, of in enumerate(groups.values()):
        values = list(of.values())
        mean = tests.mean_interval(values)
        axes.plot(values, [y + 0.17] * len(values), "o", color=MUTED, mec=CARD, ms=5, alpha=0.8)
        axes.errorbar(mean.mean, y - 0.1, xerr=mean.half, fmt="D", color=BLUE, ms=5.5, capsize=3.5, lw=1.6)
    handles = [
        Line2D([], [], color=BLUE, marker="D", ms=5.5, label="mean, 95 % interval"),
        Line2D([], [], color=MUTED, marker="o", ms=5, ls="", label="one seed"),
    ]
    lines = [axes.axvline(row.value, color=INK, ls="--", lw=1.1, label="published") for row in run.published]
    left, right = axes.get_xlim()
    axes.set_xlim(max(left, -2.0), min(right, 102.0))  # an interval of few seeds may leave what there is
    axes.set_yticks(range(len(groups)), [f"{name} (n={len(of)})" for name, of in groups.items()])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    drawn.legend(handles=handles + lines[:1], loc="outside lower center", ncols=3)
    return drawn

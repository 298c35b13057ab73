"""The words and tables of the page about the search itself."""

from raykd.report.page.html import (
    EMPTY,
    ColumnHead,
    Table,
    format_hours,
    format_points,
    format_value,
    number_heads,
)
from raykd.report.rows.types import STATES, RunData, TrialRow, get_accuracy, get_seconds, state_label
from raykd.report.stats import tests
from raykd.report.stats.importances import Importances
from raykd.spec import Choice, Dimension
from raykd.study.rungs import ENOUGH_CORRELATION, recommend_first_rung

STATE_NOTES = {
    "running": "The study is still running: every number below is of the trials so far.",
    "interrupted": "The study was interrupted (`raykd resume` goes on): numbers are of the trials so far.",
}


def list_notes(run: RunData) -> list[str]:
    """Returns what a reader must know before the numbers."""
    notes = [STATE_NOTES[run.state]] if run.state in STATE_NOTES else []
    if not run.complete_trials():
        notes.append("No trial has finished yet that may be the best, so there is no best recipe to show.")
    return [*notes, *run.problems]


def key_numbers(run: RunData) -> list[tuple[str, str | int, str]]:
    """Returns (name, value, note) of the few numbers that matter."""
    best, paper = next(iter(run.complete_trials()), None), run.paper_trial()
    gain = get_accuracy(best) - get_accuracy(paper) if best is not None and paper is not None else None
    counts = {state: sum(t.state == state for t in run.trials) for state in STATES}
    states = ", ".join(f"{n} {state_label(state)}" for state, n in counts.items() if n)
    tiles: list[tuple[str, str | int, str]] = [
        ("Best", _format_percent(best), _describe_source(best)),
        ("The paper's point", _format_percent(paper), _describe_source(paper)),
        ("Gain", format_points(gain, sign=True), "points, held-out" if gain is not None else ""),
        ("Trials", len(run.trials), states),
        ("Search", format_hours(run.search_hours()), f"{run.device_kind}-hours"),
    ]
    for name, seeds in list(tests.accuracies_by_seed(run).items())[:1]:
        mean = tests.mean_interval(list(seeds.values()))
        half_width = f"± {mean.half_width:.2f}, " if mean.half_width is not None else ""
        note = f"test, {half_width}n={mean.n} seeds"
        tiles.append((f"Confirmed: {name}", f"{format_points(mean.mean)} %", note))
    return tiles


def _format_percent(trial: TrialRow | None) -> str:
    return f"{format_points(get_accuracy(trial))} %" if trial is not None else EMPTY


def _describe_source(trial: TrialRow | None) -> str:
    return f"held-out, trial {trial.number}, one seed" if trial is not None else "held-out"


def search_space_table(run: RunData) -> Table:
    """Returns each searched parameter: its range, the paper's value, the best trial's."""
    best = next(iter(run.complete_trials()), None)
    return Table(
        "The search space",
        [
            ColumnHead("path", is_code=True),
            ColumnHead("drawn from"),
            *(ColumnHead(name, "number", is_code=True) for name in ("paper", "best")),
            ColumnHead("only when"),
        ],
        [
            (
                run.axis_title(path),
                _describe_dimension(dimension),
                run.paper_point.get(path),
                best.params.get(path) if best is not None else None,
                ", ".join(f"{parent} = {value}" for parent, value in dimension.conditions),
            )
            for path, dimension in run.space.items()
        ],
        missing="The study searches no parameter.",
    )


def _describe_dimension(dimension: Dimension) -> str:
    if isinstance(dimension, Choice):
        return ", ".join(str(format_value(value)) for value in dimension.values)
    return str(dimension)


def rung_table(run: RunData) -> Table:
    """Returns rank correlations at the rungs; at all epochs where there are no rungs."""
    title = "Rungs: rank correlation with the end"
    return Table(
        title,
        number_heads("epoch", "averaged (95 %)", "raw", "averaged, better half", "n", decimals=2),
        [
            (
                row.epoch,
                f"{row.ema.rho:.2f} ({row.ema.low:.2f} to {row.ema.high:.2f})",
                row.raw.rho if row.raw is not None else None,
                row.ema_better_half.rho if row.ema_better_half is not None else None,
                row.ema.n,
            )
            for row in tests.rank_correlations(run)
            if not run.rungs or row.epoch in run.rungs
        ],
        title,
    )


def describe_first_rung(run: RunData) -> str:
    """Returns in a sentence how early a first rung may be by the run's own curves; else ""."""
    correlations = {row.epoch: row.ema.low for row in tests.rank_correlations(run)}
    epoch = recommend_first_rung(correlations)
    if epoch is None:
        return ""
    fraction = epoch / (max(correlations) + 1)
    return (
        f"From epoch {epoch} on the interval stays above {ENOUGH_CORRELATION:g}: a first rung there "
        f"(min_fraction {fraction:.2g}) is the earliest to recommend for a study like this one."
    )


def importance_table(importances: Importances | str) -> Table:
    """Returns the importances in numbers."""
    return Table(
        "Importances",
        [ColumnHead("path", is_code=True), *number_heads("points", "95 %", "trials")],
        [
            (
                row.path,
                format_points(row.mean, sign=True),
                f"{format_points(row.low)} to {format_points(row.high)}",
                row.n,
            )
            for row in ([] if isinstance(importances, str) else importances.rows)
        ],
    )


def failure_table(run: RunData) -> Table:
    """Returns the failed trials with their reasons."""
    failed = [trial for trial in run.trials if trial.state == "FAIL"]
    return Table(
        "Failures",
        [*number_heads("trial", "epochs"), ColumnHead("device"), ColumnHead("reason", "long")],
        [(t.number, t.epochs, t.device, t.reason or "no reason was recorded") for t in failed],
        title=f"Failures ({len(failed)})",
        lead="" if failed else "No trial failed.",
    )


def trial_table(run: RunData) -> Table:
    """Returns every trial with its params; sortable."""
    heads = [
        ColumnHead("trial", "number"),
        *map(ColumnHead, ("state", "role")),
        ColumnHead(run.held_out_label, "number", 2),
        ColumnHead("epochs", "number"),
        ColumnHead("minutes", "number", 1),
        *number_heads(*map(run.axis_title, run.space)),
        ColumnHead("device"),
        ColumnHead("reason", "long"),
    ]
    rows = [
        (
            t.number, t.state, t.role, t.accuracy, t.epochs,
            None if t.started is None else get_seconds(t) / 60,
            *(t.params.get(path) for path in run.space), t.device, t.reason or t.breaks,
        )
        for t in run.trials
    ]  # fmt: skip
    return Table("All trials", heads, rows, missing="The run holds no trial yet.", is_sortable=True)


def fact_table(run: RunData) -> Table:
    """Returns what the run recorded about itself."""
    return Table(
        "Facts",
        [ColumnHead("what"), ColumnHead("value", is_code=True)],
        list(run.facts.items()),
        missing="The run recorded no facts about itself.",
    )

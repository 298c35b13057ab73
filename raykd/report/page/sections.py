"""The words and tables of the page."""

import pyarrow as pa

from raykd.report.page import html
from raykd.report.page.html import EMPTY, Head, code, hours, paragraph, points, text, tile
from raykd.report.rows.types import STATES, RunData, TrialRow, accuracy, said, spent
from raykd.report.stats import tests
from raykd.report.stats.importances import Importances
from raykd.spec import Choice, Dimension

UNDER_WAY = {
    "running": "The study is still running: every number below is of the trials so far.",
    "interrupted": "The study was interrupted (`raykd resume` goes on): numbers are of the trials so far.",
}


def heading(run: RunData) -> str:
    """Name, state, and what was distilled how."""
    badges = f'<span class="badge {run.state}">{text(run.state)}</span>'
    badges += f'<span class="badge {text(run.status)}">{text(run.status)}</span>'
    lead = (
        f"<strong>{text(run.method)}{' + KD' if run.plus_kd else ''}</strong>: {text(run.teacher)} → "
        f"{text(run.student)} on {text(run.dataset)}, {text(run.split)}."
    )
    parts = [f"<h1>{text(run.name)} {badges}</h1>", paragraph(lead), paragraph(text(run.paper), "lead")]
    if run.status == "reconstruction":
        parts.append(
            paragraph("This method is a reconstruction: no official code was public to read.", "lead")
        )
    notes = [text(UNDER_WAY[run.state])] if run.state in UNDER_WAY else []
    if not run.finished():
        notes.append("No trial has finished yet, so there is no best recipe to show.")
    notes += [text(problem) for problem in run.problems]
    if notes:
        items = "".join(f"<li>{note}</li>" for note in notes)
        parts.append(f'<div class="problems" role="note"><ul>{items}</ul></div>')
    return "\n".join(parts)


def headline(run: RunData) -> str:
    """The few numbers that matter."""
    best, paper = next(iter(run.finished()), None), run.at_paper()
    gain = accuracy(best) - accuracy(paper) if best is not None and paper is not None else None
    counts = {state: sum(t.state == state for t in run.trials) for state in STATES}
    states = ", ".join(f"{n} {said(state)}" for state, n in counts.items() if n)
    tiles = [
        tile("Best", _percent(best), _whose(best)),
        tile("The paper's point", _percent(paper), _whose(paper)),
        tile("Gain", points(gain, sign=True), "points, held-out" if gain is not None else ""),
        tile("Trials", str(len(run.trials)), states),
        tile("Search", hours(run.hours()), f"{text(run.device)}-hours"),
    ]
    groups = tests.by_seed(run)
    if groups:
        name, seeds = next(iter(groups.items()))
        mean = tests.mean_interval(list(seeds.values()))
        value = f"{points(mean.mean)} %"
        half = f"± {mean.half:.2f}, " if mean.half is not None else ""
        tiles.append(tile(f"Confirmed: {text(name)}", value, f"test, {half}n={mean.n} seeds"))
    note = ""
    if best is not None:
        note = paragraph(
            f"Held-out accuracies choose among {len(run.finished())} finished trials, one seed each, so the "
            "best one flatters itself; the test set, opened once by <code>raykd confirm</code>, does not.",
            "caption",
        )
    return f'<div class="tiles">{"".join(tiles)}</div>\n{note}'


def _percent(trial: TrialRow | None) -> str:
    return f"{points(accuracy(trial))} %" if trial is not None else EMPTY


def _whose(trial: TrialRow | None) -> str:
    return f"held-out, trial {trial.number}, one seed" if trial is not None else "held-out"


def searched(run: RunData) -> str:
    if not run.space:
        return paragraph("The study opens no field.", "missing")
    best = next(iter(run.finished()), None)
    rows = []
    for path, dimension in run.space.items():
        when = ", ".join(f"{parent} = {value}" for parent, value in dimension.when)
        found = best.drawn.get(path) if best is not None else None
        rows.append(
            [
                code(run.title(path)),
                _from(dimension),
                code(run.paper_point.get(path)),
                code(found),
                text(when),
            ]
        )
    heads = [
        Head("path"),
        Head("drawn from"),
        Head("paper", "number"),
        Head("best", "number"),
        Head("only when"),
    ]
    return html.table("The search space", heads, rows)


def _from(dimension: Dimension) -> str:
    return ", ".join(map(text, dimension.values)) if isinstance(dimension, Choice) else text(str(dimension))


def rung_table(run: RunData) -> str:
    """Rank correlations at the rungs; at all epochs where there are no rungs."""
    rows = [row for row in tests.rank_correlations(run) if not run.rungs or row.epoch in run.rungs]
    if not rows:
        return ""
    cells = []
    for row in rows:
        a = row.averaged
        raw, half = (points(c.rho if c is not None else None) for c in (row.raw, row.best_half))
        cells.append([str(row.epoch), f"{a.rho:.2f} ({a.low:.2f} to {a.high:.2f})", raw, half, str(a.n)])
    heads = ["epoch", "averaged (95 %)", "raw", "averaged, better half", "n"]
    what = "Rungs: rank correlation with the end"
    return f"<h3>{what}</h3>" + html.table(what, [Head(head, "number") for head in heads], cells)


def importance_table(found: Importances | str) -> str:
    """The importances in numbers."""
    if isinstance(found, str):
        return ""
    rows = [
        [code(r.path), points(r.mean, sign=True), f"{points(r.low)} to {points(r.high)}", str(r.n)]
        for r in found.rows
    ]
    heads = [Head("path"), *(Head(name, "number") for name in ("points", "95 %", "trials"))]
    return html.table("Importances", heads, rows)


def failures(run: RunData) -> str:
    failed = [trial for trial in run.trials if trial.state == "FAIL"]
    if not failed:
        return paragraph("No trial failed.")
    rows = [
        [str(t.number), str(t.epochs), text(t.device), f"{text(t.reason or 'no reason was recorded')}"]
        for t in failed
    ]
    heads = [Head("trial", "number"), Head("epochs", "number"), Head("device"), Head("reason", "long")]
    return f"<h3>Failures ({len(failed)})</h3>" + html.table("Failures", heads, rows)


def trials(run: RunData) -> str:
    """Every trial with what it drew."""
    if not run.trials:
        return paragraph("The run holds no trial yet.", "missing")
    heads = [Head("trial", "number"), Head("state"), Head("role"), Head("held-out accuracy (%)", "number", 2)]
    heads += [Head("epochs", "number"), Head("minutes", "number", 1)]
    heads += [Head(run.title(path), "number") for path in run.space]
    heads += [Head("device"), Head("reason", "long")]
    rows = [
        [t.number, t.state, t.role, t.accuracy, t.epochs, _minutes(t)]
        + [t.drawn.get(path) for path in run.space]
        + [t.device, t.reason]
        for t in run.trials
    ]
    return html.sortable("All trials", heads, rows)


def _minutes(trial: TrialRow) -> float | None:
    return None if trial.started is None else spent(trial) / 60


def facts(run: RunData) -> str:
    if not run.facts:
        return paragraph("The run recorded no facts about itself.", "missing")
    return html.table(
        "Facts", [Head("what"), Head("value")], [[text(k), code(v)] for k, v in run.facts.items()]
    )


def files(tables: dict[str, pa.Table]) -> str:
    """Which tables lie beside the page, with their columns and units."""
    parts = ["<h3>Tables beside this page</h3>"]
    heads = [Head("column"), Head("type"), Head("unit"), Head("what it says")]
    for name, table in tables.items():
        links = f'<a href="tables/{name}.parquet">Parquet</a> · <a href="tables/{name}.csv">CSV</a>'
        rows = [
            [
                code(f.name),
                text(str(f.type)),
                text(f.metadata[b"unit"].decode()),
                text(f.metadata[b"description"].decode()),
            ]
            for f in table.schema
        ]
        summary = (
            f"<summary><strong>{name}</strong>: {table.num_rows} rows, {len(rows)} columns. {links}</summary>"
        )
        parts.append(f"<details>{summary}{html.table(f'Columns of {name}', heads, rows)}</details>")
    return "\n".join(parts)

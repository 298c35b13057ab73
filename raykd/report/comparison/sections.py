"""The words and tables of the comparison."""

from collections.abc import Sequence

from raykd.report.comparison.lines import Against, Line, Table
from raykd.report.comparison.unequal import unequal
from raykd.report.page import html
from raykd.report.page.html import EMPTY, Head, code, hours, interval, paragraph, points, text
from raykd.report.rows.types import RunData

NOTE = (
    "± is half of a 95 % t interval over n seeds on the test set, last epoch. Published numbers are those "
    "that papers and official codes print, with their own budgets; nothing of ours. Device-hours of a search "
    "are of all its trials; of a training, of one retraining. Differences are in points, paired by seed, and "
    "compare like with like under the same budget: searched with searched KD where there is one, else KD "
    "at its paper's point. p: paired t test, "
)


def heading(runs: Sequence[RunData]) -> str:
    """What is compared, and in what the runs differ that they should share."""
    names = ", ".join(text(run.name) for run in runs)
    parts = [f"<h1>Comparison of {len(runs)} runs</h1>", paragraph(names, "lead")]
    notes = []
    for run in runs:
        if run.state != "finished":
            notes.append(f"{text(run.name)} is {text(run.state)}: its numbers are of the trials so far")
        if not run.confirm:
            notes.append(f"{text(run.name)} is not confirmed: it has no test accuracy")
        notes += [f"{text(run.name)}: {text(problem)}" for problem in run.problems]
    if notes:
        parts.append(_noted("What to know of these runs", notes))
    differs = [
        f"{code(path)}: "
        + "; ".join(f"{text(value)} ({text(', '.join(of))})" for value, of in values.items())
        for path, values in unequal(runs)
    ]
    if differs:
        parts.append(_noted(f"Not equal in these runs ({len(differs)}): read differences with care", differs))
    else:
        parts.append(paragraph("Budgets, splits, seeds, data and commits are the same in all runs."))
    return "\n".join(parts)


def _noted(title: str, items: Sequence[str]) -> str:
    listed = "".join(f"<li>{item}</li>" for item in items)
    return f'<div class="problems" role="note"><strong>{title}</strong><ul>{listed}</ul></div>'


def table(of: Table) -> str:
    """One pair's table in the form of the papers', with n, cost, source and differences."""
    names = ("test accuracy (%)", "n", "search (h)", "training (h)")
    heads = [Head("method", "name"), *(Head(name, "number") for name in names)]
    heads += [
        Head("published (%)", "wide"),
        Head("vs. KD", "wide"),
        Head("vs. paper's point", "wide"),
    ]
    rows = [
        [
            _name(line),
            _mean(line),
            str(len(line.seeds) or EMPTY),
            EMPTY if line.search is None else hours(line.search),
            hours(line.training) if line.training else EMPTY,
            "<br>".join(f"{points(row.value)} <small>({text(row.source)})</small>" for row in line.published)
            or EMPTY,
            _difference(line.from_kd),
            _difference(line.from_paper),
        ]
        for line in of.lines
    ]
    corrected = f"corrected by Holm over the {of.tests} tests of this table." if of.tests > 1 else "one test."
    return html.table(of.title, heads, rows) + paragraph(text(NOTE + corrected), "caption")


def _name(line: Line) -> str:
    return text(line.name) + (f"<br><small>{text(line.run)}</small>" if line.named else "")


def _mean(line: Line) -> str:
    mean = line.mean()
    if mean is not None:
        return interval(mean.mean, mean.half)
    held_out = f"<br><small>held-out {points(line.held_out)}, one seed</small>" if line.held_out else ""
    return EMPTY + held_out


def _difference(against: Against | None) -> str:
    if against is None:
        return EMPTY
    found, p = against.difference, against.p
    chance = "p unknown" if p is None else ("p &lt; 0.001" if p < 0.001 else f"p = {p:.3f}")
    shown = interval(found.mean, found.half, sign=True)
    return f"{shown}<br><small>n={found.n}, {chance}; {text(against.line)}</small>"


def overview(tables: Sequence[Table]) -> str:
    """Method x pair, as the papers print it."""
    names = list(dict.fromkeys(line.name for of in tables for line in of.lines))
    rows = []
    for name in names:
        cells = [text(name)]
        for of in tables:
            lines = [line for line in of.lines if line.name == name and line.seeds]
            cells.append("<br>".join(f"{_mean(line)} (n={len(line.seeds)})" for line in lines) or EMPTY)
        rows.append(cells)
    heads = [Head("method", "name"), *(Head(of.title, "number") for of in tables)]
    return html.table("Methods and pairs: test accuracy (%)", heads, rows)


def runs(of: Sequence[RunData]) -> str:
    """Facts of each run."""
    heads = [
        Head("run"),
        Head("state"),
        Head("trials", "number"),
        Head("commit"),
        Head("hardware"),
        Head("begun"),
    ]
    rows = [
        [
            text(run.name),
            text(run.state),
            str(len(run.trials)),
            *(code(run.facts.get(key)) for key in ("commit", "hardware", "begun")),
        ]
        for run in of
    ]
    return html.table("Runs", heads, rows)

"""Several runs on one page: the papers' table of each pair, with n, cost, differences and what is unequal."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context

from raykd.report.comparison import figures, sections, tables
from raykd.report.comparison.lines import Table
from raykd.report.comparison.lines import tables as compare
from raykd.report.figures.style import RC
from raykd.report.page import html
from raykd.report.page.html import pair, section
from raykd.report.page.plot import Plot, placed
from raykd.report.page.sections import files
from raykd.report.rows.types import RunData
from raykd.report.tables import columns

ACCURACIES = (
    "Points: seeds; marks: means with 95 % intervals, filled where the settings were searched; upright "
    "strokes: what papers and official codes print, with their own budgets. The axis spans the seeds: "
    "what passes it is in the table."
)
EDF = (
    "Over all trials that ended: a pruned one counts with its accuracy when it was stopped, which it might "
    "have passed; a failed one counts below all. Lower and to the right is better."
)
ANYTIME = "Each step is the end of a trial; pruned and failed trials cost, too. Without the teacher."


def write(runs: Sequence[RunData], out: Path) -> Path:
    """Write OUT/index.html, OUT/figures and OUT/tables."""
    compared = compare(runs)
    every = tables.every(runs, compared)
    columns.write(every, out / "tables")
    with rc_context(RC):
        shown = placed([plot for place, of in enumerate(compared, 1) for plot in _plots(place, of)], out)
    parts = [(f"pair{place}", of.title, _pair(place, of, shown)) for place, of in enumerate(compared, 1)]
    if len(compared) > 1:
        parts.insert(0, ("overview", "Methods and pairs", sections.overview(compared)))
    parts.append(("facts", "Runs and files", sections.runs(runs) + files(every)))
    links = "".join(f'<a href="#{key}">{html.text(title)}</a>' for key, title, _ in parts)
    main = "".join(section(key, html.text(title), inner) for key, title, inner in parts)
    body = (
        f"<header>{sections.heading(runs)}</header>\n"
        f'<nav aria-label="Contents">{links}</nav>\n<main>\n{main}</main>\n'
    )
    path = out / "index.html"
    path.write_text(html.page("Comparison · raykd", body), encoding="utf-8")
    return path


def _plots(place: int, of: Table) -> list[Plot]:
    return [
        Plot(f"accuracies-{place}", "Test accuracies", figures.accuracies(of), ACCURACIES),
        Plot(f"edf-{place}", "Distribution of the trials", figures.edf(of), EDF),
        Plot(f"anytime-{place}", "Accuracy against cost", figures.anytime(of), ANYTIME),
    ]


def _pair(place: int, of: Table, shown: dict[str, str]) -> str:
    both = pair(shown[f"edf-{place}"], shown[f"anytime-{place}"])
    return sections.table(of) + shown[f"accuracies-{place}"] + both

"""Several runs on one page: the papers' table of each pair, with n, cost, differences and what is unequal."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context

from raykd.report.comparison import figures, tables
from raykd.report.comparison.recipe_results import PairTable, RecipeResult, build_pair_tables
from raykd.report.comparison.setting_differences import find_setting_differences
from raykd.report.figures.style import RC_PARAMS
from raykd.report.page import html
from raykd.report.page.html import ColumnHead, Table, number_heads
from raykd.report.page.plot import Plot, save_plots
from raykd.report.rows.types import RunData
from raykd.report.tables import columns

ACCURACIES_CAPTION = (
    "Points: seeds; marks: means with 95 % intervals, filled where the settings were searched; upright "
    "strokes: what papers and official codes print, with their own budgets. The axis spans the seeds: "
    "what passes it is in the table."
)
EDF_CAPTION = (
    "Over all trials that ended: a pruned one counts with its accuracy when it was stopped, which it might "
    "have passed; a failed one counts below all. Lower and to the right is better."
)
ANYTIME_CAPTION = "Each step is the end of a trial; pruned and failed trials cost, too. Without the teacher."


def make_pair_heads(table: PairTable) -> list[ColumnHead]:
    """Returns the columns of the table of a pair."""
    return [
        ColumnHead("method", "name"),
        *number_heads(table.runs[0].test_label, "n", "search (h)", "training (h)"),
        *(ColumnHead(name, "wide") for name in ("published (%)", "vs. KD", "vs. paper's point")),
    ]


def write_html(runs: Sequence[RunData], out: Path) -> Path:
    """Writes OUT/index.html, OUT/figures and OUT/tables, and returns the page's path."""
    pair_tables = build_pair_tables(runs)
    arrow_tables = tables.build_tables(runs, pair_tables)
    columns.write_tables(arrow_tables, out / "tables")
    with rc_context(RC_PARAMS):
        plots = [plot for i, table in enumerate(pair_tables, 1) for plot in _draw_plots(i, table)]
    titles = {"overview": "Methods and pairs"} if len(pair_tables) > 1 else {}
    titles |= {f"pair{i}": table.title for i, table in enumerate(pair_tables, 1)}
    context = {
        "titles": titles | {"facts": "Runs and files"},
        "runs": runs,
        "notes": list_notes(runs),
        "differences": find_setting_differences(runs),
        "pairs": pair_tables,
        "heads": {table.title: make_pair_heads(table) for table in pair_tables},
        "test_labels": " or ".join(dict.fromkeys(run.test_label for run in runs)),
        "overview_heads": [ColumnHead("method", "name"), *number_heads(*(t.title for t in pair_tables))],
        "overview": _group_by_name(pair_tables),
        "figures": save_plots(plots, out),
        "run_table": run_table(runs),
        "files": html.describe_files(arrow_tables),
    }
    html.write_page("comparison.html", context, out / "index.html")
    return out / "index.html"


def _draw_plots(position: int, table: PairTable) -> list[Plot]:
    title = f"{table.runs[0].metric_title} against cost"
    title = title[0].upper() + title[1:]
    accuracies, edf = figures.plot_test_accuracies(table), figures.plot_edf(table)
    return [
        Plot(f"accuracies-{position}", "Test accuracies", accuracies, ACCURACIES_CAPTION),
        Plot(f"edf-{position}", "Distribution of the trials", edf, EDF_CAPTION),
        Plot(
            f"anytime-{position}",
            f"{table.runs[0].metric_title.capitalize()} against cost",
            figures.plot_anytime(table),
            ANYTIME_CAPTION,
        ),
    ]


def _group_by_name(pair_tables: Sequence[PairTable]) -> list[tuple[str, list[list[RecipeResult]]]]:
    """Method x pair, as the papers print it: (name, its results in each table)."""
    return [
        (name, [[r for r in table.results if r.name == name and r.accuracies] for table in pair_tables])
        for name in dict.fromkeys(result.name for table in pair_tables for result in table.results)
    ]


def list_notes(runs: Sequence[RunData]) -> list[str]:
    """Returns what a reader must know of the runs before the numbers."""
    notes = []
    for run in runs:
        if run.state != "finished":
            notes.append(f"{run.name} is {run.state}: its numbers are of the trials so far")
        if not run.confirmations:
            notes.append(f"{run.name} is not confirmed: it has no test accuracy")
        notes += [f"{run.name}: {problem}" for problem in run.problems]
    return notes


def run_table(runs: Sequence[RunData]) -> Table:
    """Returns the facts of each run."""
    facts = ("commit", "hardware", "started")
    heads = [*map(ColumnHead, ("run", "state")), *number_heads("trials")]
    return Table(
        "Runs",
        heads + [ColumnHead(name, is_code=True) for name in facts],
        [(run.name, run.state, len(run.trials), *map(run.facts.get, facts)) for run in runs],
    )

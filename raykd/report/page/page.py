"""The page of one run: what was searched, what it cost, what came out, and how far that can be trusted."""

from pathlib import Path

import pyarrow as pa
from matplotlib import rc_context

from raykd.report import beyond
from raykd.report.figures import contours, history, parallel, pareto, slices, timeline
from raykd.report.figures.style import RC
from raykd.report.page import html, results, sections
from raykd.report.page.html import pair, section
from raykd.report.page.plot import Plot, placed
from raykd.report.rows.types import RunData
from raykd.report.stats.importances import Importances, leading


def plots(run: RunData, found: Importances | str) -> list[Plot]:
    """Every figure of the page, drawn from the rows."""
    paths = leading(run, found)
    trust = "" if isinstance(found, str) else found.says()
    with rc_context(RC):
        several = [Plot("front", "What accuracy costs", pareto.fronts(run), FRONT)]
        return [
            *(several if len(run.objectives) > 1 else []),
            Plot("history", "Optimization history", history.history(run), HISTORY),
            Plot("importances", "Importances", slices.bars(run, found), f"{IMPORTANCES} {trust}"),
            Plot("contours", "Contours of the leading fields", contours.contours(run, paths), CONTOURS),
            Plot("parallel", "Parallel coordinates", parallel.parallel(run, paths), PARALLEL),
            Plot("slices", "Slices", slices.slices(run, paths), SLICES),
            Plot("curves", "Learning curves", history.curves(run), CURVES),
            Plot("ranks", "Do early accuracies rank trials as the end does?", history.ranks(run), RANKS),
            Plot("confirmed", "Confirmed on the test set", timeline.confirmed(run), CONFIRMED),
            Plot("embeddings", "Embeddings of student and teacher", beyond.embeddings(run), EMBEDDINGS),
            Plot("timeline", "Timeline of devices", timeline.timeline(run), TIMELINE),
            Plot("terms", "Raw loss terms of the leaders", timeline.terms(run), TERMS),
        ]


HISTORY = "Each trial's held-out accuracy (averaged weights, its last epoch, one seed)."
FRONT = (
    "Finished trials; filled: no other trial is at least as good in every objective and better in one. "
    "Numbers are trials'."
)
IMPORTANCES = (
    "By how many points a random forest's error on trials it has not seen grows when one field's values are "
    "shuffled; bars are means over 5-fold splits, lines 95 % intervals."
)
CONTOURS = (
    "Colour: the accuracy that a forest of random splits predicts from the two fields of a panel alone, over "
    "all trials that reached the epoch named, pruned ones too. Far from trials it is a guess."
)
PARALLEL = (
    "Finished trials, coloured by fifths of accuracy. "
    "A line dips below an axis where that field was not called for."
)
SLICES = "Axes are logarithmic where the search was. Fields in the order of their importance."
CURVES = "Averaged weights. The leaders and the paper's point in colour; dotted lines are the rungs."
RANKS = (
    "Against the final accuracy of the averaged weights, over finished trials only: pruning removes the "
    "worst, which lowers every correlation shown here. Shaded: 95 % interval."
)
CONFIRMED = "Retrained on the full training set, last epoch; the test set was opened once."
EMBEDDINGS = (
    "The same test images in the two principal components of each net's own embedding; colours and marks are "
    "classes. Two components of many: nearness here is a hint, no measure."
)
TIMELINE = "Each bar is one trial from its start to its end. A device that trials share has several rows."
TERMS = "Before their weights, so that trials with different weights compare."


def write(run: RunData, found: Importances | str, tables: dict[str, pa.Table], out: Path) -> Path:
    """Draw everything, and write OUT/index.html and OUT/figures."""
    shown = placed(plots(run, found), out)
    path = out / "index.html"
    path.write_text(html.page(f"{run.name} · raykd", _body(run, found, shown, tables)), encoding="utf-8")
    return path


def _body(run: RunData, found: Importances | str, shown: dict[str, str], tables: dict[str, pa.Table]) -> str:
    fields_pair = pair(shown["importances"], sections.importance_table(found)) + shown["contours"]
    early_pair = pair(shown["ranks"], sections.rung_table(run))
    parts = [
        ("course", "How the search went", shown["history"] + shown.get("front", "") + sections.failures(run)),
        ("confirmation", "Confirmation", results.confirmation(run) + shown["confirmed"]),
        ("beyond", "Beyond accuracy", beyond.tables(run) + shown["embeddings"]),
        ("recipe", "The best recipe", results.difference(run)),
        ("fields", "What decides the accuracy", fields_pair + shown["parallel"] + shown["slices"]),
        ("pruning", "Learning and pruning", shown["curves"] + early_pair),
        ("losses", "Loss terms", shown["terms"]),
        ("cost", "What it cost", results.cost(run) + shown["timeline"]),
        ("space", "What was searched", sections.searched(run)),
        ("trials", "All trials", sections.trials(run)),
        ("facts", "Facts and files", sections.facts(run) + sections.files(tables)),
    ]
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title, _ in parts)
    nav = f'<nav aria-label="Contents">{links}</nav>'
    main = "".join(section(key, title, inner) for key, title, inner in parts)
    header = f"<header>{sections.heading(run)}</header>"
    return f"{header}\n{nav}\n<main>\n{sections.headline(run)}{main}</main>\n"

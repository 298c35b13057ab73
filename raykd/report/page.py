"""The page of one run: what was searched, what it cost, what came out, and how far that can be trusted."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from matplotlib import rc_context
from matplotlib.figure import Figure

from raykd.report import course, fields, figures, html, sections, together
from raykd.report.data import RunData
from raykd.report.html import pair, section, text
from raykd.report.importances import Importances, leading
from raykd.report.style import RC, keep


@dataclass(frozen=True)
class Plot:
    """One figure and the words around it; `drawn` is a sentence where there is nothing to draw."""

    name: str
    title: str
    drawn: Figure | str
    caption: str


def plots(run: RunData, found: Importances | str) -> list[Plot]:
    """Every figure of the page, drawn from the rows."""
    paths = leading(run, found)
    trust = "" if isinstance(found, str) else found.says()
    with rc_context(RC):
        return [
            Plot("history", "Optimization history", figures.history(run), HISTORY),
            Plot("importances", "Importances", fields.bars(run, found), f"{IMPORTANCES} {trust}"),
            Plot("contour", "Contour of the two leading fields", together.contour(run, paths), CONTOUR),
            Plot("parallel", "Parallel coordinates", together.parallel(run, paths), PARALLEL),
            Plot("slices", "Slices", fields.slices(run, paths), SLICES),
            Plot("curves", "Learning curves", figures.curves(run), CURVES),
            Plot("ranks", "Do early accuracies rank trials as the end does?", figures.ranks(run), RANKS),
            Plot("confirmed", "Confirmed on the test set", course.confirmed(run), CONFIRMED),
            Plot("timeline", "Timeline of devices", course.timeline(run), TIMELINE),
            Plot("terms", "Raw loss terms of the leaders", course.terms(run), TERMS),
        ]


HISTORY = "Each trial's held-out accuracy (averaged weights, its last epoch, one seed)."
IMPORTANCES = (
    "By how many points a random forest's error on trials it has not seen grows when one field's values are "
    "shuffled; bars are means over 5-fold splits, lines 95 % intervals."
)
CONTOUR = (
    "Colour: the accuracy that a forest of random splits predicts from these two fields alone. "
    "Far from trials it is a guess."
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
TIMELINE = "Each bar is one trial from its start to its end. A device that trials share has several rows."
TERMS = "Before their weights, so that trials with different weights compare."


def write(run: RunData, found: Importances | str, tables: dict[str, pa.Table], out: Path) -> Path:
    """Draw everything, and write OUT/index.html and OUT/figures."""
    shown: dict[str, str] = {}
    with rc_context(RC):
        for plot in plots(run, found):
            title = f"<h3>{text(plot.title)}</h3>"
            if isinstance(plot.drawn, str):
                shown[plot.name] = (
                    f'{title}<p class="missing" data-missing="{plot.name}">{text(plot.drawn)}</p>'
                )
            else:
                svg = keep(plot.drawn, plot.name, plot.title, out / "figures")
                wide = plot.drawn.get_figwidth() > 8
                shown[plot.name] = title + html.drawing(svg, plot.name, text(plot.caption), wide)
    path = out / "index.html"
    path.write_text(html.page(f"{run.name} · raykd", _body(run, shown, tables)), encoding="utf-8")
    return path


def _body(run: RunData, shown: dict[str, str], tables: dict[str, pa.Table]) -> str:
    fields_pair = pair(shown["importances"], shown["contour"])
    early_pair = pair(shown["ranks"], sections.rung_table(run))
    parts = [
        ("course", "How the search went", shown["history"] + sections.failures(run)),
        ("confirmation", "Confirmation", sections.confirmation(run) + shown["confirmed"]),
        ("recipe", "The best recipe", sections.difference(run)),
        ("fields", "What decides the accuracy", fields_pair + shown["parallel"] + shown["slices"]),
        ("pruning", "Learning and pruning", shown["curves"] + early_pair),
        ("losses", "Loss terms", shown["terms"]),
        ("cost", "What it cost", shown["timeline"]),
        ("space", "What was searched", sections.searched(run)),
        ("trials", "All trials", sections.trials(run)),
        ("facts", "Facts and files", sections.facts(run) + sections.files(tables)),
    ]
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title, _ in parts)
    nav = f'<nav aria-label="Contents">{links}</nav>'
    main = "".join(section(key, title, inner) for key, title, inner in parts)
    header = f"<header>{sections.heading(run)}</header>"
    return f"{header}\n{nav}\n<main>\n{sections.headline(run)}{main}</main>\n"

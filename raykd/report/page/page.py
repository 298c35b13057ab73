"""The page of one run: what was searched, what it cost, what came out, and how far that can be trusted."""

from pathlib import Path

import pyarrow as pa
from matplotlib import rc_context

from raykd.report.figures import contours, embeddings, history, parallel, pareto, slices, timeline
from raykd.report.figures.style import RC_PARAMS
from raykd.report.page import html, peers, results, sections, student_analysis
from raykd.report.page.plot import Plot, save_plots
from raykd.report.rows.types import RunData
from raykd.report.stats.importances import Importances, rank_paths

HISTORY_CAPTION = "Each trial's held-out {metric} (averaged weights, its last epoch, one seed)."
PARETO_CAPTION = (
    "Finished trials; filled: no other trial is at least as good in every objective and better in one. "
    "Numbers are trials'."
)
IMPORTANCES_CAPTION = (
    "By how many points a random forest's error on trials it has not seen grows when one parameter's values "
    "are shuffled; bars are means over 5-fold splits, lines 95 % intervals."
)
CONTOURS_CAPTION = (
    "Colour: the {metric} that a forest of random splits predicts from the two parameters of a panel alone, "
    "over all trials that reached the epoch named, pruned ones too. Far from trials it is a guess."
)
PARALLEL_CAPTION = (
    "Finished trials, coloured by fifths of {metric}. "
    "A line dips below an axis where that parameter was not active."
)
SLICES_CAPTION = "Axes are logarithmic where the search was. Parameters in the order of their importance."
LEARNING_CURVES_CAPTION = (
    "Averaged weights. The leaders and the paper's point in colour; dotted lines are the rungs."
)
RANK_CORRELATIONS_CAPTION = (
    "Against the final {metric} of the averaged weights, over finished trials only: pruning removes the "
    "worst, which lowers every correlation shown here. Shaded: 95 % interval."
)
CONFIRMATIONS_CAPTION = "Retrained on the full training set, last epoch; the test set was opened once."
EMBEDDINGS_CAPTION = (
    "The same test images in the two principal components of each net's own embedding; colours and marks are "
    "classes. Two components of many: nearness here is a hint, no measure."
)
TIMELINE_CAPTION = (
    "Each bar is one trial from its start to its end. A device that trials share has several rows."
)
LOSS_TERMS_CAPTION = "Before their weights, so that trials with different weights compare."


def draw_plots(run: RunData, importances: Importances | str) -> list[Plot]:
    """Returns every figure of the page, drawn from the rows."""
    paths = rank_paths(run, importances)
    forest_quality = "" if isinstance(importances, str) else importances.description()
    with rc_context(RC_PARAMS):
        plots = [
            Plot("history", "Optimization history", history.plot_optimization_history(run),
                 HISTORY_CAPTION.format(metric=run.metric_title)),
            Plot("importances", "Importances", slices.plot_importances(run, importances),
                 f"{IMPORTANCES_CAPTION} {forest_quality}"),
            Plot("contours", "Contours of the leading parameters", contours.plot_contours(run, paths),
                 CONTOURS_CAPTION.format(metric=run.metric_title)),
            Plot("parallel", "Parallel coordinates", parallel.plot_parallel_coordinates(run, paths),
                 PARALLEL_CAPTION.format(metric=run.metric_title)),
            Plot("slices", "Slices", slices.plot_slices(run, paths), SLICES_CAPTION),
            Plot("learning_curves", "Learning curves", history.plot_learning_curves(run),
                 LEARNING_CURVES_CAPTION),
            Plot("rank_correlations", "Do early accuracies rank trials as the end does?",
                 history.plot_rank_correlations(run),
                 RANK_CORRELATIONS_CAPTION.format(metric=run.metric_title)
                 + " " + sections.describe_first_rung(run)),
            Plot("confirmations", "Confirmed on the test set", timeline.plot_confirmations(run),
                 CONFIRMATIONS_CAPTION),
            Plot("embeddings", "Embeddings of student and teacher", embeddings.plot_embeddings(run),
                 EMBEDDINGS_CAPTION),
            Plot("timeline", "Timeline of devices", timeline.plot_timeline(run), TIMELINE_CAPTION),
            Plot("loss_terms", "Raw loss terms of the leaders", timeline.plot_loss_terms(run),
                 LOSS_TERMS_CAPTION),
        ]  # fmt: skip
        if len(run.objectives) > 1:
            plots.append(
                Plot(
                    "pareto", f"What {run.metric_title} costs", pareto.plot_pareto_front(run), PARETO_CAPTION
                )
            )
    return plots


def write_html(run: RunData, importances: Importances | str, tables: dict[str, pa.Table], out: Path) -> Path:
    """Draws everything, writes OUT/index.html and OUT/figures, and returns the page's path."""
    context = {
        "run": run,
        "notes": sections.list_notes(run),
        "tiles": sections.key_numbers(run),
        "figures": save_plots(draw_plots(run, importances), out),
        "files": html.describe_files(tables),
        "tables": {
            "failures": sections.failure_table(run),
            "confirmation": results.confirmation_table(run),
            "analyses": student_analysis.analysis_table(run),
            "nets": student_analysis.net_table(run),
            "peers": peers.peer_table(run),
            "class_gains": student_analysis.class_gain_table(run),
            "best_recipe": results.best_recipe(run),
            "importances": sections.importance_table(importances),
            "rungs": sections.rung_table(run),
            "cost": results.cost_table(run),
            "space": sections.search_space_table(run),
            "trials": sections.trial_table(run),
            "facts": sections.fact_table(run),
        },
    }
    html.write_page("run.html", context, out / "index.html")
    return out / "index.html"

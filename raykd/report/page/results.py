"""What a study came to: the confirmation, the best recipe, the cost."""

from raykd.report.page import html
from raykd.report.page.html import EMPTY, Head, code, hours, interval, paragraph, points, text
from raykd.report.rows.types import STATES, RunData, said, spent
from raykd.report.stats import tests


def confirmation(run: RunData) -> str:
    """Means, and differences by seed from the first of the table."""
    groups = tests.by_seed(run)
    if not groups:
        return ""
    first, base = next(iter(groups.items()))
    pairs = [tests.paired(base, of) if name != first else None for name, of in groups.items()]
    corrected = tests.holm([pair.p if pair is not None else None for pair in pairs])
    rows = []
    for (name, of), pair, p in zip(groups.items(), pairs, corrected, strict=True):
        mean = tests.mean_interval(list(of.values()))
        ahead = f"{interval(pair.mean, pair.half, sign=True)} (n={pair.n})" if pair is not None else EMPTY
        shown = EMPTY if p is None else ("&lt; 0.001" if p < 0.001 else f"{p:.3f}")
        rows.append([text(name), interval(mean.mean, mean.half), str(mean.n), ahead, shown])
    for row in run.published:
        rows.append([f"published, {text(row.source)}", points(row.value), EMPTY, EMPTY, EMPTY])
    heads = [
        Head("recipe"),
        Head("test accuracy (%)", "number"),
        Head("seeds", "number"),
        Head(f"{first} ahead by (points)", "number"),
        Head("p", "number"),
    ]
    note = "± is half of a 95 % t interval. Differences are paired by seed; p: paired t test"
    note += ", corrected by Holm." if len(groups) > 2 else "."
    return html.table("Confirmation", heads, rows) + paragraph(note, "caption")


def difference(run: RunData) -> str:
    """The best recipe as a difference from the paper's."""
    if not run.finished():
        return paragraph("There is no best recipe before a trial has finished.", "missing")
    best = run.finished()[0]
    changed = run.difference()
    if not changed:
        return paragraph(
            f"Trial {best.number} is the best; its recipe does not differ from the paper's point."
        )
    rows = [[code(run.title(path)), code(paper), code(found)] for path, (paper, found) in changed.items()]
    says = f"Trial {best.number}; everything that is not listed is as in the paper's point."
    heads = [Head("path"), Head("paper", "number"), Head("best", "number")]
    return paragraph(says) + html.table("The best recipe against the paper's", heads, rows)


def cost(run: RunData) -> str:
    """Device-hours of each part of the study."""
    rows = [["teacher, trained by this study", EMPTY, hours(run.teacher_hours)]] if run.teacher_hours else []
    for state in STATES:
        some = [t for t in run.trials if t.state == state]
        if some and run.hours():
            share = sum(map(spent, some)) / 3600 * run.trial_devices
            rows.append([f"search: {said(state)} trials", str(len(some)), hours(share)])
    if run.confirm:
        rows.append(["confirmation: retrainings", str(len(run.confirm)), hours(run.retraining_hours())])
    if not rows:
        return paragraph("Nothing has been spent yet.", "missing")
    rows.append(["all", EMPTY, hours(run.teacher_hours + run.hours() + run.retraining_hours())])
    heads = [Head("part"), Head("trainings", "number"), Head(f"{run.device}-hours", "number")]
    return html.table("Cost", heads, rows)

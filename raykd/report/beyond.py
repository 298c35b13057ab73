"""Beyond accuracy: how like its teacher a confirmed student answers, how calibrated, how fast, and on which
classes it gained. Measured on the test set by the confirmation (analysis.json).
"""

from collections import Counter
from collections.abc import Sequence
from math import isfinite

from matplotlib.figure import Figure

from raykd.report.figures.style import CARD, GRID, WIDE, figure, legend, look
from raykd.report.page import html
from raykd.report.page.html import Head, paragraph, points, text
from raykd.report.rows.types import Analysis, ConfirmRow, RunData, Spot

MOST_CLASSES, LOST = 10, 3  # in the tables of gains and in the picture; of these, losses
MEASURES = (
    ("agreement", "agreement (%)", 2),
    ("kl", "KL (nats)", 3),
    ("calibration_error", "calibration error (%)", 2),
    ("calibration_error_scaled", "scaled (%)", 2),
    ("temperature", "temperature", 2),
)
CONTROL = "ce"
Measured = dict[str, list[tuple[ConfirmRow, Analysis]]]  # by role


def measured(run: RunData) -> Measured:
    """The retrainings that were analysed, by role; the best first."""
    found: Measured = {}
    for row in sorted(run.confirm, key=lambda row: (row.role != "best", row.role != "paper", row.role)):
        if row.analysis is not None:
            found.setdefault(row.role, []).append((row, row.analysis))
    return found


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that were measured; None when none was."""
    known = [v for v in values if v is not None and isfinite(v)]
    return sum(known) / len(known) if known else None


def tables(run: RunData) -> str:
    """Agreement, calibration, speed and size; the classes that gained most."""
    found = measured(run)
    if not found:
        return paragraph("No retraining was analysed beyond its accuracy.", "missing")
    heads = [Head("recipe"), Head("seeds", "number"), Head("accuracy (%)", "number")]
    heads += [Head(title, "number") for _, title, _ in MEASURES]
    rows = []
    for role, of in found.items():
        cells = [text(role), str(len(of)), points(mean([row.accuracy for row, _ in of]))]
        for name, _, decimals in MEASURES:
            value = mean([getattr(analysis, name) for _, analysis in of])
            cells.append(html.EMPTY if value is None else f"{value:.{decimals}f}")
        rows.append(cells)
    split = next(iter(found.values()))[0][1].temperature_split or "an unnamed split"
    note = (
        "Means over seeds, on the test set. Agreement with the teacher's answers and KL(teacher ‖ student); "
        "expected calibration error in 15 bins; scaled: after dividing the logits by the temperature, fitted "
        f"on {split}."
    )
    table = html.table("Beyond accuracy", heads, rows)
    return table + paragraph(text(note), "caption") + _nets(run, found) + _gains(found)


def _nets(run: RunData, found: Measured) -> str:
    """Student and teacher side by side: accuracy, parameters, throughput."""
    of = next(iter(found.values()))
    rows = []
    for who, net in (("student", run.student), ("teacher", run.teacher)):
        speed = mean([a.images_per_second.get(who) for _, a in of])
        size = mean([a.parameters.get(who) for _, a in of])
        accuracies = [row.accuracy if who == "student" else a.teacher_accuracy for row, a in of]
        rows.append(
            [who, text(net), points(mean(accuracies)), _count(size), _count(speed)],
        )
    heads = [Head("net"), Head("name")]
    heads += [Head(name, "number") for name in ("test accuracy (%)", "parameters", "images / s")]
    return html.table("Student and teacher", heads, rows)


def _count(value: float | None) -> str:
    return html.EMPTY if value is None else f"{value:,.0f}"


def gains(
    found: dict[str, list[tuple[ConfirmRow, Analysis]]],
) -> list[tuple[str, float, float, float | None]]:
    """(class, best, control, teacher) in % over the seeds that both have; the largest gain first."""
    best, control = ({row.seed: a for row, a in found.get(role, [])} for role in ("best", CONTROL))
    seeds = sorted(best.keys() & control.keys())
    ours, theirs, teachers = (
        _by_class([group[seed] for seed in seeds], field)
        for group, field in ((best, "accuracy"), (control, "accuracy"), (best, "teacher"))
    )
    rows = [
        (name, here, there, teachers.get(name))
        for name, here in ours.items()
        if here is not None and (there := theirs.get(name)) is not None
    ]
    return sorted(rows, key=lambda row: row[2] - row[1])


def _by_class(analyses: Sequence[Analysis], field: str) -> dict[str, float | None]:
    values: dict[str, list[float | None]] = {}
    for analysis in analyses:
        for row in analysis.per_class:
            values.setdefault(str(row.name), []).append(getattr(row, field))
    return {name: mean(of) for name, of in values.items()}


def _gains(found: Measured) -> str:
    rows = gains(found)
    if not rows:
        return paragraph(
            f"Classes need per-class accuracies of best and of the control {CONTROL}.", "missing"
        )
    shown = rows if len(rows) <= MOST_CLASSES else [*rows[: MOST_CLASSES - LOST], *rows[-LOST:]]
    heads = [Head("class"), Head("best (%)", "number"), Head(f"{CONTROL} (%)", "number")]
    heads += [Head("gain (points)", "number"), Head("teacher (%)", "number")]
    cells = [
        [text(name), points(best), points(control), points(best - control, sign=True), points(teacher)]
        for name, best, control, teacher in shown
    ]
    what = f"Classes that gained most against {CONTROL}"
    left = f" ({len(shown)} of {len(rows)} classes: the most and the least)" if len(shown) < len(rows) else ""
    return f"<h3>{what}{left}</h3>" + html.table(what, heads, cells)


def embeddings(run: RunData) -> Figure | str:
    """The student's and the teacher's embeddings of the same test images, two principal components each."""
    analyses = [a for of in measured(run).values() for _, a in of if a.embedding.get("student")]
    if not analyses:
        return "No embeddings were measured (the confirmation writes them)."
    sides = [(who, spots) for who, spots in analyses[0].embedding.items() if spots]
    counts = Counter(str(spot[2]) for spot in sides[0][1])
    shown = sorted(sorted(counts), key=lambda name: -counts[name])[:MOST_CLASSES]
    drawn = figure(WIDE, 4.6)
    for i, (who, spots) in enumerate(sides):
        axes = drawn.add_subplot(1, 2, i + 1, xlabel="component 1", ylabel="component 2")
        axes.set_title(f"{who} ({run.student if who == 'student' else run.teacher}, n={len(spots)} images)")
        rest = [spot for spot in spots if str(spot[2]) not in shown]
        if rest:
            axes.plot(*_xy(rest), ".", color=GRID, ms=4, label="other classes")
        for place, name in enumerate(sorted(shown)):
            of, how = [spot for spot in spots if str(spot[2]) == name], look(place)
            axes.plot(*_xy(of), how.mark, color=how.colour, mec=CARD, mew=0.4, ms=5, label=name)
        axes.grid(visible=False)
    legend(drawn, 6)
    return drawn


def _xy(spots: Sequence[Spot]) -> tuple[list[float], list[float]]:
    return [spot[0] for spot in spots], [spot[1] for spot in spots]

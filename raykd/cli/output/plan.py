"""A plan, and a cluster's health, printed."""

from typing import Any

from rich.text import Text

from raykd.cli.output.tables import format_duration
from raykd.cli.output.text import console, get_width, print_lines, print_table, wrap_line


def print_plan(plan: Any) -> None:
    """Prints a Plan: the search space, what trials take, the costs on so many devices."""
    names = ("searched", "range", "paper's point", "only when")
    print_table(
        [
            dict(
                zip(
                    names,
                    (path, dimension, plan.paper_point.get(path), plan.conditional.get(path, "")),
                    strict=True,
                )
            )
            for path, dimension in plan.space.items()
        ]
        or [dict.fromkeys(names)],
        prose=("range", "only when"),
        title="Search space",
    )
    rows = {
        "boundary points": f"{plan.boundary_points} of the space; a trial could begin at each",
        "trials": f"{plan.trials} of {plan.epochs} epochs on {plan.images:,} images"
        + (f" ({plan.shortage})" if plan.shortage else ""),
        "resources": plan.resources,
        "student": f"{plan.student_parameters:,} parameters, the method's heads {plan.method_parameters:,}",
        "method's memory": f"{plan.bank_bytes / 2**20:.1f} MiB of buffers",
        "disk": f"{plan.disk_bytes / 2**20:,.0f} MiB, and {plan.trial_disk_bytes / 2**20:,.0f} MiB for each "
        f"trial under way; free: {format_free(plan.disk_free_bytes)}",
        **({"teacher's cache": plan.teacher_cache} if plan.teacher_cache else {}),
        **({"first rung": plan.first_rung} if plan.first_rung else {}),
    } | _format_times(plan)
    for name, value in rows.items():
        print_lines([f"{name:>16}  {value}"], 18)
    if plan.cache_forms:
        _print_cache_forms(plan.cache_forms)
    print_lines(f"{name}: {words}" for name, words in plan.students.items())
    print_lines(plan.search_warnings)
    if plan.cost_estimates:
        _print_costs(plan)


def _print_cache_forms(forms: Any) -> None:
    rows = []
    for form in forms:
        row = {"the teacher's cache keeps": form.form, "bytes a view": form.view_bytes}
        row["views that fit"] = form.views
        if any(other.live_seconds is not None for other in forms):
            pays = form.pays_after_trials
            row["search without it"] = f"{format_number(form.live_seconds)} s"
            row["with it"] = f"{format_number(form.cached_seconds)} s"
            row["pays after"] = "never" if pays is None else f"{format_number(pays)} trials"
        rows.append(row)
    title = (
        "Forms of the teacher's cache (teacher/cache), and the teacher's seconds; the first is the study's"
    )
    print_table(rows, title=title)
    if any("top" in form.form for form in forms):
        cost = "KD lost 2.2 of 11.7 points by 10 of 100 logits, and 1.1 by 30 (studies/RECORDS.md)"
        print_lines([f"Top logits alone cost accuracy where a teacher is unsure: {cost}"])


def format_number(value: float) -> str:
    """Returns a number with three significant digits, or whole from 100 on."""
    return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"


def format_free(size: int | None) -> str:
    """Returns bytes in GiB; "not known" for None."""
    return "not known" if size is None else f"{size / 2**30:,.1f} GiB"


def _format_times(plan: Any) -> dict[str, str]:
    if plan.not_measured:
        return {"seconds": f"not measured: {plan.not_measured}; see --images-per-second and --probe"}
    return {
        "speed": f"{plan.images_per_second:,.4g} images/s of one worker, {1000 * plan.step_seconds:.0f} ms a "
        f"step ({plan.speed_source})",
        "one trial": format_duration(plan.trial_seconds),
        "the search": f"{format_duration(plan.pruned_seconds)} with pruning, "
        f"{format_duration(plan.search_seconds)} without, one trial after another",
        "confirmation": f"{format_duration(plan.confirm_seconds)}, one retraining after another",
    }


def _print_costs(plan: Any) -> None:
    rows = []
    for cost in plan.cost_estimates:
        row = {
            f"{plan.device}s": cost.devices,
            "workers": cost.workers,
            "at once": cost.concurrent_trials,
            "one trial": format_duration(cost.trial_seconds),
            "search": format_duration(cost.search_seconds),
            "confirm": format_duration(cost.confirm_seconds),
            f"{plan.device} hours": format_number(cost.device_hours),
        }
        rows.append(row if plan.price is None else row | {"dollars": format_number(cost.dollars)})
    title = "On so many devices, with so many workers a trial and so many trials at once"
    print_table(rows, title=title + (f"; {plan.price:g} $ a device hour" if plan.price is not None else ""))
    print_lines([f"  - {line}" for line in plan.assumptions], 4)


COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}


def print_health(health: Any) -> None:
    """Prints a line a finding; under each that is not ok, the fix."""
    for finding in health.findings:
        colour = COLOURS[finding.level]
        line = f"{finding.level:<7}{finding.node:<24} {finding.check:<15} {finding.message}"
        first, *rest = wrap_line(line, get_width(), 9)
        text = Text.assemble((first[:7], colour), (first[7:], "" if finding.level == "ok" else colour))
        console.print(text, *rest, sep="\n")
        if finding.fix:
            print_lines([f"      fix: {finding.fix}"], 11)
    num_errors = sum(finding.level == "error" for finding in health.findings)
    summary = (
        f"{num_errors} of these {'keeps' if num_errors == 1 else 'keep'} a study from running"
        if num_errors
        else "a study can run"
    )
    console.print(Text(f"{health.address}: {summary}", COLOURS["error" if num_errors else "ok"]))

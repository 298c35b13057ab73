"""A plan, and a cluster's health, printed."""

from typing import Any

from rich.table import Column, Table
from rich.text import Text

from raykd.cli.output.tables import console, format_duration


def print_plan(plan: Any) -> None:
    """Prints a Plan: the search space, what trials take, the costs on so many devices."""
    folded = (Column(name, overflow="fold") for name in ("searched", "range", "paper's point", "only when"))
    table = Table(*folded, title="Search space", title_justify="left")
    for path, dimension in plan.space.items():
        table.add_row(path, dimension, str(plan.paper_point.get(path, "-")), plan.conditional.get(path, ""))
    console.print(table)
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
    } | _format_times(plan)
    for name, value in rows.items():
        console.print(f"{name:>16}  {value}", soft_wrap=True)
    if plan.cache_forms:
        _print_cache_forms(plan.cache_forms)
    for line in plan.search_warnings:
        console.print(line, soft_wrap=True)
    if plan.cost_estimates:
        _print_costs(plan)


def _print_cache_forms(forms: Any) -> None:
    names = ["the teacher's cache keeps", "bytes a view", "views that fit"]
    is_measured = any(form.live_seconds is not None for form in forms)
    names += ["search without it", "with it", "pays after"] if is_measured else []
    title = (
        "Forms of the teacher's cache (teacher/cache), and the teacher's seconds; the first is the study's"
    )
    table = Table(*(Column(name, overflow="fold") for name in names), title=title, title_justify="left")
    for form in forms:
        times: tuple[str, ...] = ()
        if form.live_seconds is not None:
            pays = form.pays_after_trials
            seconds = (f"{format_number(value)} s" for value in (form.live_seconds, form.cached_seconds))
            times = (*seconds, "never" if pays is None else f"{format_number(pays)} trials")
        table.add_row(form.form, f"{form.view_bytes:,}", f"{form.views:,}", *times)
    console.print(table)


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
    priced = plan.price is not None
    names = [
        f"{plan.device}s",
        "workers",
        "at once",
        "one trial",
        "search",
        "confirm",
        f"{plan.device} hours",
    ]
    names += ["dollars"] if priced else []
    title = "On so many devices, with so many workers a trial and so many trials at once"
    table = Table(
        *(Column(name, overflow="fold") for name in names),
        title=title + (f"; {plan.price:g} $ a device hour" if priced else ""), title_justify="left",
    )  # fmt: skip
    for cost in plan.cost_estimates:
        times = (cost.trial_seconds, cost.search_seconds, cost.confirm_seconds)
        table.add_row(
            str(cost.devices), str(cost.workers), str(cost.concurrent_trials), *map(format_duration, times),
            format_number(cost.device_hours), *([format_number(cost.dollars)] if priced else []),
        )  # fmt: skip
    console.print(table)
    for line in plan.assumptions:
        console.print(f"  - {line}")


COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}


def print_health(health: Any) -> None:
    """Prints a line a finding; under each that is not ok, the fix."""
    for finding in health.findings:
        line = Text.assemble(
            (f"{finding.level:<7}", COLOURS[finding.level]), f"{finding.node:<24} {finding.check:<15} ",
            (finding.message, "" if finding.level == "ok" else COLOURS[finding.level]),
        )  # fmt: skip
        console.print(line, soft_wrap=True)
        if finding.fix:
            console.print(Text(f"      fix: {finding.fix}"), soft_wrap=True)
    num_errors = sum(finding.level == "error" for finding in health.findings)
    summary = (
        f"{num_errors} of these {'keeps' if num_errors == 1 else 'keep'} a study from running"
        if num_errors
        else "a study can run"
    )
    console.print(
        Text(f"{health.address}: {summary}", COLOURS["error" if num_errors else "ok"]), soft_wrap=True
    )

"""What a study will take, and what keeps it from running."""

from typing import Any

from rich.table import Column, Table
from rich.text import Text

from raykd.cli.output.tables import console, duration


def plan(made: Any) -> None:
    folded = (Column(name, overflow="fold") for name in ("searched", "range", "paper's point", "only when"))
    table = Table(*folded, title="Search space", title_justify="left")
    for path, dimension in made.space.items():
        table.add_row(path, dimension, str(made.paper_point.get(path, "-")), made.conditional.get(path, ""))
    console.print(table)
    rows = {
        "corners": f"{made.corners} points at the ends of the space; a trial could begin at each",
        "trials": f"{made.trials} of {made.epochs} epochs on {made.images:,} images",
        "student": f"{made.student_parameters:,} parameters, the method's heads {made.method_parameters:,}",
        "method's memory": f"{made.bank_bytes / 2**20:.1f} MiB of buffers",
        "disk": f"{made.disk_bytes / 2**20:,.0f} MiB, and {made.trial_disk_bytes / 2**20:,.0f} MiB for each "
        f"trial under way; free: {free(made.disk_free_bytes)}",
    } | _seconds(made)
    for name, value in rows.items():
        console.print(f"{name:>16}  {value}")
    if made.scales:
        _scales(made)


def short(value: float) -> str:
    return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"


def free(size: int | None) -> str:
    return "not known" if size is None else f"{size / 2**30:,.1f} GiB"


def _seconds(made: Any) -> dict[str, str]:
    if made.not_measured:
        return {"seconds": f"not measured: {made.not_measured}; see --images-per-second and --probe"}
    return {
        "speed": f"{made.images_per_second:,.4g} images/s of one worker, {1000 * made.step_seconds:.0f} ms a "
        f"step ({made.speed_source})",
        "one trial": duration(made.trial_seconds),
        "the search": f"{duration(made.pruned_seconds)} with pruning, {duration(made.search_seconds)} "
        "without, one trial after another",
        "confirmation": f"{duration(made.confirm_seconds)}, one retraining after another",
    }


def _scales(made: Any) -> None:
    names = (f"{made.device}s", "workers", "at once", "one trial", "search", "confirm")
    priced = made.price is not None
    title = "On so many devices, with so many workers a trial and so many trials at once"
    table = Table(
        *names, f"{made.device} hours", *(["dollars"] if priced else []),
        title=title + (f"; {made.price:g} $ a device hour" if priced else ""), title_justify="left",
    )  # fmt: skip
    for one in made.scales:
        times = (one.trial_seconds, one.search_seconds, one.confirm_seconds)
        table.add_row(
            str(one.devices), str(one.workers), str(one.at_once), *map(duration, times),
            short(one.device_hours), *([short(one.dollars)] if priced else []),
        )  # fmt: skip
    console.print(table)
    for line in made.assumptions:
        console.print(f"  - {line}")


COLOURS = {"good": "green", "poor": "yellow", "bad": "red"}


def health(found: Any) -> None:
    """A line a finding; under each that is not good, the mend."""
    for finding in found.findings:
        line = Text.assemble(
            (f"{finding.level:<5}", COLOURS[finding.level]), f"{finding.node:<24} {finding.what:<15} ",
            (finding.told, "" if finding.level == "good" else COLOURS[finding.level]),
        )  # fmt: skip
        console.print(line, soft_wrap=True)
        if finding.mend:
            console.print(Text(f"      mend: {finding.mend}"), soft_wrap=True)
    bad = sum(finding.level == "bad" for finding in found.findings)
    words = (
        f"{bad} of these {'keeps' if bad == 1 else 'keep'} a study from running" if bad else "a study can run"
    )
    console.print(Text(f"{found.address}: {words}", COLOURS["bad" if bad else "good"]), soft_wrap=True)

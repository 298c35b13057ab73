"""What the verbs print: live progress, tables, plain lines where the output is no terminal."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from raykd.ledger.folder import Folder, joined
from raykd.standing import leaders, seconds_left

console = Console(highlight=False)


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.1f} days"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} %"


def drawn(values: dict[str, Any]) -> str:
    return "  ".join(
        f"{path}={v:.4g}" if isinstance(v, float) else f"{path}={v}" for path, v in values.items()
    )


@contextmanager
def progress(study: dict[str, Any], run: str) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """Hears of the phases and changes of a run: a live table on a terminal, plain lines elsewhere."""
    board = Board(study, run)
    if not console.is_terminal:
        yield board.line
        return
    with Live(board.table(), console=console, refresh_per_second=2) as live:

        def tell(phase: str, news: dict[str, Any]) -> None:
            board.hear(phase, news)
            live.update(board.table())

        yield tell


class Board:
    """What is known of a run while it goes on."""

    def __init__(self, study: dict[str, Any], run: str) -> None:
        self.study, self.run, self.phase = study, run, "starting"
        self.epochs = study["recipe"]["epochs"]
        self.rows: dict[int, dict[str, Any]] = {}
        self.began = time.time()

    def hear(self, phase: str, news: dict[str, Any]) -> None:
        self.phase = _phase(phase, news)
        if phase == "search" and "number" in news:
            self.rows[news["number"]] = news

    def line(self, phase: str, news: dict[str, Any]) -> None:
        """A plain line for each change that matters."""
        before = self.phase
        self.hear(phase, news)
        if phase == "search" and "number" in news:
            if news["state"] in ("COMPLETE", "PRUNED", "FAIL", "WAITING"):
                self._print(_trial_line(news) + f"  [{self._counts()}]")
        elif self.phase != before:
            self._print(self.phase)

    def _print(self, text: str) -> None:
        print(f"{duration(time.time() - self.began):>7}  {text}", flush=True)

    def _counts(self) -> str:
        states = [row["state"] for row in self.rows.values()]
        left = seconds_left(self.study, list(self.rows.values()))
        best = next((row["accuracy"] for row in leaders(list(self.rows.values()))), None)
        return (
            f"{states.count('RUNNING')} running, {states.count('COMPLETE')} done, "
            f"{states.count('PRUNED')} pruned, "
            f"{states.count('FAIL')} failed of {self.study['budget']['trials']}, best {percent(best)}, "
            f"{duration(left) if left is not None else '?'} left"
        )

    def table(self) -> Group:
        table = Table(title=f"{self.study['name']}: {self.phase}", title_justify="left", expand=False)
        for name in ("trial", "state", "epoch", "held-out", "drawn"):
            table.add_column(name, justify="right" if name in ("trial", "epoch", "held-out") else "left")
        shown = sorted(self.rows.values(), key=lambda row: (row["state"] != "RUNNING", -row["number"]))[:12]
        for row in shown:
            table.add_row(
                str(row["number"]), row["state"].lower(), f"{row['epochs']}/{self.epochs}",
                percent(row["accuracy"]), row["reason"] or drawn(row["drawn"]),
            )  # fmt: skip
        return Group(table, f"{self._counts()}    {self.run}")


def _phase(phase: str, news: dict[str, Any]) -> str:
    return {
        "teacher": f"training the teacher {news.get('net', '')}, once",
        "search": f"searching; {news['words']}" if "words" in news else "searching",
        "confirm": f"confirming on the full training set: {news.get('left')} of {news.get('of')} retrainings "
        "left",
        "stopped": f"stopped: {news.get('why', '')}",
        "done already": "finished before; nothing to do",
    }[phase]


def _trial_line(row: dict[str, Any]) -> str:
    reason = f" ({row['reason']})" if row["reason"] else ""
    role = " (the paper's point)" if row["role"] == "paper" else ""
    state = f"{row['state'].lower()} at epoch {row['epochs']}"
    return f"trial {row['number']}{role} {state}: {percent(row['accuracy'])}{reason}"


def epoch(row: dict[str, Any]) -> None:
    terms = "  ".join(f"{name} {value:.4f}" for name, value in row["terms"].items())
    print(
        f"epoch {row['epoch']:>3}  held-out {percent(row['accuracy']):>8}  {terms}  {row['seconds']:.1f} s",
        flush=True,
    )


def trained(row: dict[str, Any], folder: Folder) -> None:
    tested = f", test {percent(row['test_accuracy'])}" if "test_accuracy" in row else ""
    print(f"trained: held-out {percent(row['accuracy'])}{tested} after {row['epoch']} epochs; {folder.uri}")


def exported(place: str, left_out: dict[str, str]) -> None:
    print(f"export: {place}")
    for name, why in left_out.items():
        print(f"export: {name} left out: {why}")


def probed(whose: str, seed: int, accuracy: float) -> None:
    print(f"{whose}, seed {seed}: {percent(accuracy)}", file=sys.stderr, flush=True)


def transferred(to: str, result: dict[str, Any], folder: Folder) -> None:
    images = result["images"]
    title = f"Linear probe on {to}: {images['train']:,} training, {images['test']:,} test images"
    table = Table("features of", "net", "test top-1", "n", title=title, title_justify="left")
    nets = {"student": f"{result['student']}, {result['method']}", "untrained": result["student"]}
    for whose, row in result["rows"].items():
        interval = f" ± {row['interval']:.2f}" if row["interval"] is not None else ""
        net = nets.get(whose, result["teacher"])
        table.add_row(whose, net, percent(row["accuracy"]) + interval, str(len(row["seeds"])))
    console.print(table)
    if result["teacher"] and "teacher" not in result["rows"]:
        print("the teacher's weights are not where they were; --teacher names them")
    print(f"transfer: {joined(folder.uri, 'transfer.json')}")


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


def standing(stands: dict[str, Any]) -> None:
    counts = stands["trials"]
    lines = [
        f"{stands['study']} ({stands['method']}): {stands['state']}"
        + (f", {stands['why']}" if stands["why"] else ""),
        f"trials    {counts['complete']} done, {counts['pruned']} pruned, {counts['fail']} failed, "
        f"{counts['running'] + counts['waiting']} under way, of {stands['asked']}",
    ]
    for name in ("best", "paper"):
        if row := stands[name]:
            lines.append(
                f"{name:<9} {percent(row['accuracy'])} held-out, trial {row['number']} ("
                f"{row['state'].lower()}, "
                f"epoch {row['epochs']})  {drawn(row['drawn'])}"
            )
    lines += _spent(stands)
    if stands["seconds_left"] and stands["state"] == "running":
        lines.append(f"left      about {duration(stands['seconds_left'])}")
    for role, values in stands["confirmed"].items():
        mean = sum(values) / len(values)
        lines.append(f"test      {role}: {mean:.2f} % (n = {len(values)})")
    lines += [f"failed    trial {f['trial']}: {f['reason']}" for f in stands["failures"][:10]]
    if stands["driver"]:
        lines.append(f"driver    {stands['driver']}")
    print("\n".join(lines), file=sys.stdout)


def _spent(stands: dict[str, Any]) -> list[str]:
    """Time, what pruning and the teacher's table saved of it, disk, retries."""
    device, saved, cap = stands["device"], stands["saved"], stands["disk_gb"]
    lines = [f"spent     {stands['device_hours']:.2f} {device}-hours"]
    if saved["epochs"]:
        lines.append(
            f"saved     {saved['device_hours']:.2f} {device}-hours by pruning ({saved['epochs']} epochs)"
        )
    if told := stands["teacher"]:
        share = 100 * told["hits"] / (told["hits"] + told["misses"])
        lines.append(
            f"teacher   {share:.1f} % of its answers from the table in the last {told['trials']} trials, "
            f"{duration(told['seconds_saved'])} saved"
        )
    disk = f"disk      {stands['disk_bytes'] / 1e6:.1f} MB"
    lines.append(disk + (f" of {1000 * cap:.0f} MB (budget/disk_gb)" if cap else ""))
    if again := stands["tried_again"]:
        lines.append(
            f"again     {sum(row['lost'] for row in again)} lost and tried again, "
            f"{sum(row['tries'] for row in again)} errors, in {len(again)} trials"
        )
    return lines


def methods(found: Any) -> None:
    if isinstance(found, list):
        table = Table("method", "status", "needs", "searched fields", "paper")
        for item in found:
            table.add_row(
                item["name"], item["status"], ", ".join(item["needs"]), str(item["searched"]), item["paper"]
            )
        console.print(table)
        return
    print(f"{found['name']} ({found['status']}): {found['paper']}\n\n{found['text']}\n")
    table = Table("field", "range", "paper's value", "only when")
    for field in found["fields"]:
        table.add_row(field["path"], field["range"], str(field["paper"]), field["when"])
    console.print(table)
    for row in found["published"]:
        print(f"\npublished: {row['system']} on {row['data']} (source: {row['source']})")
        for pair, values in row["top1"].items():
            print(f"  {pair}: {' / '.join(f'{value:g}' for value in values)} %")


def table(rows: list[dict[str, Any]]) -> None:
    """Rows of plain values, as a table."""
    made = Table(box=None, pad_edge=False)
    for name in rows[0]:
        made.add_column(name, overflow="fold", justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        made.add_row(
            *("-" if v is None else f"{v:,}" if isinstance(v, int) else str(v) for v in row.values())
        )
    console.print(made)

"""A run while it goes on: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table

from raykd.cli.output.tables import console, drawn, duration, percent
from raykd.store.status import leaders, seconds_left


@contextmanager
def progress(
    study: dict[str, Any], run: str, rows: list[dict[str, Any]]
) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """Hears of the phases and changes of a run: a live table on a terminal, plain lines elsewhere. `rows`:
    of the trials that it has already.
    """
    board = Board(study, run, rows)
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

    def __init__(self, study: dict[str, Any], run: str, rows: list[dict[str, Any]]) -> None:
        self.study, self.run, self.phase = study, run, "starting"
        self.epochs = study["recipe"]["epochs"]
        self.rows = {row["number"]: row for row in rows}
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

"""A run while it goes on: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Group
from rich.live import Live
from rich.text import Text

from raykd.cli.output.tables import format_duration, format_params, format_percent
from raykd.cli.output.text import console, format_table, wrap_line
from raykd.metric import describe_judged, get_metric, get_score
from raykd.store.run_files import replace_auto
from raykd.store.status import estimate_seconds_left, rank_trials


class Board(Protocol):
    """What is known of a run while it goes on."""

    def update(self, phase: str, details: dict[str, Any]) -> None:
        """Takes in a change."""

    def print_line(self, phase: str, details: dict[str, Any]) -> None:
        """Takes in a change, and prints a plain line if it matters."""

    def render(self) -> Group:
        """Returns the live table."""


@contextmanager
def show_progress(board: Board) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """Shows the phases and changes of a run: a live table on a terminal, plain lines elsewhere."""
    if not console.is_terminal or console.is_dumb_terminal:
        yield board.print_line
        return
    with Live(board.render(), console=console, refresh_per_second=2) as live:

        def on_event(phase: str, details: dict[str, Any]) -> None:
            board.update(phase, details)
            if phase == "resources":
                live.console.print(details["message"])
            live.update(board.render())

        yield on_event


class ProgressBoard:
    """What is known of one study's run while it goes on.

    Args:
        study: The study as plain data.
        run: Its folder or URI.
        rows: Of the trials that it has already.
        label: Stands before each of its lines.
    """

    def __init__(self, study: dict[str, Any], run: str, rows: list[dict[str, Any]], label: str = "") -> None:
        self.study, self.run, self.phase, self._label = study, run, "starting", label
        self.epochs, self._metric = study["recipe"]["epochs"], study["search"]["objectives"][0]
        self.rows = {row["number"]: row for row in rows}
        self.started = time.monotonic()

    def update(self, phase: str, details: dict[str, Any]) -> None:
        """Takes in a phase and, in the search, a trial's row."""
        self.phase = describe_phase(phase, details)
        if phase == "search" and "number" in details:
            self.rows[details["number"]] = details
        if phase == "resources":
            cluster = replace_auto(self.study["cluster"], details["cpus"], details["gpus"])
            self.study = self.study | {"cluster": cluster}

    def print_line(self, phase: str, details: dict[str, Any]) -> None:
        """Takes in a change, and prints a plain line if it matters."""
        previous_phase = self.phase
        self.update(phase, details)
        if phase == "search" and "number" in details:
            if details["state"] in ("COMPLETE", "PRUNED", "FAIL", "WAITING"):
                print_after(
                    self.started, self._label + _describe_trial(details) + f"  [{self._format_counts()}]"
                )
        elif self.phase != previous_phase:
            print_after(self.started, self._label + self.phase)

    def _format_counts(self) -> str:
        states = [row["state"] for row in self.rows.values()]
        seconds_left = estimate_seconds_left(self.study, list(self.rows.values()))
        best = next((get_score(row) for row in rank_trials(list(self.rows.values()))), None)
        return (
            f"{states.count('RUNNING')} running, {states.count('COMPLETE')} done, "
            f"{states.count('PRUNED')} pruned, "
            f"{states.count('FAIL')} failed of {self.study['budget']['trials']}, "
            f"best {format_percent(best)}{describe_judged(self._metric)}, "
            f"{format_duration(seconds_left) if seconds_left is not None else '?'} left"
        )

    def render(self) -> Group:
        """Returns the live table: the running trials, then the latest others."""
        recent_rows = sorted(self.rows.values(), key=lambda row: (row["state"] != "RUNNING", -row["number"]))
        table = [
            {
                "trial": row["number"],
                "state": row["state"].lower(),
                "epoch": f"{row['epochs']}/{self.epochs}",
                f"held-out{describe_judged(self._metric)}": format_percent(get_score(row)),
                "params": row["reason"] or format_params(row["params"]),
            }
            for row in recent_rows[:12]
        ]
        lines = [f"{self.study['name']}: {self.phase}"]
        lines += format_table(table, console.width, prose=("params",)) if table else []
        for line in (self._format_counts(), self.run):
            lines += wrap_line(line, console.width, 2)
        return Group(*(Text(line) for line in lines))


def print_after(started: float, text: str) -> None:
    """Prints a line, with the time since `started` (of the monotonic clock)."""
    print(f"{format_duration(time.monotonic() - started):>7}  {text}", flush=True)


def describe_phase(phase: str, details: dict[str, Any]) -> str:
    """Returns in words what a run does."""
    return {
        "resources": str(details.get("message", "")),
        "teacher": f"training the teacher {details.get('net', '')}, once",
        "search": f"searching; {details['message']}" if "message" in details else "searching",
        "confirm": f"confirming on the full training set: {details.get('left')} of "
        f"{details.get('total')} retrainings left",
        "stopped": f"stopped: {details.get('reason', '')}",
        "done already": "finished before; nothing to do",
    }[phase]


def _describe_trial(row: dict[str, Any]) -> str:
    reason = f" ({row['reason']})" if row["reason"] else ""
    role = " (the paper's point)" if row["role"] == "paper" else ""
    state = f"{row['state'].lower()} at epoch {row['epochs']}"
    judged = describe_judged(get_metric(row))
    return f"trial {row['number']}{role} {state}: {format_percent(get_score(row))}{judged}{reason}"

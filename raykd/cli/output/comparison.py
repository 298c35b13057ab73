"""A comparison: its progress, its status and its plan, with a row for each method."""

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.text import Text

from raykd.cli.output.plan import format_number
from raykd.cli.output.progress import ProgressBoard, describe_phase, print_after
from raykd.cli.output.tables import format_duration, format_percent
from raykd.cli.output.text import console, format_table, print_lines, print_table
from raykd.metric import describe_judged, get_metric, get_score
from raykd.store.status import summarize_trials


class ComparisonBoard:
    """What is known of a comparison while it goes on.

    Args:
        name: Of the comparison.
        run: Its folder or URI.
        boards: Of the methods.
    """

    def __init__(self, name: str, run: str, boards: Mapping[str, ProgressBoard]) -> None:
        self._name, self._run, self._boards, self._phase = name, run, boards, "starting"
        self._started = time.monotonic()

    def update(self, phase: str, details: dict[str, Any]) -> None:
        """Takes in a phase and, in the search, the row of a method's trial."""
        boards = [self._boards[details["method"]]] if "method" in details else self._boards.values()
        for board in boards:
            board.update(phase, details)
        self._phase = describe_phase(phase, details)

    def print_line(self, phase: str, details: dict[str, Any]) -> None:
        """Takes in a change, and prints a plain line if it matters."""
        if "method" in details:
            self._boards[details["method"]].print_line(phase, details)
            return
        previous_phase = self._phase
        self.update(phase, details)
        if self._phase != previous_phase:
            print_after(self._started, self._phase)

    def render(self) -> Group:
        """Returns the live table."""
        rows = {}
        for method, board in self._boards.items():
            rows[method] = summarize_trials(board.study, list(board.rows.values()))
        table, caption = make_method_rows(rows)
        lines = [f"{self._name}: {self._phase}", *format_table(table, console.width), caption, self._run]
        return Group(*(Text(line) for line in lines))


def make_method_rows(statuses: Mapping[str, dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """Returns a table's rows of the methods' trials, accuracies and costs, and what to write below them.

    Args:
        statuses: By method; of each at least what `summarize_trials` returns.
    """
    first = next(iter(statuses.values()))
    device, rows = first["device"], []
    for method, status in statuses.items():
        counts = status["trials"]
        row = {"method": method, "running": counts["running"] + counts["waiting"], "done": counts["complete"]}
        row |= {"pruned": counts["pruned"], "failed": counts["fail"]}
        for name, key in (("best", "best"), ("paper's", "paper")):
            row[name] = format_percent(status[key] and get_score(status[key]))
        rows.append(row | {f"{device}-hours": f"{status['device_hours']:.2f}"})
    hours = first["budget_device_hours"]
    limit = f" or {hours:g} {device}-hours" if hours else ""
    judged = describe_judged(get_metric(first["best"] or {})) or " accuracies"
    return rows, f"held-out{judged}; each method gets {first['budget_trials']} trials{limit}"


def print_comparison_status(status: dict[str, Any]) -> None:
    """Prints what `store.status.get_comparison_status` says: a row for each method, then what is special."""
    methods = status["methods"]
    reason = f", {status['stop_reason']}" if status["stop_reason"] else ""
    print_lines([f"{status['study']}: {status['state']}{reason}"])
    rows, caption = make_method_rows(methods)
    print_table(rows)
    print_lines([caption])
    for method, run in methods.items():
        judged = describe_judged(get_metric(run["best"] or {}))
        for role, accuracies in run["test_accuracies"].items():
            mean = sum(accuracies) / len(accuracies)
            print_lines([f"test      {method}, {role}: {mean:.2f} %{judged} (n = {len(accuracies)})"], 10)
        for failure in run["failures"][:3]:
            line = f"failed    {method}, trial {failure['trial']}: {failure['reason']}"
            print_lines([line], 10)
    if status["lock_holder"]:
        print_lines([f"driver    {status['lock_holder']}"], 10)


def print_comparison_plan(plans: Mapping[str, Any]) -> None:
    """Prints the Plan of each method: what it searches, and how far its budget reaches."""
    first = next(iter(plans.values()))
    rows = []
    for method, plan in plans.items():
        times = (plan.trial_seconds, plan.confirm_seconds)
        trial, confirm = ("-" if seconds is None else format_duration(seconds) for seconds in times)
        trials, hours = _estimate_search(plan)
        row = {"method": method, "fields": len(plan.space), "one trial": trial, "trials": trials}
        row |= {f"{first.device}-hours": hours, "confirm": confirm}
        rows.append(row | {"banks MiB": f"{plan.bank_bytes / 2**20:.1f}"})
    print_table(rows)
    print_lines([f"  resources  {first.resources}"], 13)
    if first.not_measured:
        reason = f"not measured: {first.not_measured}; see --images-per-second and --probe"
        print_lines([f"    seconds  {reason}"], 13)
    students = {name: words for plan in plans.values() for name, words in plan.students.items()}
    print_lines(f"{name}: {words}" for name, words in students.items())
    print_lines(dict.fromkeys(line for plan in plans.values() for line in plan.search_warnings))


def _estimate_search(plan: Any) -> tuple[str, str]:
    """About how many trials a method gets, and their device-hours: the budget's where these are fewer."""
    if plan.pruned_seconds is None:
        return str(plan.trials), "-" if plan.device_hours is None else f"{plan.device_hours:g}"
    hours = plan.pruned_seconds * plan.devices_per_trial / 3600  # of all trials
    limit = plan.device_hours
    if limit is None or limit >= hours:
        return str(plan.trials), format_number(hours)
    return f"about {max(1, round(plan.trials * limit / hours))}", format_number(limit)

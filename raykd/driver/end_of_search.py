"""When a search ends before its trials are used up."""

import math
import time
from typing import Any

from raykd.store import file_names
from raykd.store.run_files import RunFiles
from raykd.store.status import device_hours
from raykd.study.study import Study

MAX_INITIAL_FAILURES = 5  # so many trials failed with errors and none succeeded: the study ends
MAX_INITIAL_DIVERGENCES = 20  # so many trials failed or diverged and none succeeded: likewise


class EndOfSearch:
    """Knows why a search ends early.

    Args:
        study: The study; its budget/hours count from now.
        run_files: Of its run.
    """

    def __init__(self, study: Study, run_files: RunFiles) -> None:
        self.reason = ""  # why the search has ended
        self._study, self._run_files = study, run_files
        hours = study.budget.hours
        self._deadline = time.monotonic() + 3600 * hours if hours else None
        self._diverged: dict[int, bool] = {}  # of failed trials, as long as none succeeded

    def is_reached(self, rows: list[dict[str, Any]], are_begun: bool = False) -> bool:
        """Returns whether the search has ended, given the rows of all its trials; then `reason` says why.

        Begun trials that wait to go on (`are_begun`) are within the device-hours already.
        """
        budget = self._study.budget
        if reason := self._describe_initial_failures(rows):
            self.reason = reason
        if self._deadline and time.monotonic() > self._deadline:
            self.reason = f"budget/hours = {budget.hours:g} is used up"
        if budget.device_hours and not are_begun and self.device_hours_part(rows) >= 1:
            self.reason = f"budget/device_hours = {budget.device_hours:g} is used up"
        return bool(self.reason)

    def device_hours_part(self, rows: list[dict[str, Any]], at_end: bool = False) -> float:
        """Returns the part of the device-hours that is used up; 0 where the budget has no limit on them.

        Args:
            rows: Of all trials.
            at_end: Whether running trials count with all their epochs. Then a search that begins one only
                below 1 passes its budget by less than one trial, however many run at once. The part is
                infinite until a first epoch shows what they take.
        """
        limit = self._study.budget.device_hours
        if limit is None:
            return 0.0
        if at_end:
            rows = _extrapolate_seconds(rows, self._study.recipe.epochs)
        return device_hours(self._study.to_dict(), rows) / limit

    def _describe_initial_failures(self, rows: list[dict[str, Any]]) -> str:
        """Why it makes no sense to go on: no trial succeeded. When one diverges, its point may be bad."""
        ended = [row for row in rows if row["state"] in ("COMPLETE", "PRUNED", "FAIL")]
        failed = [row for row in ended if row["state"] != "COMPLETE" and row["reason"]]
        if len(failed) < len(ended):
            return ""
        errors = [row for row in failed if not self._has_diverged(row["number"])]
        for trials, limit, verb in (
            (errors, MAX_INITIAL_FAILURES, "failed"),
            (failed, MAX_INITIAL_DIVERGENCES, "failed or diverged"),
        ):
            if len(trials) >= limit:
                return f"the first {limit} trials {verb}, the last with: {trials[-1]['reason']}"
        return ""

    def _has_diverged(self, number: int) -> bool:
        if number not in self._diverged:
            failure = self._run_files.trial(number).read_json(file_names.FAILURE)
            self._diverged[number] = failure is not None and failure["kind"] == "diverged"
        return self._diverged[number]


def _extrapolate_seconds(rows: list[dict[str, Any]], num_epochs: int) -> list[dict[str, Any]]:
    """The rows, those of running trials with the seconds of all epochs, at their own pace or the mean one."""
    started = [row for row in rows if row["epochs"]]
    seconds, epochs = sum(row["seconds"] for row in started), sum(row["epochs"] for row in started)
    mean = seconds / epochs if epochs else math.inf
    return [
        row | {"seconds": num_epochs * (row["seconds"] / row["epochs"] if row["epochs"] else mean)}
        if row["state"] in ("RUNNING", "WAITING")
        else row
        for row in rows
    ]

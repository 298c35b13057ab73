"""When a search ends before its trials are used up."""

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

    def is_reached(self, rows: list[dict[str, Any]]) -> bool:
        """Returns whether the search has ended, given the rows of all its trials; then `reason` says why."""
        budget = self._study.budget
        if reason := self._describe_initial_failures(rows):
            self.reason = reason
        if self._deadline and time.monotonic() > self._deadline:
            self.reason = f"budget/hours = {budget.hours:g} is used up"
        if budget.device_hours and device_hours(self._study.to_dict(), rows) > budget.device_hours:
            self.reason = f"budget/device_hours = {budget.device_hours:g} is used up"
        return bool(self.reason)

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

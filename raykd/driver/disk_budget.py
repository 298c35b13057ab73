"""The room that a run has: the study's cap on its files (budget/disk_gb), and the disk below them.

Only the students of the best trials (`keep`) are kept at all. What may go when room is short: those of trials
beside the best, the oldest first, then those of retrained controls. Rows, recipes, checkpoints of what is
under way and the best student stay.
"""

import shutil
from collections.abc import Container
from typing import Any

from raykd.store import file_names
from raykd.store.run_files import RunFiles
from raykd.store.status import rank_trials
from raykd.study.study import Study

MIN_FREE_BYTES = 32 * 10**6  # bytes; a disk with less is full


class DiskBudget:
    """Keeps the best trials' students, and makes room for trials.

    Args:
        study: The study, with its cap.
        run_files: Of its run.
    """

    def __init__(self, study: Study, run_files: RunFiles) -> None:
        self._run_files, self._max_gigabytes, self._keep = run_files, study.budget.disk_gb, study.keep
        self._removed: set[int] = set()  # trials whose students were removed by `keep_best`
        self._largest_trial = 0  # bytes of a trial under way, as far as one was seen

    def keep_best(self, rows: list[dict[str, Any]], front: Container[int]) -> None:
        """Removes the students of all but the best trials and those of a Pareto front."""
        for row in rank_trials(rows)[self._keep :]:
            if row["number"] not in front and row["number"] not in self._removed:
                self._removed.add(row["number"])
                self._run_files.trial(row["number"]).remove(file_names.STUDENT)

    def make_room(self, rows: list[dict[str, Any]], running: list[int], num_new: int = 1) -> str:
        """Returns why there is no room for `num_new` trials beside the running ones; "" when there is.

        What may go, goes first.
        """
        if self._run_files.folder.local is None and self._max_gigabytes is None:
            return ""
        expected_bytes = self._estimate_bytes(running, num_new)
        while reason := self._find_shortage(expected_bytes):
            if not self._remove_a_student(rows):
                return reason
        return ""

    def _estimate_bytes(self, running: list[int], num_new: int) -> int:
        """Bytes still to be written: by new trials, and by running ones without a checkpoint."""
        for number in running:
            sizes = self._run_files.trial(number).file_sizes()
            self._largest_trial = max(self._largest_trial, sum(sizes.values()))
            num_new += file_names.CHECKPOINT not in sizes
        return num_new * self._largest_trial

    def _find_shortage(self, expected_bytes: int) -> str:
        path = self._run_files.folder.local
        if path is not None and (free_bytes := shutil.disk_usage(path).free) < max(
            expected_bytes, MIN_FREE_BYTES
        ):
            return f"the disk of {path} is full: {free_bytes / 1e6:.1f} MB are free"
        if self._max_gigabytes is None:
            return ""
        used_bytes = sum(self._run_files.folder.file_sizes().values())
        if used_bytes + expected_bytes <= self._max_gigabytes * 1e9:
            return ""
        return (
            f"budget/disk_gb = {self._max_gigabytes:g} is used up: the run takes {used_bytes / 1e9:.4g} GB, "
            f"of which nothing may go, and {expected_bytes / 1e9:.4g} GB are still to be written"
        )

    def _remove_a_student(self, rows: list[dict[str, Any]]) -> bool:
        """Remove one student; whether there was one."""
        runners_up = sorted(rank_trials(rows)[1:], key=lambda row: row["ended"])
        folders = [self._run_files.trial(row["number"]) for row in runners_up]
        folders += [
            self._run_files.confirmation(row["role"], row["seed"])
            for row in self._run_files.confirmations()
            if row["role"] != "best"
        ]
        for folder in folders:
            if folder.exists(file_names.STUDENT):
                folder.remove(file_names.STUDENT)
                return True
        return False

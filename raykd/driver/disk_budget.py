"""The room that a run has: the study's cap on its files (budget/disk_gb), and the disk below them.

What may go when room is short: the students of trials beside the best, the oldest first, then those of
retrained controls. Rows, recipes, checkpoints of what is under way and the best student stay.
"""

import shutil
from typing import Any

from raykd.store.run_files import Ledger
from raykd.store.status import leaders
from raykd.study.study import Study

RESERVE = 32 * 10**6  # bytes; a disk with less is full
STUDENT = "student.safetensors"


class Disk:
    def __init__(self, study: Study, ledger: Ledger) -> None:
        self._ledger, self._gigabytes = ledger, study.budget.disk_gb
        self._largest = 0  # bytes of a trial under way, as far as one was seen

    def full(self, rows: list[dict[str, Any]], live: list[int], coming: int = 1) -> str:
        """Why there is no room for `coming` trials beside the live ones; "" when there is. What may go, goes
        first.
        """
        if self._ledger.folder.local is None and self._gigabytes is None:
            return ""
        expected = self._expected(live, coming)
        while reason := self._short(expected):
            if not self._let_go(rows):
                return reason
        return ""

    def _expected(self, live: list[int], coming: int) -> int:
        """Bytes still to be written: by the trials that come, and by the live ones without a checkpoint."""
        for number in live:
            sizes = self._ledger.trial(number).sizes()
            self._largest = max(self._largest, sum(sizes.values()))
            coming += "checkpoint.pt" not in sizes
        return coming * self._largest

    def _short(self, expected: int) -> str:
        path = self._ledger.folder.local
        if path is not None and (free := shutil.disk_usage(path).free) < max(expected, RESERVE):
            return f"the disk of {path} is full: {free / 1e6:.1f} MB are free"
        if self._gigabytes is None:
            return ""
        used = sum(self._ledger.folder.sizes().values())
        if used + expected <= self._gigabytes * 1e9:
            return ""
        return (
            f"budget/disk_gb = {self._gigabytes:g} is used up: the run takes {used / 1e9:.4g} GB, of which "
            f"nothing may go, and {expected / 1e9:.4g} GB are still to be written"
        )

    def _let_go(self, rows: list[dict[str, Any]]) -> bool:
        """Remove one student; whether there was one."""
        beside = sorted(leaders(rows)[1:], key=lambda row: row["ended"])
        folders = [self._ledger.trial(row["number"]) for row in beside]
        folders += [
            self._ledger.confirmation(row["role"], row["seed"])
            for row in self._ledger.confirmations()
            if row["role"] != "best"
        ]
        for folder in folders:
            if folder.exists(STUDENT):
                folder.remove(STUDENT)
                return True
        return False

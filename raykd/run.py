"""A run as users hold it in code: tables of trials and epochs, the best recipe, the export."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from raykd.export import best, export
from raykd.ledger import Ledger
from raykd.recipe import Recipe
from raykd.study import Study


class Run:
    """One study's run, finished or not. Opening it needs no Ray and no GPU."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    @staticmethod
    def open(path: str | Path) -> "Run":
        """A run's folder or URI. BadInput when there is none."""
        return Run(Ledger.open(str(path)))

    def trials(self) -> pa.Table:
        """One row a trial.

        number; role (paper, first, searched); state; accuracy (held-out %, averaged weights, last epoch it
        reached); epochs; started, ended (unix seconds); reason; one column for each drawn field, named by
        its path.
        """
        rows = self.ledger.trials()
        paths = sorted({path for row in rows for path in row["drawn"]})
        plain = ("number", "role", "state", "accuracy", "epochs", "started", "ended", "reason")
        columns: dict[str, Any] = {name: [row[name] for row in rows] for name in plain}
        columns |= {path: [row["drawn"].get(path) for row in rows] for path in paths}
        return pa.table(columns)

    def epochs(self) -> pa.Table:
        """One row an epoch of each trial.

        trial; epoch (1-based); accuracy, accuracy_raw (held-out %, averaged and raw weights); lr; seconds;
        teacher_seconds; images_per_second; term/<name> (raw loss terms, mean over the epoch).
        """
        rows = [
            {"trial": row["number"], **{k: v for k, v in epoch.items() if k != "terms"}}
            | {f"term/{name}": value for name, value in epoch["terms"].items()}
            for row in self.ledger.trials()
            for epoch in self.ledger.epochs(row["number"])
        ]
        return pa.Table.from_pylist(rows)

    def best(self) -> Recipe:
        """The recipe of the best complete trial by held-out accuracy. BadInput when none is complete."""
        row = best(self.ledger)
        return Study.parse(self.ledger.study(), self.ledger.name).drawn(row["drawn"])

    def export(self, out: str | Path) -> Path:
        """The best trial as a folder: recipe.yaml, student.safetensors, README.md."""
        return export(self.ledger, Path(out))


def launch(study: Study, *, storage: str = "runs", address: str | None = None) -> Run:
    """Begin a study's run, or go on with it, to its end. See raykd.driver.launch."""
    from raykd import driver

    return Run(driver.launch(study, storage=storage, address=address))

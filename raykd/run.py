"""A run as users hold it in code: tables of trials and epochs, the best recipe, the export."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from raykd.export.choice import best_trial
from raykd.export.export import export
from raykd.metric import get_metric, select_scores
from raykd.store import file_names
from raykd.store.plugin_copies import require_plugins
from raykd.store.run_files import RunFiles
from raykd.study.comparison import Comparison
from raykd.study.recipe import Recipe
from raykd.study.study import Study


class Run:
    """One study's run, finished or not. Opening it needs no Ray and no GPU."""

    def __init__(self, files: RunFiles) -> None:
        self.files = files

    @staticmethod
    def open(path: str | Path) -> "Run":
        """A run's folder or URI. UserError when there is none."""
        return Run(RunFiles.open(str(path)))

    def trials(self) -> pa.Table:
        """One row a trial.

        number: of the trial; role: paper, enqueued, shared or searched; state: COMPLETE, PRUNED, FAIL,
        RUNNING or WAITING; accuracy: held-out %, averaged weights, at the last epoch it reached; where the
        study is judged by another metric, that one under its own name; epochs: finished ones; started, ended:
        unix time; seconds: for which it held its devices; reason: why it failed, else empty;
        seconds_per_epoch: wall-clock; parameters: of the student; and one column for each searched field,
        named by its path in the recipe, null where the trial has none.
        """
        rows = self.files.trials()
        paths = sorted({path for row in rows for path in row["params"]})
        metrics = dict.fromkeys(get_metric(row) for row in rows)
        names = [
            "number", "role", "state", *dict.fromkeys(["accuracy", *metrics]), "epochs", "started", "ended",
            "seconds", "reason", "seconds_per_epoch", "parameters",
        ]  # fmt: skip
        columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in names}
        columns |= {path: [row["params"].get(path) for row in rows] for path in paths}
        return pa.table(columns)

    def epochs(self) -> pa.Table:
        """One row an epoch of each trial.

        trial: its number; epoch: 1 is the first; accuracy, accuracy_raw: held-out %, of averaged and raw
        weights; lr: learning rate; seconds, teacher_seconds: wall-clock, the whole epoch and waiting for the
        teacher in it; teacher_hits, teacher_misses: views read from the teacher's cache, and not;
        teacher_seconds_saved: by the hits; images_per_second: training images; term/<name>: raw loss terms,
        mean over the epoch, before their weights.
        """
        rows = [
            {"trial": row["number"], **{k: v for k, v in epoch.items() if k != "terms"}}
            | {f"term/{name}": value for name, value in epoch["terms"].items()}
            for row in self.files.trials()
            for epoch in self.files.epochs(row["number"])
        ]
        return pa.Table.from_pylist(rows)

    def confirmations(self) -> pa.Table:
        """One row a retraining on the full training set that has opened the test set.

        role: best, leader2 .., paper, or a control's name; seed: of the retraining; trial: the number of the
        trial whose recipe it is, null for controls; split: what the accuracy is of; accuracy: %, averaged
        weights, last epoch (metric, and its value under its name, where the study is judged by another one);
        epochs: finished ones; seconds: wall-clock, of all epochs.
        """
        return pa.Table.from_pylist(
            [
                {
                    "role": row["role"], "seed": row["seed"], "trial": row["number"], "split": row["split"],
                    **select_scores(epochs[-1], "test_"), "epochs": len(epochs),
                    "seconds": sum(epoch["seconds"] for epoch in epochs),
                }
                for row in self.files.confirmations()
                if (epochs := self.files.confirmation(row["role"], row["seed"]).read_json(file_names.EPOCHS))
                and "test_accuracy" in epochs[-1]
            ]
        )  # fmt: skip

    def best(self) -> Recipe:
        """The recipe of the best complete trial by the held-out metric. UserError when none is complete."""
        row = best_trial(self.files)
        require_plugins(self.files.folder)
        return Study.parse(self.files.study(), self.files.name).recipe_with(row["params"])

    def export(self, out: str | Path, trial: int | None = None) -> Path:
        """The study's result, or a trial, as a folder: recipe, weights in three forms, a card."""
        export(self.files, Path(out), trial)
        return Path(out)


def launch(study: Study, *, storage: str = "runs", address: str | None = None) -> Run:
    """Begin a study's run, or go on with it, to its end. See raykd.driver.launch."""
    from raykd.driver import launch

    return Run(launch.launch(study, storage=storage, address=address))


def compare(study: Comparison, *, storage: str = "runs", address: str | None = None) -> dict[str, Run]:
    """Begin the run of a study of several methods, or go on with it, to its end: {method: its run}."""
    from raykd.driver import launch

    owner = launch.launch(study, storage=storage, address=address)
    return {files.name: Run(files) for files in owner.list_runs()}

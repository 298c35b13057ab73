"""Which student of a run is handed on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raykd.errors import BadInput
from raykd.store.folder import Folder
from raykd.store.run_files import Ledger
from raykd.store.status import leaders
from raykd.study.recipe import Recipe
from raykd.teachers.teacher import file_sha256
from raykd.training import trial
from raykd.training.student import WEIGHTS, recipe_of


@dataclass(frozen=True)
class Chosen:
    """A taught student of a run."""

    row: dict[str, Any]  # of the trial whose settings it has
    folder: Folder  # of the trial, or of the retraining with these settings
    recipe: Recipe  # by which exactly these weights were taught
    confirmed: bool  # whether it is the confirmation's: taught on the full training set


def best(ledger: Ledger) -> dict[str, Any]:
    """The row of the best complete trial, by held-out accuracy of the averaged weights at the last epoch."""
    complete = leaders(ledger.trials())
    if not complete:
        raise BadInput([f"{ledger.folder.uri}: no trial is complete yet"])
    return complete[0]


def chosen(ledger: Ledger, number: int | None) -> Chosen:
    """The trial of that number. Without one: the best trial's settings, retrained on the full training set
    with seed 1 where the study has confirmed them, else the best trial itself.
    """
    row = best(ledger) if number is None else _row(ledger, number)
    folder = ledger.trial(row["number"])
    again = ledger.confirmation("best", 1)
    said = again.read_json("trial.json") or {}
    confirmed = number is None and said.get("number") == row["number"] and again.exists(WEIGHTS)
    if confirmed:
        folder = again
    if not folder.exists(WEIGHTS):
        raise BadInput([f"{folder.uri}: its student is not kept (study: keep = {ledger.study()['keep']})"])
    return Chosen(row, folder, recipe_of(folder), confirmed)


def teacher_at(taken: Chosen, root: Path) -> tuple[str, str | None]:
    """Where the teacher's weights lay ("" where that is not known), and their SHA-256 if they still do."""
    place = str((taken.folder.read_json("stamp.json") or {}).get("teacher", ""))
    asked, file = taken.recipe.teacher, Path(trial.weights_here(place, root / "teachers"))
    if asked is not None and asked.sha256 is not None:
        return place, asked.sha256
    return place, file_sha256(file) if file.is_file() else None


def handed_on(taken: Chosen, root: Path) -> Recipe:
    """The recipe that teaches these weights again. A retraining names the study's own teacher by its file:
    from its own data, in which nothing is held out, another teacher would be trained.
    """
    place, sha256 = teacher_at(taken, root)
    teacher = taken.recipe.teacher
    if not taken.confirmed or teacher is None or teacher.train is None or sha256 is None:
        return taken.recipe
    return taken.recipe.changed({"teacher": {"net": teacher.net, "weights": place, "sha256": sha256}})


def _row(ledger: Ledger, number: int) -> dict[str, Any]:
    rows = {row["number"]: row for row in ledger.trials()}
    if number not in rows:
        raise BadInput([f"{ledger.folder.uri}: no trial {number}; there are 0 to {max(rows, default=-1)}"])
    return rows[number]

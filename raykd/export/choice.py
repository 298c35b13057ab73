"""Which student of a run is handed on."""

from dataclasses import dataclass
from typing import Any

from raykd.ledger import Ledger
from raykd.ledger.folder import Folder
from raykd.mistakes import BadInput
from raykd.recipe import Recipe
from raykd.standing import leaders
from raykd.student import WEIGHTS, recipe_of


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


def _row(ledger: Ledger, number: int) -> dict[str, Any]:
    rows = {row["number"]: row for row in ledger.trials()}
    if number not in rows:
        raise BadInput([f"{ledger.folder.uri}: no trial {number}; there are 0 to {max(rows, default=-1)}"])
    return rows[number]

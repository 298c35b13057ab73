"""Which student of a run is handed on."""

from dataclasses import dataclass
from typing import Any

from raykd.errors import UserError
from raykd.store import file_names
from raykd.store.folder import Folder
from raykd.store.run_files import RunFiles
from raykd.store.status import rank_trials
from raykd.study.recipe import Recipe, TeacherSpec
from raykd.training.start import compute_sha256, fetch_weights
from raykd.training.student import read_recipe


@dataclass(frozen=True)
class StudentChoice:
    """A trained student of a run."""

    row: dict[str, Any]  # of the trial whose settings it has
    folder: Folder  # of the trial, or of the retraining with these settings
    recipe: Recipe  # by which exactly these weights were trained
    confirmed: bool  # whether it is the confirmation's: trained on the full training set


def best_trial(run_files: RunFiles) -> dict[str, Any]:
    """Returns the row of the best complete trial (`status.rank_trials`); UserError without one."""
    ranked = rank_trials(run_files.trials())
    if not ranked:
        within = " that is within the constraints" if run_files.students() else ""
        raise UserError([f"{run_files.folder.uri}: no trial{within} is complete yet"])
    return ranked[0]


def choose_student(run_files: RunFiles, number: int | None) -> StudentChoice:
    """Returns the student of the trial of that number.

    Without a number: of the best trial's settings, retrained on the full training set with seed 1 where the
    study has confirmed them, else of the best trial itself.

    Raises:
        UserError: There is no such trial, or its student is not kept.
    """
    row = best_trial(run_files) if number is None else _find_row(run_files, number)
    folder = run_files.trial(row["number"])
    retraining = run_files.confirmation("best", 1)
    retraining_row = retraining.read_json(file_names.TRIAL) or {}
    confirmed = (
        number is None
        and retraining_row.get("number") == row["number"]
        and retraining.exists(file_names.STUDENT)
    )
    if confirmed:
        folder = retraining
    if not folder.exists(file_names.STUDENT):
        raise UserError(
            [f"{folder.uri}: its student is not kept (study: keep = {run_files.study()['keep']})"]
        )
    return StudentChoice(row, folder, read_recipe(folder), confirmed)


def locate_teachers(choice: StudentChoice) -> list[tuple[str, str | None]]:
    """Returns where each teacher's weights lay ("": not known), and their SHA-256 if they still do."""
    uris = (choice.folder.read_json(file_names.PROVENANCE) or {}).get("teachers") or []
    teachers = choice.recipe.list_teachers()
    return [
        _locate(teacher, uri) for teacher, uri in zip(teachers, uris or [""] * len(teachers), strict=True)
    ]


def _locate(teacher: TeacherSpec, uri: str) -> tuple[str, str | None]:
    if not uri:
        return uri, None
    teacher = teacher.with_weights(uri)
    if teacher.sha256 is not None:
        return uri, teacher.sha256
    file = fetch_weights(teacher, None, download=False)
    return uri, compute_sha256(file) if file.is_file() else None


def make_export_recipe(choice: StudentChoice) -> Recipe:
    """Returns the recipe that trains these weights again.

    A retraining names the study's own teacher by its file: from its own data, in which nothing is held out,
    another teacher would be trained.
    """
    plain = choice.recipe.to_dict()
    settings = [plain["teacher"]] if choice.recipe.teacher else plain["teachers"]
    for teacher, (uri, sha256) in zip(settings, locate_teachers(choice), strict=True):
        if choice.confirmed and teacher["train"] and sha256 is not None:
            teacher |= {"weights": uri, "sha256": sha256, "head": "loaded", "train": None}
    return choice.recipe.with_settings(plain)


def _find_row(run_files: RunFiles, number: int) -> dict[str, Any]:
    rows = {row["number"]: row for row in run_files.trials()}
    if number not in rows:
        raise UserError(
            [f"{run_files.folder.uri}: no trial {number}; there are 0 to {max(rows, default=-1)}"]
        )
    return rows[number]

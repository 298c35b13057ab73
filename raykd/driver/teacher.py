"""The study's teacher: named by its file, stored by an earlier study, or trained once and stored."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from raykd.driver import trainables
from raykd.driver.job import EventHandler, make_trial_job
from raykd.driver.resources import get_size
from raykd.driver.session import MAX_LOST_WORKERS
from raykd.store import file_names
from raykd.store.folder import Folder, join_uri
from raykd.store.run_files import RunFiles, drop_checkpoints
from raykd.study.recipe import Recipe, digest, make_teacher_recipe
from raykd.study.study import Study


class TeacherTrainingError(RuntimeError):
    """The study's teacher could not be trained."""


def get_teacher_weights(
    study: Study, run_files: RunFiles, root: Path, download: bool, on_event: EventHandler
) -> str:
    """Returns the file of the teacher's weights; "" where the study has no teacher.

    Named by the study, stored by an earlier one, or trained now and stored.

    Raises:
        TeacherTrainingError: It could not be trained; says why.
    """
    teacher = study.recipe.teacher
    if teacher is None:
        return ""
    if teacher.train is None:
        return teacher.weights or ""
    folder = run_files.folder / file_names.TEACHER
    weights = find_stored_teacher(study.recipe, run_files.storage)
    if weights is None:
        on_event("teacher", {"net": teacher.net})
        workers = study.confirm.workers if study.confirm else study.cluster.workers
        job = make_trial_job("", root, download, study, make_teacher_recipe(study.recipe), folder.uri)
        train = partial(trainables.run_train_job, [job], workers, get_size(study), "teacher", False)
        if reason := _train_with_retries(train, folder):
            raise TeacherTrainingError(f"the teacher {teacher.net} was not trained: {reason}")
        weights = store_teacher(study.recipe, folder, run_files.storage)
    else:
        _clear(folder)  # of a driver that was killed when it had stored the teacher
    return weights


def _train_with_retries(train: Callable[[], None], folder: Folder) -> str:
    """Trains, again from the checkpoint whenever a process or machine is lost; returns what failed, or ""."""
    from ray.train import TrainingFailedError

    for _ in range(MAX_LOST_WORKERS):
        folder.remove(file_names.FAILURE)
        try:
            train()
        except TrainingFailedError:
            if failure := folder.read_json(file_names.FAILURE):
                return str(failure["reason"])
        else:
            return ""
    return f"its process or machine was lost {MAX_LOST_WORKERS} times"


def find_stored_teacher(recipe: Recipe, storage: Folder) -> str | None:
    """Returns the file or URI of the teacher that a recipe trains; None where the storage has none."""
    folder, name = storage / file_names.TEACHERS, _teacher_file_name(recipe)
    return join_uri(folder.uri, name) if folder.exists(name) else None


def store_teacher(recipe: Recipe, folder: Folder, storage: Folder) -> str:
    """Moves a trained teacher's weights into the storage; returns where they are then."""
    (storage / file_names.TEACHERS).write(_teacher_file_name(recipe), folder.read(file_names.STUDENT))
    _clear(folder)
    return join_uri((storage / file_names.TEACHERS).uri, _teacher_file_name(recipe))


def _clear(folder: Folder) -> None:
    """What is not needed once the teacher is stored."""
    folder.remove(file_names.STUDENT)
    drop_checkpoints(folder)


def _teacher_file_name(recipe: Recipe) -> str:
    """Named by the hash of all that decides it."""
    assert recipe.teacher is not None
    return f"{recipe.teacher.net}-{digest(make_teacher_recipe(recipe))}.safetensors"

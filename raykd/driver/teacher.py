"""A study's teachers: named by their files, stored by an earlier study, or trained once and stored."""

from collections.abc import Callable
from pathlib import Path

from raykd.driver import trainables
from raykd.driver.job import EventHandler, make_trial_job
from raykd.driver.resources import choose_workers, get_size, list_nodes, worker_slots
from raykd.driver.session import MAX_LOST_WORKERS
from raykd.store import file_names
from raykd.store.folder import Folder, join_uri
from raykd.store.run_files import RunFiles, drop_checkpoints
from raykd.study.cluster import Workers
from raykd.study.recipe import Recipe, TeacherSpec, digest, make_teacher_recipe
from raykd.study.study import Study
from raykd.training.failure import is_lost, is_preempted
from raykd.training.trial import Job


class TeacherTrainingError(RuntimeError):
    """The study's teacher could not be trained."""


def get_teacher_weights(
    study: Study, run_files: RunFiles, root: Path, download: bool, on_event: EventHandler
) -> tuple[str, ...]:
    """Returns the file of each teacher's weights.

    Named by the study, stored by an earlier one, or trained now and stored.

    Raises:
        TeacherTrainingError: One could not be trained; says why.
    """

    def get_weights(place: str, teacher: TeacherSpec) -> str:
        if teacher.train is None:
            return str(teacher.weights)
        recipe, folder = make_teacher_recipe(study.recipe, teacher), run_files.folder / place
        if weights := find_stored_teacher(recipe, run_files.storage):
            _clear(folder)  # of a driver that was killed when it had stored the teacher
            return weights
        on_event("teacher", {"net": teacher.net})
        _train(study, recipe, make_trial_job((), root, download, study, recipe, folder.uri))
        return store_teacher(recipe, folder, run_files.storage)

    teachers = study.recipe.list_teachers()
    places = [file_names.TEACHER] if study.recipe.teacher else file_names.list_teacher_folders(len(teachers))
    return tuple(map(get_weights, places, teachers))


def _train(study: Study, recipe: Recipe, job: Job) -> None:
    """TeacherTrainingError when it fails."""
    size, workers = get_size(study), study.cluster.workers
    if study.confirm:
        workers = Workers(min=study.confirm.workers, max=study.confirm.workers)

    def train() -> None:
        count = choose_workers(recipe, workers, worker_slots(list_nodes(), size))
        trainables.run_train_job([job], count, size, "teacher", False, workers.min < workers.max)

    if reason := _train_with_retries(train, Folder(job.folder)):
        raise TeacherTrainingError(f"the teacher {recipe.student.net} was not trained: {reason}")


def _train_with_retries(train: Callable[[], None], folder: Folder) -> str:
    """Trains, again from the checkpoint whenever a process or machine is lost; returns what failed, or ""."""
    from ray.train import TrainingFailedError

    num_crashes = 0
    while num_crashes < MAX_LOST_WORKERS:
        folder.remove(file_names.FAILURE)
        try:
            train()
        except TrainingFailedError:
            failure = folder.read_json(file_names.FAILURE)
            if failure is not None and not is_lost(failure):
                return str(failure["reason"])
            num_crashes += not is_preempted(failure)
        else:
            return ""
    return f"its process or machine was lost {MAX_LOST_WORKERS} times"


def find_stored_teacher(recipe: Recipe, storage: Folder) -> str | None:
    """Returns the file or URI of a teacher by its own recipe; None where the storage has none."""
    folder, name = storage / file_names.TEACHERS, _teacher_file_name(recipe)
    return join_uri(folder.uri, name) if folder.exists(name) else None


def store_teacher(recipe: Recipe, folder: Folder, storage: Folder) -> str:
    """Moves a teacher's weights, trained by its own recipe, into the storage; returns where they are then."""
    (storage / file_names.TEACHERS).write(_teacher_file_name(recipe), folder.read(file_names.STUDENT))
    _clear(folder)
    return join_uri((storage / file_names.TEACHERS).uri, _teacher_file_name(recipe))


def _clear(folder: Folder) -> None:
    """What is not needed once the teacher is stored."""
    folder.remove(file_names.STUDENT)
    drop_checkpoints(folder)


def _teacher_file_name(recipe: Recipe) -> str:
    """Named by the hash of all that decides it."""
    return f"{recipe.student.net.replace('/', '--')}-{digest(recipe)}.safetensors"

"""The study's teacher: named by its file, kept from before, or trained once and kept."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from raykd.driver import trainables
from raykd.driver.job import Tell, trial_job
from raykd.driver.session import LOSSES
from raykd.store.folder import Folder, joined
from raykd.store.run_files import Ledger, settle
from raykd.study.recipe import Recipe, digest, teacher_recipe
from raykd.study.study import Study


class Untaught(RuntimeError):
    """The study's teacher could not be trained."""


def teacher_weights(study: Study, ledger: Ledger, root: Path, download: bool, tell: Tell) -> str:
    """The file of the teacher's weights: named by the study, kept from before, or trained now and kept."""
    teacher = study.recipe.teacher
    if teacher is None:
        return ""
    if teacher.weights is not None:
        return teacher.weights
    kept = kept_teacher(study.recipe, ledger.storage)
    if kept is None:
        tell("teacher", {"net": teacher.net})
        workers = study.confirm.workers if study.confirm else study.cluster.workers
        folder, cluster = ledger.folder / "teacher", study.cluster
        job = trial_job(study, "", root, download, teacher_recipe(study.recipe), folder.uri)
        train = partial(trainables.train_job, [job], workers, cluster.cpus, cluster.gpus, "teacher", False)
        if failed := _until_done(train, folder):
            raise Untaught(f"the teacher {teacher.net} was not trained: {failed}")
        kept = keep_teacher(study.recipe, folder, ledger.storage)
    return kept


def _until_done(train: Callable[[], None], folder: Folder) -> str:
    """Train, again from the checkpoint whenever a process or machine is lost; what went wrong in it, or
    "".
    """
    from ray.train import TrainingFailedError

    for _ in range(LOSSES):
        folder.remove("failure.json")
        try:
            train()
        except TrainingFailedError:
            if failure := folder.read_json("failure.json"):
                return str(failure["reason"])
        else:
            return ""
    return f"its process or machine was lost {LOSSES} times"


def kept_teacher(recipe: Recipe, storage: Folder) -> str | None:
    """The file or URI of the teacher that a recipe trains, where the storage keeps it."""
    folder, name = storage / "teachers", _teacher_name(recipe)
    return joined(folder.uri, name) if folder.exists(name) else None


def keep_teacher(recipe: Recipe, folder: Folder, storage: Folder) -> str:
    """Move a trained teacher's weights into the storage; where they are then."""
    (storage / "teachers").write(_teacher_name(recipe), folder.read("student.safetensors"))
    folder.remove("student.safetensors")
    settle(folder)
    return joined((storage / "teachers").uri, _teacher_name(recipe))


def _teacher_name(recipe: Recipe) -> str:
    """Named by the hash of all that decides it."""
    assert recipe.teacher is not None
    return f"{recipe.teacher.net}-{digest(teacher_recipe(recipe))}.safetensors"

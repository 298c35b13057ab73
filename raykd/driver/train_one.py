"""Train one recipe: in this process without Ray (the debugger's door), or as a Ray Train job of workers."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from raykd import plugins
from raykd.driver import trainables
from raykd.driver.auto_resources import can_use_gpus
from raykd.driver.launch import check_recipe
from raykd.driver.local_session import starts_session
from raykd.driver.resources import WorkerSize
from raykd.driver.session import connect
from raykd.driver.teacher import find_stored_teacher, store_teacher
from raykd.errors import UserError, validate
from raykd.paths import get_given_cache_folder
from raykd.store import file_names
from raykd.store.folder import Folder, join_uri
from raykd.store.plugin_copies import require_plugins, write_copies
from raykd.store.processors import count_cpus
from raykd.store.run_files import drop_checkpoints
from raykd.study.recipe import Recipe, TeacherSpec, digest, make_teacher_recipe, make_teacher_recipes
from raykd.study.yaml_file import override, parse_settings, read_yaml
from raykd.training import trial
from raykd.training.failure import is_preempted
from raykd.training.nonfinite import NonFiniteLoss
from raykd.training.start import pin_weights

EpochHandler = Callable[[dict[str, Any]], None]  # called with each epoch's row


@dataclass(frozen=True)
class TrainOptions:
    """Where and how; nothing of this changes what one process learns."""

    storage: str
    out: Path | None
    workers: int | None  # None: this process, no Ray
    test: bool
    data_root: Path
    download: bool
    address: str | None


TrainFunction = Callable[[trial.Job, TrainOptions, EpochHandler], None]


def read_recipe(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Returns a recipe file, checked. UserError with every mistake in it."""
    plain = read_yaml(path)
    override(plain, overrides)
    return validate(Recipe, plain, str(path))


class Trained(NamedTuple):
    """What `train` leaves."""

    row: dict[str, Any]  # of the last epoch
    folder: Folder
    was_done: bool  # before; nothing was trained now


def train(recipe: Recipe, options: TrainOptions, on_epoch: EpochHandler) -> Trained:
    """Trains a recipe to its end, from its checkpoint if there is one; one that is done stays as it is.

    A teacher that it trains is stored in the storage.

    Raises:
        UserError: The recipe cannot be trained, or the folder holds something else.
    """
    Folder(options.storage).check_reachable()
    recipe = pin_weights(recipe, options.download)
    folder = Folder(str(options.out or join_uri(options.storage, f"train-{digest(recipe)}")))
    require_plugins(folder)
    if (row := _find_trained(recipe, folder, options.test)) is not None:
        return Trained(row, folder, was_done=True)
    alone = options.workers is None or starts_session(options.address)
    check_recipe(recipe, options.data_root, options.download, alone)
    write_copies(folder)
    if options.workers is None:
        _train_teacher_and_student(recipe, folder, options, _train_here, on_epoch)
    else:
        for trained_recipe in [*make_teacher_recipes(recipe), recipe]:
            try:
                trained_recipe.check_batch_size(options.workers)
            except ValueError as error:
                raise UserError([f"--workers {options.workers}: {error}"]) from None
        with connect(options.address, folder):
            _train_teacher_and_student(recipe, folder, options, _train_with_ray, on_epoch)
    rows = folder.read_json(file_names.EPOCHS)
    drop_checkpoints(folder)
    return Trained(rows[-1], folder, was_done=False)


def _find_trained(recipe: Recipe, folder: Folder, test: bool) -> dict[str, Any] | None:
    """The last epoch's row of a recipe that a folder holds trained to its end; None when it is to be trained.

    UserError when it holds another recipe's training or student, which would be overwritten.
    """
    if folder.exists(file_names.RECIPE):
        place = join_uri(folder.uri, file_names.RECIPE)
        other = parse_settings(folder.read(file_names.RECIPE), place)
        if other != recipe.to_dict():
            raise UserError([f"{place}: another recipe than this; give another folder (--out)"])
    if not folder.exists(file_names.STUDENT) or folder.exists(file_names.CHECKPOINT):
        return None
    row: dict[str, Any] = (folder.read_json(file_names.EPOCHS) or [{}])[-1]
    if row.get("epoch") != recipe.epochs:
        raise UserError([f"{folder.uri}: holds a student that was not trained here; give another --out"])
    if test and "test_accuracy" not in row:
        raise UserError([f"{folder.uri}: trained before, without --test; to train again, give another --out"])
    return row


def _train_teacher_and_student(
    recipe: Recipe,
    folder: Folder,
    options: TrainOptions,
    train_function: TrainFunction,
    on_epoch: EpochHandler,
) -> None:
    """The teachers that are to be trained, and the student."""
    get_weights = partial(_get_teacher, recipe, options, train_function, on_epoch)
    teachers = tuple(map(get_weights, recipe.list_teachers()))
    train_function(_make_job(recipe, folder, teachers, options, options.test), options, on_epoch)


def _make_job(
    recipe: Recipe, folder: Folder, teachers: tuple[str, ...], options: TrainOptions, test: bool
) -> trial.Job:
    threads = max(1, count_cpus() // (options.workers or 1))
    return trial.Job(
        recipe.to_dict(),
        folder.uri,
        teachers,
        str(options.data_root.absolute()),
        options.download,
        threads,
        test,
        cache=get_given_cache_folder(),
        plugins=plugins.get_sources(),
    )


def _get_teacher(
    recipe: Recipe,
    options: TrainOptions,
    train_function: TrainFunction,
    on_epoch: EpochHandler,
    spec: TeacherSpec,
) -> str:
    if spec.train is None:
        return str(spec.weights)
    storage, teacher = Folder(options.storage), make_teacher_recipe(recipe, spec)
    if (weights := find_stored_teacher(teacher, storage)) is None:
        folder = storage / f"train-{digest(teacher)}"
        train_function(_make_job(teacher, folder, (), options, False), options, on_epoch)
        weights = store_teacher(teacher, folder, storage)
    return weights


def _train_here(job: trial.Job, options: TrainOptions, on_epoch: EpochHandler) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trial.run(job, on_epoch, device)


def _train_with_ray(job: trial.Job, options: TrainOptions, on_epoch: EpochHandler) -> None:
    from ray.train import TrainingFailedError

    size = WorkerSize(job.threads, 1.0 if can_use_gpus() else 0.0)
    folder = Folder(job.folder)
    folder.remove(file_names.FAILURE)
    try:
        trainables.run_train_job([job], options.workers or 1, size, folder.name, False)
    except TrainingFailedError:
        failure = folder.read_json(file_names.FAILURE)
        if failure and failure["kind"] == "diverged":
            raise NonFiniteLoss(failure["reason"]) from None
        if not is_preempted(failure):
            raise
        _train_with_ray(job, options, on_epoch)
        return
    for row in folder.read_json(file_names.EPOCHS):
        on_epoch(row)

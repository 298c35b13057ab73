"""Train one recipe: in this process without Ray (the debugger's door), or through Ray Train with several
workers.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raykd.driver import trainables
from raykd.driver.launch import check_lesson
from raykd.driver.session import connected
from raykd.driver.teacher import keep_teacher, kept_teacher
from raykd.errors import BadInput, checked
from raykd.store.folder import Folder, joined
from raykd.store.run_files import settle
from raykd.study.recipe import Recipe, digest, teacher_recipe
from raykd.study.yaml_file import override, read_yaml
from raykd.training import trial

Heard = Callable[[dict[str, Any]], None]  # what is told each epoch's row


@dataclass(frozen=True)
class Settings:
    """Where and how; nothing of this changes what one process learns."""

    storage: str
    out: Path | None
    workers: int | None  # None: this process, no Ray
    test: bool
    data_root: Path
    download: bool
    address: str | None


Work = Callable[[trial.Job, Settings, Heard], None]


def read(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """A recipe file, checked. BadInput with every mistake in it."""
    plain = read_yaml(path)
    override(plain, overrides)
    return checked(Recipe, plain, str(path))


def train(recipe: Recipe, settings: Settings, heard: Heard) -> tuple[dict[str, Any], Folder]:
    """Train a recipe to its end; the last epoch's row and the folder. A teacher that it trains is kept in
    the storage.
    """
    check_lesson(recipe, settings.data_root, settings.download)
    Folder(settings.storage).reach()
    folder = Folder(str(settings.out or joined(settings.storage, f"train-{digest(recipe)}")))
    if settings.workers is None:
        _both(recipe, folder, settings, _one_process, heard)
    else:
        own = recipe.teacher is not None and recipe.teacher.weights is None
        for one in [teacher_recipe(recipe), recipe] if own else [recipe]:
            _shareable(one, settings.workers)
        with connected(settings.address):
            _both(recipe, folder, settings, _ray_train, heard)
    rows = folder.read_json("epochs.json")
    settle(folder)
    return rows[-1], folder


def _both(recipe: Recipe, folder: Folder, settings: Settings, work: Work, heard: Heard) -> None:
    """The teacher, where there is one to train, and the student."""
    teacher = _teacher(recipe, settings, work, heard)
    work(_job(recipe, folder, teacher, settings, settings.test), settings, heard)


def _job(recipe: Recipe, folder: Folder, teacher: str, settings: Settings, test: bool) -> trial.Job:
    threads = max(1, (os.cpu_count() or 1) // (settings.workers or 1))
    return trial.Job(
        recipe.plain(),
        folder.uri,
        teacher,
        str(settings.data_root.absolute()),
        settings.download,
        threads,
        test,
    )


def _teacher(recipe: Recipe, settings: Settings, work: Work, heard: Heard) -> str:
    if recipe.teacher is None:
        return ""
    if recipe.teacher.weights is not None:
        return recipe.teacher.weights
    storage = Folder(settings.storage)
    if (kept := kept_teacher(recipe, storage)) is None:
        own = teacher_recipe(recipe)
        folder = storage / f"train-{digest(own)}"
        work(_job(own, folder, "", settings, False), settings, heard)
        kept = keep_teacher(recipe, folder, storage)
    return kept


def _one_process(job: trial.Job, settings: Settings, heard: Heard) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trial.run(job, heard, device)


def _ray_train(job: trial.Job, settings: Settings, heard: Heard) -> None:
    gpus = 1.0 if torch.cuda.is_available() else 0.0
    trainables.train_job([job], settings.workers or 1, job.threads, gpus, Folder(job.folder).name, False)
    for row in Folder(job.folder).read_json("epochs.json"):
        heard(row)


def _shareable(recipe: Recipe, workers: int) -> None:
    """BadInput when workers cannot share the batches evenly."""
    size, parts = recipe.optimizer.batch_size, recipe.optimizer.accumulate
    if size % (workers * parts):
        micro = f" in {parts} micro-batches" if parts > 1 else ""
        raise BadInput([f"--workers {workers}: optimizer/batch_size = {size} cannot be shared evenly{micro}"])

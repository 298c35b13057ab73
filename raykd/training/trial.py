"""One Recipe as one trial, in this process: `train` without Ray, and each worker of ray_trial.py.

All run the same `run`; they differ in who hears of each epoch. Checkpoints, rows and failures are
files of the trial's folder, so that whoever comes back to it, in whatever process, goes on from there.
"""

import io
import json
import os
import socket
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.distributed as dist

from raykd import data, methods, models
from raykd.data import AnyData, Dataset
from raykd.store.folder import Folder, StorageError, parted
from raykd.store.provenance import stamp
from raykd.study.recipe import Recipe, Teacher
from raykd.teachers.cached import KEPT, tabled
from raykd.teachers.teacher import Answers, LiveTeacher, NoTeacher, load
from raykd.training.analysis import analyse
from raykd.training.evaluation import autocast
from raykd.training.nonfinite import Diverged
from raykd.training.student import PREPROCESSING, WEIGHTS, preprocessing
from raykd.training.trainer import Teaching

BANKS_EVERY = 10  # epochs between two writings of large banks
KINDS: dict[type[Exception], str] = {Diverged: "diverged", StorageError: "storage"}
Report = Callable[[dict[str, Any]], None]


class Unheard(Exception):
    """Who was to hear of an epoch is gone."""


@dataclass(frozen=True)
class Job:
    """What a process must know to run a trial; plain data."""

    recipe: dict[str, Any]
    folder: str  # where this trial writes
    teacher: str  # the file of the teacher's weights; "" where the method needs none
    data_root: str
    download: bool  # whether a missing data set may be fetched
    threads: int  # CPU threads of one worker
    test: bool = False  # open the test set after the last epoch
    table: float = 8.0  # GiB of the node's disk for teachers' answers
    checkpoint_minutes: float = 10.0  # a state at least so often, inside an epoch too


def run(job: Job, report: Report, device: torch.device) -> None:
    """Train the job's recipe to its end, from its last checkpoint if there is one; `report` hears of every
    epoch.

    An error is written into the trial's folder, unless it only says that another process is gone: a worker
    has told its own, or was lost with its machine; who listened is not the trial's concern.
    """
    folder, leads = Folder(job.folder), not dist.is_initialized() or dist.get_rank() == 0
    try:
        _run(job, folder, report, device, leads)
    except Exception as error:
        if not _other_is_gone(error):
            with suppress(StorageError):
                folder.write_json("failure.json", _failure(error))
        raise


def _failure(error: Exception) -> dict[str, str]:
    kind = next((kind for known, kind in KINDS.items() if isinstance(error, known)), "error")
    message = (str(error).splitlines() or [""])[0]
    return {
        "kind": kind,
        "reason": f"{type(error).__name__}: {message}" if kind == "error" else message,
        "traceback": traceback.format_exc(),
    }


def _other_is_gone(error: Exception) -> bool:
    """Whether the listener is gone, or a collective operation failed under this worker, which Gloo says by a
    plain RuntimeError.
    """
    broken = isinstance(error, dist.DistError) or "gloo" in str(error)
    return isinstance(error, Unheard) or (dist.is_initialized() and broken)


def _run(job: Job, folder: Folder, report: Report, device: torch.device, leads: bool) -> None:
    torch.set_num_threads(job.threads)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
    recipe = Recipe.model_validate_json(json.dumps(job.recipe))
    if leads:
        folder.write_yaml("recipe.yaml", recipe.plain())
        folder.write_json("stamp.json", stamp() | _own_stamp(job, recipe, device))
    dataset = _dataset(recipe.data, Path(job.data_root), job.download)
    if leads:
        folder.write_json(PREPROCESSING, preprocessing(recipe.data, dataset))
    teaching = Teaching(recipe, dataset, _teacher(job, recipe, dataset, device), device)
    if folder.exists("checkpoint.pt"):
        banks = _load(folder, "banks.pt") if folder.exists("banks.pt") else {}
        teaching.load_state_dict(_load(folder, "checkpoint.pt"), banks)
    rows = [row for row in folder.read_json("epochs.json") or [] if row["epoch"] <= teaching.done]
    if teaching.done == recipe.epochs:
        report(_told(rows[-1], teaching))  # all was done before, but nobody heard of it
    for row in teaching.stretches(60 * job.checkpoint_minutes):
        if row is None:
            if leads:
                _save(folder, "checkpoint.pt", teaching.state_dict())
            continue
        told = dict(row)
        if job.test and teaching.done == recipe.epochs:
            told["test_accuracy"] = teaching.test_accuracy()
        rows.append(told)
        if leads:
            _keep(folder, teaching, rows)
        if leads and "test_accuracy" in told:
            folder.write_json("analysis.json", _analysis(job, teaching))
        report(_told(told, teaching))


def _own_stamp(job: Job, recipe: Recipe, device: torch.device) -> dict[str, Any]:
    """What decides a trial's numbers beside its recipe, and where it ran."""
    return {
        "seed": recipe.seed,
        "device": str(device),
        "workers": dist.get_world_size() if dist.is_initialized() else 1,
        "threads": job.threads,
        "teacher": job.teacher,
        "worker": f"{socket.gethostname()} {os.getpid()}",
    }


def _analysis(job: Job, teaching: Teaching) -> dict[str, Any]:
    """Of the deployed student, against the teacher also where the method needs none."""
    recipe, dataset = teaching.recipe, teaching.dataset
    teacher: models.Net | None = None
    if recipe.teacher is not None:
        root = Path(job.data_root)
        teacher = teacher_net(recipe.teacher, job.teacher, len(dataset.classes), root).to(teaching.device)
        teacher.to(memory_format=torch.channels_last)  # as the student, so that their speeds compare
    half = autocast(recipe, teaching.device)
    return analyse(teaching.average, teacher, dataset, teaching.source, half)


def _keep(folder: Folder, teaching: Teaching, rows: list[dict[str, Any]]) -> None:
    """The epoch's row first: one without its checkpoint is dropped on resume, the reverse loses one."""
    folder.write_json("epochs.json", rows)
    if unreadable := teaching.source.unreadable():
        folder.write_json("unreadable.json", unreadable)
    if teaching.done == teaching.recipe.epochs:
        weights = {k: v.cpu().contiguous() for k, v in teaching.average.state_dict().items()}
        folder.write(WEIGHTS, safetensors.torch.save(weights))
    if (banks := teaching.banks()) and (teaching.done - 1) % BANKS_EVERY == 0:
        _save(folder, "banks.pt", banks)
    _save(folder, "checkpoint.pt", teaching.state_dict())


def _save(folder: Folder, name: str, content: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    folder.write(name, buffer.getvalue())


def _load(folder: Folder, name: str) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(io.BytesIO(folder.read(name)), map_location="cpu", weights_only=True)
    return content


def _told(row: dict[str, Any], teaching: Teaching) -> dict[str, Any]:
    final = row["epoch"] == teaching.recipe.epochs
    return row | {"final": final, "parameters": models.num_parameters(teaching.student)}


@lru_cache(maxsize=1)
def _dataset(spec: AnyData, root: Path, download: bool) -> Dataset[Any]:
    """Kept for the next trial in the same process."""
    return data.load(spec, root, download)


def _teacher(job: Job, recipe: Recipe, dataset: Dataset[Any], device: torch.device) -> Answers:
    if recipe.teacher is None or (recipe.method.name == "ce" and recipe.plus_kd is None):
        return NoTeacher()
    net = teacher_net(recipe.teacher, job.teacher, len(dataset.classes), Path(job.data_root))
    live = LiveTeacher(net, dataset.size, device, autocast(recipe, device))
    needs = methods.module(recipe.method.name).Method.needs
    return tabled(live, recipe.data.catalogue(dataset), job.table, device) if needs <= KEPT else live


def teacher_net(teacher: Teacher, place: str, classes: int, root: Path) -> models.Net:
    """The teacher whose weights lie at `place`: a path, a URL, or a file on a storage, which is fetched."""
    return load(teacher.net, weights_here(place, root / "teachers"), classes, teacher.sha256, root)


def weights_here(place: str, cache: Path) -> str:
    """A teacher's file as a path on this machine; what lies on the web is fetched by `teachers` itself."""
    if "://" not in place or place.startswith(("http://", "https://", "file://")):
        return place
    folder, name = parted(place)
    return str(Folder(folder).fetched(name, cache))

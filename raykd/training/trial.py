"""One Recipe as one trial, in this process: `train` without Ray, and each worker of driver/trainables.py.

All run the same `run`; they differ in where each epoch is reported. Checkpoints, metrics and failures are
files of the trial's folder, so that whoever comes back to it, in whatever process, goes on from there.

The order of an epoch's writes: the checkpoint, with the rows of epochs.json in it; what a finished trial owes
(student, analysis); epochs.json. So an epoch that stands in epochs.json owes nothing more, and one whose
checkpoint was written before a kill is completed and reported on resume, from the checkpoint.
"""

import io
import json
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.distributed as dist
from torch import nn

from raykd import data, models, plugins
from raykd.data import AnyData, Dataset
from raykd.errors import first_line
from raykd.metric import Metric
from raykd.store import file_names
from raykd.store.folder import Folder, StorageError
from raykd.store.provenance import record_provenance, write_environment
from raykd.study.recipe import Recipe
from raykd.teachers.ensemble import EnsembleNet
from raykd.training.analysis import analyse
from raykd.training.evaluation import uses_bf16
from raykd.training.failure import PEER_IS_GONE, Preempted, describe_failure, is_other_process_gone
from raykd.training.graphs import Graphs, start_graphs
from raykd.training.metrics import EpochMetrics
from raykd.training.peers import Start
from raykd.training.start import read_start
from raykd.training.student import describe_preprocessing
from raykd.training.trainer import Trainer
from raykd.training.trial_teachers import TeacherFiles, load_teachers, make_teacher

BANKS_EVERY = 10  # epochs between two writings of large banks
ReportEpoch = Callable[[dict[str, Any]], None]
HasNotice = Callable[[], bool]  # whether this process's machine is about to be taken away


@dataclass(frozen=True)
class Job:
    """What a process must know to run a trial; plain data."""

    recipe: dict[str, Any]
    folder: str  # where this trial writes
    teachers: tuple[str, ...]  # the file of each teacher's weights; empty where the method needs none
    data_root: str
    download: bool  # whether a missing data set may be fetched
    threads: int  # CPU threads of one worker
    test: bool = False  # open the test set after the last epoch
    teacher_cache_gib: float = 8.0  # of the node's disk for teachers' outputs
    cache: str = ""  # the folder of caches on every node; "": each node's own
    checkpoint_minutes: float = 10.0  # a state at least so often, inside an epoch too
    metric: Metric = "accuracy"  # by which the trial is judged
    plugins: dict[str, str] = field(default_factory=dict)  # the texts of plugin files, by name

    @property
    def cache_folder(self) -> Path | None:
        """The folder of caches on every node; None: each node's own."""
        return Path(self.cache) if self.cache else None

    @property
    def teacher_files(self) -> TeacherFiles:
        """Where the teachers come from."""
        return TeacherFiles(self.teachers, self.teacher_cache_gib, self.cache_folder, self.download)


def run(job: Job, report: ReportEpoch, device: torch.device, has_notice: HasNotice = lambda: False) -> None:
    """Trains the job's recipe to its end, from its last checkpoint if there is one.

    An error is written into the trial's folder, unless it only says that another process is gone: a worker
    has written its own, or was lost with its machine; whom epochs are reported to is not the trial's concern.

    Args:
        job: What is trained, and where it writes.
        report: Is called after every epoch with its row, "final" and "parameters" added.
        device: Of this process.
        has_notice: Is asked wherever losses are checked (nonfinite.py). When it is true on any rank, all
            write the state and leave.

    Raises:
        Preempted: They left so.
    """
    folder, is_rank_0 = Folder(job.folder), not dist.is_initialized() or dist.get_rank() == 0
    try:
        _run(job, folder, report, device, has_notice, is_rank_0)
    except Exception as error:
        if not is_other_process_gone(error):
            with suppress(StorageError):
                folder.write_json(file_names.FAILURE, describe_failure(error))
        raise


def _make_trainer(
    job: Job,
    recipe: Recipe,
    dataset: Dataset[Any],
    device: torch.device,
    starts: list[Start],
    graphs: Graphs | None,
) -> Trainer:
    """RuntimeError with NCCL's reason where the workers' GPUs cannot work together."""
    try:
        teacher = make_teacher(job.teacher_files, recipe, dataset, device)
        return Trainer(recipe, dataset, teacher, device, starts, job.metric, graphs)
    except dist.DistBackendError as error:
        if PEER_IS_GONE.search(str(error)):
            raise
        raise RuntimeError(f"NCCL did not start: {str(error).splitlines()[-1]}") from error


def _run(
    job: Job,
    folder: Folder,
    report: ReportEpoch,
    device: torch.device,
    has_notice: HasNotice,
    is_rank_0: bool,
) -> None:
    torch.set_num_threads(job.threads)
    plugins.use(job.plugins)
    recipe = Recipe.model_validate_json(json.dumps(job.recipe))
    if is_rank_0:
        folder.remove_partial_files()
        folder.write_yaml(file_names.RECIPE, recipe.to_dict())
        provenance = record_provenance() | _describe_environment(job, recipe, device)
        folder.write_json(file_names.PROVENANCE, provenance)
        write_environment(folder, uses_bf16(recipe, device), device)
    dataset = _load_dataset(recipe.data, Path(job.data_root), job.download)
    if is_rank_0:
        folder.write_json(file_names.PREPROCESSING, describe_preprocessing(recipe.data, dataset))
    # read before the workers meet: afterwards the first one writes
    checkpoint, banks = (_load_checkpoint(folder, name) for name in (file_names.CHECKPOINT, file_names.BANKS))
    num_complete = len(folder.read_json(file_names.EPOCHS) or [])
    starts = _read_starts(job, recipe, dataset) if checkpoint is None else []
    graphs = start_graphs(device)
    trainer = _make_trainer(job, recipe, dataset, device, starts, graphs)
    rows: list[dict[str, Any]] = []

    def complete_epoch(is_written: bool) -> None:
        if is_rank_0 and not is_written:
            _write_epoch(job, folder, trainer, rows)
        report(_make_report(rows[-1], trainer))

    if checkpoint is not None:
        rows = checkpoint.pop("rows")
        trainer.load_state_dict(checkpoint, banks or {})
        if num_complete < len(rows) or trainer.num_epochs_done == recipe.epochs:
            complete_epoch(num_complete >= len(rows))  # it was trained, and perhaps not reported
    del checkpoint, banks
    for metrics in trainer.run_until(60 * job.checkpoint_minutes, has_notice):
        if metrics is not None:
            rows.append(_make_row(job, trainer, metrics))
        if is_rank_0:
            _save_state(folder, trainer, rows, is_end_of_epoch=metrics is not None)
            if graphs is not None and provenance["graphs"] != (levels := graphs.list_levels()):
                provenance["graphs"] = levels
                folder.write_json(file_names.PROVENANCE, provenance)
        if metrics is not None:
            complete_epoch(False)
        elif trainer.has_notice:
            trainer.wait_for_ranks()  # whoever raises ends the others, also one that writes
            raise Preempted("its machine is about to be taken away")


def _read_starts(job: Job, recipe: Recipe, dataset: Dataset[Any]) -> list[Start]:
    """What each student begins with; empty where all are random."""
    if all(spec.weights is None for spec in recipe.list_students()):
        return []
    starts: list[Start] = []
    for spec in recipe.list_students():
        net = models.make(spec.net, len(dataset.classes), spec.options)
        has_weights = spec.weights is not None
        starts.append(read_start(spec, net, job.cache_folder, job.download) if has_weights else None)
    return starts


def _make_row(job: Job, trainer: Trainer, metrics: EpochMetrics) -> dict[str, Any]:
    """The epoch's row of epochs.json; that of the last one holds the test accuracy, if it is asked for."""
    row = dict(metrics)
    if job.test and trainer.num_epochs_done == trainer.recipe.epochs:
        row |= {f"test_{name}": score for name, score in trainer.measure_test_metrics().items()}
        if peer_accuracies := trainer.measure_peer_test_accuracies():
            row["peer_test_accuracies"] = peer_accuracies
    return row


def _describe_environment(job: Job, recipe: Recipe, device: torch.device) -> dict[str, Any]:
    """What decides a trial's numbers beside its recipe, and where it ran."""
    return {
        "seed": recipe.seed,
        "device": str(device),
        "workers": dist.get_world_size() if dist.is_initialized() else 1,
        "threads": job.threads,
        "graphs": {},  # on a GPU: what is replayed, what is eager and why, once a state is saved
        "teachers": job.teachers,
        "worker": f"{socket.gethostname()} {os.getpid()}",
    }


def _analyse(job: Job, trainer: Trainer) -> dict[str, Any]:
    """Of the deployed student, against the teacher also where the method needs none."""
    recipe, dataset = trainer.recipe, trainer.dataset
    teacher: nn.Module | None = None
    if nets := load_teachers(job.teacher_files, recipe, dataset):
        teacher = EnsembleNet(nets, [t.weight for t in recipe.teachers]) if len(nets) > 1 else nets[0]
        teacher.to(trainer.device).to(memory_format=torch.channels_last)  # as the student: speeds compare
    bf16 = uses_bf16(recipe, trainer.device)
    return analyse(models.merge_members(trainer.ema_student), teacher, dataset, trainer.source, bf16)


def _save_state(folder: Folder, trainer: Trainer, rows: list[dict[str, Any]], is_end_of_epoch: bool) -> None:
    """Writes the checkpoint, and large banks now and then."""
    if (
        is_end_of_epoch
        and (trainer.num_epochs_done - 1) % BANKS_EVERY == 0
        and (banks := trainer.large_banks())
    ):
        _save_checkpoint(folder, file_names.BANKS, banks)
    _save_checkpoint(folder, file_names.CHECKPOINT, trainer.state_dict() | {"rows": rows})


def _write_epoch(job: Job, folder: Folder, trainer: Trainer, rows: list[dict[str, Any]]) -> None:
    """Writes what an epoch owes beside its checkpoint; its row last."""
    if unreadable := trainer.source.list_unreadable():
        folder.write_json(file_names.UNREADABLE, unreadable)
    if trainer.num_epochs_done == trainer.recipe.epochs:
        state = models.merge_members(trainer.ema_student).state_dict()
        weights = {k: v.cpu().contiguous() for k, v in state.items()}
        folder.write(file_names.STUDENT, safetensors.torch.save(weights))
    if "test_accuracy" in rows[-1]:
        folder.write_json(file_names.ANALYSIS, _analyse(job, trainer))
    folder.write_json(file_names.EPOCHS, rows)


def _save_checkpoint(folder: Folder, name: str, content: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    folder.write(name, buffer.getvalue())


def _load_checkpoint(folder: Folder, name: str) -> dict[str, Any] | None:
    """None without one, and for one that is torn (on HDFS): the trial then begins anew."""
    if not folder.exists(name):
        return None
    try:
        content: dict[str, Any] = torch.load(
            io.BytesIO(folder.read(name)), map_location="cpu", weights_only=True
        )
    except (RuntimeError, EOFError, ValueError) as error:  # as torch finds half a file
        logging.getLogger(__name__).warning("%s/%s is torn: %s", folder.uri, name, first_line(error))
        return None
    return content


def _make_report(row: dict[str, Any], trainer: Trainer) -> dict[str, Any]:
    is_final = row["epoch"] == trainer.recipe.epochs
    deployed = models.merge_members(trainer.student)
    return row | {"final": is_final, "parameters": models.num_parameters(deployed)}


@lru_cache(maxsize=1)
def _load_dataset(spec: AnyData, root: Path, download: bool) -> Dataset[Any]:
    """Kept for the next trial in the same process."""
    return data.load(spec, root, download)

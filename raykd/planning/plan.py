"""What a study will do and what it will cost, before it does: the opened space, its conditional parts, time,
devices, money and disk.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raykd import data, models
from raykd.errors import BadInput
from raykd.planning import cost
from raykd.planning.cost import Scale
from raykd.planning.speed import Speed, measured, probe_on_cluster
from raykd.store.folder import Folder
from raykd.study import space_check
from raykd.study.recipe import Recipe
from raykd.study.study import Study
from raykd.training import distiller

ROW = 400  # bytes of an epoch's row


@dataclass(frozen=True)
class Plan:
    """Times are None where the speed is not known: the data are not here, and it was not given."""

    space: dict[str, str]
    conditional: dict[str, str]
    paper_point: dict[str, Any]
    corners: int  # of the space; a trial could begin at each
    trials: int
    epochs: int
    images: int  # training images of a trial
    student_parameters: int
    method_parameters: int
    bank_bytes: int  # memory of the method's buffers
    images_per_second: float | None  # of one worker
    speed_source: str | None
    not_measured: str | None  # why there is no speed
    step_seconds: float | None
    trial_seconds: float | None  # with the study's workers
    search_seconds: float | None  # all trials to their end, one after another
    pruned_seconds: float | None  # about what is left of that when the pruner stops most trials
    confirm_seconds: float | None  # one retraining after another
    device: str  # "GPU" or "CPU"
    price: float | None  # of a device hour
    scales: tuple[Scale, ...]
    assumptions: tuple[str, ...]
    disk_bytes: int  # of the finished run
    trial_disk_bytes: int  # beside it, of each trial under way
    disk_free_bytes: int | None  # where the run would lie; None where it cannot be known


@dataclass(frozen=True)
class Asked:
    """What a plan is told beside the study."""

    root: Path  # where data sets lie
    download: bool = False
    storage: str = "runs"
    images_per_second: float | None = None  # given by hand: nothing is measured
    probe: str | None = None  # address of a Ray cluster: measured on one of its devices
    price: float | None = None  # of a device hour


def plan(study: Study, root: Path, download: bool) -> Plan:
    """The plan of a study, measured on this machine where its data are here."""
    return planned(study, Asked(root, download))


def planned(study: Study, asked: Asked) -> Plan:
    """The plan of a study. BadInput when the method cannot serve the nets, at the paper's point or at a
    corner of the space, or when data are missing of which nothing is known.
    """
    recipe = study.recipe
    try:
        dataset, figures, missing = _data(recipe, asked.root, asked.download)
        sketch = distiller.check(recipe, *figures)
    except BadInput:
        raise
    except ValueError as error:
        raise BadInput(str(error).splitlines()) from None
    found = space_check.check(study, figures)
    speed = _speed(study, asked, dataset)
    space = study.opened()
    student = models.num_parameters(sketch.student)
    method = sum(p.numel() for p in sketch.method.parameters())
    banks = sum(b.numel() * b.element_size() for b in sketch.method.buffers())
    trials = study.budget.trials
    return Plan(
        space={path: str(dimension) for path, dimension in space.items()},
        conditional={p: " and ".join(f"{q} = {v}" for q, v in d.when) for p, d in space.items() if d.when},
        paper_point=dict(study.paper_point()),
        corners=found,
        trials=trials,
        epochs=recipe.epochs,
        images=figures.images,
        student_parameters=student,
        method_parameters=method,
        bank_bytes=banks,
        images_per_second=speed.images_per_second if speed else None,
        speed_source=speed.source if speed else None,
        not_measured=None if speed else missing,
        **_times(study, figures, speed),
        device=cost.kind(study),
        price=asked.price,
        scales=_scales(study, figures, speed, asked.price),
        assumptions=cost.ASSUMPTIONS,
        disk_bytes=4 * student * (study.keep + cost.retrainings(study)) + ROW * recipe.epochs * trials,
        trial_disk_bytes=4 * (3 * student + 2 * method) + banks,
        disk_free_bytes=_free(Folder(asked.storage).local),
    )


def _times(study: Study, figures: data.Figures, speed: Speed | None) -> dict[str, Any]:
    """On as many devices as one trial takes."""
    names = ("step_seconds", "trial_seconds", "search_seconds", "pruned_seconds", "confirm_seconds")
    if speed is None:
        return dict.fromkeys(names)
    rate = speed.images_per_second
    trial = cost.trial_seconds(study, figures.images, rate, study.cluster.workers)
    gang = study.confirm.workers if study.confirm else 1
    retraining = cost.trial_seconds(study, cost.full(study, figures), rate, gang)
    search = trial * study.budget.trials
    step = study.recipe.optimizer.batch_size * study.recipe.data.rotations / rate
    pruned, confirm = search * cost.kept_by_pruner(study), retraining * cost.retrainings(study)
    return dict(zip(names, (step, trial, search, pruned, confirm), strict=True))


def _scales(
    study: Study, figures: data.Figures, speed: Speed | None, price: float | None
) -> tuple[Scale, ...]:
    if speed is None:
        return ()
    made = (cost.scaled(study, figures, speed.images_per_second, price, size) for size in cost.SIZES)
    return tuple(one for one in made if one is not None)


def _data(
    recipe: Recipe, root: Path, download: bool
) -> tuple[data.Dataset[Any] | None, data.Figures, str | None]:
    """The data set, if it is here, and its figures; why it is not here, where they are known without it."""
    try:
        dataset = data.load(recipe.data, root, download)
    except BadInput as missing:
        expected = recipe.data.expected()
        if expected is None:
            raise
        return None, expected, missing.lines[0]
    return dataset, dataset.figures, None


def _speed(study: Study, asked: Asked, dataset: data.Dataset[Any] | None) -> Speed | None:
    if asked.images_per_second is not None and asked.probe is not None:
        raise BadInput(["--images-per-second and --probe: give one of them"])
    if asked.images_per_second is not None:
        return Speed(asked.images_per_second, "given, not measured")
    if asked.probe is not None:
        return probe_on_cluster(study, asked.root, asked.download, asked.probe)
    return None if dataset is None else measured(study, dataset)


def _free(path: Path | None) -> int | None:
    """Free bytes where a folder lies or would lie."""
    if path is None:
        return None
    return shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free

"""What a study will do and cost, before it does: search space, time, devices, money and disk."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raykd import data, models
from raykd.driver.auto_resources import Resolution, resolve_here
from raykd.driver.local_session import starts_session
from raykd.errors import UserError
from raykd.planning import cost
from raykd.planning.cache_forms import CacheFormPlan, plan_forms
from raykd.planning.cost import CostEstimate
from raykd.planning.speed import Speed, measure_speed, probe_on_cluster
from raykd.store.folder import Folder, join_uri
from raykd.store.run_files import RunFiles
from raykd.study import space_check
from raykd.study.constraints import describe_students
from raykd.study.recipe import Recipe, make_teacher_recipes
from raykd.study.rungs import list_rungs
from raykd.study.search_warnings import list_search_warnings
from raykd.study.study import Study
from raykd.training import distiller, start
from raykd.training.student_costs import measure_students

NO_GPU = "the study asks for a GPU, and torch can use none here"
EPOCH_ROW_BYTES = 400  # bytes of an epoch's row


@dataclass(frozen=True)
class Plan:
    """Times are None where the speed is not known: there is no GPU to measure it on, and it was not given."""

    space: dict[str, str]
    conditional: dict[str, str]
    paper_point: dict[str, Any]
    boundary_points: int  # of the space; a trial could begin at each
    trials: int  # the budget's, or as many as the space has points
    device_hours: float | None  # of the budget, for the search
    devices_per_trial: float
    resources: str  # in words: what a trial takes here, or on the cluster that was probed
    shortage: str  # in words that these are fewer; "" when they are not
    teacher_cache: (
        str  # in words: views whose outputs of the teacher fit a node's disk; "" where none are kept
    )
    cache_forms: tuple[CacheFormPlan, ...]  # in which the teacher's outputs are or could be kept
    students: dict[str, str]  # what each costs, in words, where the study has constraints
    search_warnings: tuple[str, ...]  # what the sampler cannot learn from
    first_rung: str  # in words: what the curves of an earlier run of the study allow; "" where there is none
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
    cost_estimates: tuple[CostEstimate, ...]
    assumptions: tuple[str, ...]
    disk_bytes: int  # of the finished run
    trial_disk_bytes: int  # beside it, of each trial under way
    disk_free_bytes: int | None  # where the run would lie; None where it cannot be known


@dataclass(frozen=True)
class PlanOptions:
    """What a plan needs beside the study."""

    data_root: Path
    download: bool = False
    storage: str = "runs"
    images_per_second: float | None = None  # given by hand: nothing is measured
    probe: str | None = None  # address of a Ray cluster: measured on one of its devices
    price: float | None = None  # of a device hour

    @property
    def is_elsewhere(self) -> bool:
        """Whether the study is to run on other machines, whose speed is given or probed."""
        return self.images_per_second is not None or self.probe is not None


def make_plan(study: Study, options: PlanOptions) -> Plan:
    """Returns the plan of a study.

    Raises:
        UserError: The method cannot serve the nets, at the paper's point or at a boundary point of the space,
            or data or weights are missing; not where the speed is another machine's, and the data are known.
    """
    recipe = study.recipe
    try:
        dataset, dataset_info = _load_data(recipe, options)
        for one in (recipe, *make_teacher_recipes(recipe)):
            if dataset is not None:
                one.check_classes(dataset.train.labels, dataset.classes)
            distiller.build_on_meta(one, *dataset_info)
        meta_distiller = distiller.build_on_meta(recipe, *dataset_info)
        alone = not options.is_elsewhere and starts_session(None)
        start.check_starts(recipe, dataset_info.classes, alone, options.download)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error).splitlines()) from None
    num_boundary_points = space_check.check(study, dataset_info)
    students = measure_students(study, dataset_info, {})
    resolution, speed = _resolve(study, options, dataset)
    study = resolution.study
    space = study.search_space()
    student_parameters = models.num_parameters(models.merge_members(meta_distiller.student))
    method_parameters = sum(p.numel() for p in meta_distiller.parameters()) - student_parameters
    bank_bytes = sum(b.numel() * b.element_size() for b in meta_distiller.method.buffers())
    trials = study.count_trials()
    return Plan(
        space={path: str(dimension) for path, dimension in space.items()},
        conditional={
            p: " and ".join(f"{q} = {v}" for q, v in d.conditions) for p, d in space.items() if d.conditions
        },
        paper_point=dict(study.paper_point()),
        boundary_points=num_boundary_points,
        trials=trials,
        device_hours=study.budget.device_hours,
        devices_per_trial=study.cluster.workers.max * (study.cluster.num_gpus or study.cluster.num_cpus),
        resources=resolution.description,
        shortage=study.describe_shortage(),
        teacher_cache=space_check.describe_views(study, dataset_info),
        cache_forms=plan_forms(
            study,
            dataset_info,
            recipe.data.index_views(dataset) if dataset else None,
            speed.teacher_seconds if speed else None,
        ),
        students=describe_students(students),
        search_warnings=tuple(list_search_warnings(study)),
        first_rung=_advise_first_rung(study, options.storage),
        epochs=recipe.epochs,
        images=dataset_info.images,
        student_parameters=student_parameters,
        method_parameters=method_parameters,
        bank_bytes=bank_bytes,
        images_per_second=speed.images_per_second if speed else None,
        speed_source=speed.source if speed else None,
        not_measured=None if speed else NO_GPU,
        **_estimate_times(study, dataset_info, speed),
        device=cost.device_kind(study),
        price=options.price,
        cost_estimates=_estimate_costs(study, dataset_info, speed, options.price),
        assumptions=cost.ASSUMPTIONS,
        disk_bytes=4 * student_parameters * (study.keep + cost.count_retrainings(study))
        + EPOCH_ROW_BYTES * recipe.epochs * trials,
        trial_disk_bytes=4 * (3 * student_parameters + 2 * method_parameters) + bank_bytes,
        disk_free_bytes=_free_bytes(Folder(options.storage).local),
    )


def _advise_first_rung(study: Study, storage: str) -> str:
    """By the curves of the study's own run, or of the one that it is to be warm-started by."""
    runs = [RunFiles(uri) for uri in (join_uri(storage, study.name), study.warm_start) if uri is not None]
    for run_files in runs if list_rungs(study) else ():
        if run_files.exists() and (words := _describe_first_rung(run_files)):
            return f"by the curves of {run_files.folder.uri}: {words}"
    return ""


def _describe_first_rung(run_files: RunFiles) -> str:
    # here: they take seconds, and few plans have an earlier run
    from raykd.report.page.sections import describe_first_rung
    from raykd.report.rows.collect import collect

    return describe_first_rung(collect(run_files))


def _estimate_times(study: Study, dataset_info: data.DatasetInfo, speed: Speed | None) -> dict[str, Any]:
    """On as many devices as one trial takes."""
    names = ("step_seconds", "trial_seconds", "search_seconds", "pruned_seconds", "confirm_seconds")
    if speed is None:
        return dict.fromkeys(names)
    rate = speed.images_per_second
    trial = cost.estimate_trial_seconds(study, dataset_info.images, rate, study.cluster.workers.max)
    workers = study.confirm.workers if study.confirm else 1
    retraining = cost.estimate_trial_seconds(
        study, cost.count_full_train_images(study, dataset_info), rate, workers
    )
    search = trial * study.count_trials()
    step = study.recipe.optimizer.batch_size * study.recipe.data.rotations / rate
    pruned, confirm = search * cost.estimate_kept_fraction(study), retraining * cost.count_retrainings(study)
    return dict(zip(names, (step, trial, search, pruned, confirm), strict=True))


def _estimate_costs(
    study: Study, dataset_info: data.DatasetInfo, speed: Speed | None, price: float | None
) -> tuple[CostEstimate, ...]:
    if speed is None:
        return ()
    estimates = (
        cost.estimate_cost(study, dataset_info, speed.images_per_second, price, devices)
        for devices in cost.DEVICE_COUNTS
    )
    return tuple(estimate for estimate in estimates if estimate is not None)


def _load_data(recipe: Recipe, options: PlanOptions) -> tuple[data.Dataset[Any] | None, data.DatasetInfo]:
    """The data set and its info; None where it is missing, not needed here, and its info is known."""
    try:
        dataset = data.load(recipe.data, options.data_root, options.download)
    except UserError as missing:
        expected = recipe.data.expected_info()
        if expected is None:
            raise
        if not options.is_elsewhere:
            hint = "; --images-per-second or --probe plan without it"
            raise UserError([*missing.lines[:-1], missing.lines[-1] + hint]) from None
        return None, expected
    return dataset, dataset.info


def _resolve(
    study: Study, options: PlanOptions, dataset: data.Dataset[Any] | None
) -> tuple[Resolution, Speed | None]:
    """The study with numbers for `auto`, on the cluster that is probed or on this machine, and its speed."""
    if options.images_per_second is not None and options.probe is not None:
        raise UserError(["--images-per-second and --probe: give one of them"])
    if options.probe is not None:
        return probe_on_cluster(study, options.data_root, options.download, options.probe)
    if options.images_per_second is not None:
        return resolve_here(study, None), Speed(options.images_per_second, "given, not measured")
    resolution = resolve_here(study, dataset)
    can_measure = dataset is not None and (not resolution.study.cluster.num_gpus or torch.cuda.is_available())
    return resolution, measure_speed(resolution.study, dataset) if dataset and can_measure else None


def _free_bytes(path: Path | None) -> int | None:
    """Free bytes where a folder lies or would lie."""
    if path is None:
        return None
    return shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free

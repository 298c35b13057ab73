"""What a study takes on so many devices: arithmetic over one speed, on the assumptions that it states.

A device is a GPU where trials take GPUs, else a CPU, as in a study's budget/device_hours.
"""

import math
from dataclasses import dataclass

from raykd.data import DatasetInfo
from raykd.study.study import Study

PARALLEL_EFFICIENCY = 0.9  # what each worker of a trial of several keeps of its speed; assumed, not measured
DEVICE_COUNTS = (1, 8, 64)
SECONDS_PER_HOUR = 3600

ASSUMPTIONS = (
    "Trials are independent: devices divide the search until every trial has its own; it never takes less "
    "than one whole trial.",
    f"Each of several workers of a trial keeps {PARALLEL_EFFICIENCY:.0%} of its speed alone (assumed); where "
    "fewer devices than workers are, a trial gets as many workers as there are devices.",
    "Trials that share a GPU share its speed.",
    "The pruner leaves of all epochs the part that its rungs leave when every rung stops all but 1/eta of "
    "the trials.",
    "The controls of the confirmation are as fast as the method.",
    "Device hours are those that trials hold. Waiting devices, evaluation, the start of processes, the "
    "training of a teacher and whatever is lost with machines that go without notice come on top.",
)


@dataclass(frozen=True)
class CostEstimate:
    """A study on so many devices."""

    devices: int
    workers: int  # of a trial
    concurrent_trials: int
    trial_seconds: float  # one trial to its end
    search_seconds: float  # on the clock
    confirm_seconds: float
    device_hours: float  # search and confirmation
    dollars: float | None


def device_kind(study: Study) -> str:
    """Returns "GPU" where trials take GPUs, else "CPU"."""
    return "GPU" if study.cluster.num_gpus else "CPU"


def estimate_cost(
    study: Study, dataset_info: DatasetInfo, speed: float, price: float | None, devices: int
) -> CostEstimate | None:
    """Returns what a study takes on so many devices; None where not one worker fits.

    Args:
        study: Its budget, cluster and confirmation decide.
        dataset_info: Of the images that a trial trains on.
        speed: Images/s of one worker.
        price: Dollars of a device hour.
        devices: How many there are.
    """
    devices_per_worker = study.cluster.num_gpus or study.cluster.num_cpus
    max_workers = _count_workers(study, devices)
    if max_workers == 0:
        return None
    workers = min(study.cluster.workers.max, max_workers)
    concurrent_trials = min(max_workers // workers, study.count_trials())
    trial_seconds = estimate_trial_seconds(study, dataset_info.images, speed, workers)
    search_seconds = trial_seconds * study.count_trials() * estimate_kept_fraction(study)
    workers_per_retraining = min(study.confirm.workers, max_workers) if study.confirm else 1
    retraining_seconds = estimate_trial_seconds(
        study, count_full_train_images(study, dataset_info), speed, workers_per_retraining
    )
    num_retrainings = count_retrainings(study)
    device_hours = (
        devices_per_worker
        * (search_seconds * workers + retraining_seconds * num_retrainings * workers_per_retraining)
        / SECONDS_PER_HOUR
    )
    return CostEstimate(
        devices=devices,
        workers=workers,
        concurrent_trials=concurrent_trials,
        trial_seconds=trial_seconds,
        search_seconds=max(trial_seconds, search_seconds / concurrent_trials),
        confirm_seconds=retraining_seconds
        * math.ceil(num_retrainings / (max_workers // workers_per_retraining)),
        device_hours=device_hours,
        dollars=None if price is None else price * device_hours,
    )


def _count_workers(study: Study, devices: int) -> int:
    """How many workers so many devices hold."""
    devices_per_worker = study.cluster.num_gpus or study.cluster.num_cpus
    if study.cluster.num_gpus and devices_per_worker < 1:
        return devices * int(1 / devices_per_worker + 1e-9)
    return int(devices / devices_per_worker)


def estimate_trial_seconds(study: Study, images: int, speed: float, workers: int) -> float:
    """Returns the seconds of a trial on so many training images, to its end."""
    recipe = study.recipe
    views = images // recipe.optimizer.batch_size * recipe.optimizer.batch_size * recipe.data.rotations
    share = min(1.0, study.cluster.num_gpus) if study.cluster.num_gpus else 1.0
    speedup = workers * (PARALLEL_EFFICIENCY if workers > 1 else 1.0)
    return views * recipe.epochs / (speed * share * speedup)


def count_full_train_images(study: Study, dataset_info: DatasetInfo) -> int:
    """Returns the training images of a retraining, which holds nothing out."""
    return round(dataset_info.images / (1 - study.recipe.data.holdout))


def count_retrainings(study: Study) -> int:
    """Returns the number of retrainings: leaders, the paper's point and controls, with each seed."""
    if study.confirm is None:
        return 0
    controls = [name for name in study.confirm.controls if name != study.recipe.method.name]
    return study.confirm.seeds * (study.confirm.leaders + 1 + len(controls))


def estimate_kept_fraction(study: Study) -> float:
    """Returns about which part of all epochs the pruner leaves: 1/eta of the trials goes on at a rung."""
    pruner = study.search.pruner
    if pruner.kind == "none":
        return 1.0
    if pruner.kind == "median":
        return 0.5 * (1 + pruner.min_fraction)
    rungs = [pruner.min_fraction]
    while rungs[-1] * pruner.eta < 1:
        rungs.append(rungs[-1] * pruner.eta)
    alive, spent, previous_rung = 1.0, 0.0, 0.0
    for rung in [*rungs, 1.0]:
        spent, previous_rung, alive = spent + alive * (rung - previous_rung), rung, alive / pruner.eta
    return min(1.0, spent)

"""What a study takes on so many devices: arithmetic over one speed, on the assumptions that it states.

A device is a GPU where trials take GPUs, else a CPU, as in a study's budget/device_hours.
"""

import math
from dataclasses import dataclass

from raykd.data import Figures
from raykd.study.study import Study

GANG = 0.9  # what each worker of a trial of several keeps of its speed; assumed, not measured
SIZES = (1, 8, 64)
SECONDS = 3600

ASSUMPTIONS = (
    "Trials are independent: devices divide the search until every trial has its own; it never takes less "
    "than one whole trial.",
    f"Each of several workers of a trial keeps {GANG:.0%} of its speed alone (assumed); where fewer devices "
    "than workers are, a trial gets as many workers as there are devices.",
    "Trials that share a GPU share its speed.",
    "The pruner leaves of all epochs the part that its rungs leave when every rung stops all but 1/eta of "
    "the trials.",
    "The controls of the confirmation are as fast as the method.",
    "Device hours are those that trials hold. Waiting devices, evaluation, the start of processes, the "
    "training of a teacher and whatever is lost with preempted machines come on top.",
)


@dataclass(frozen=True)
class Scale:
    """A study on so many devices."""

    devices: int
    workers: int  # of a trial
    at_once: int  # trials
    trial_seconds: float  # one trial to its end
    search_seconds: float  # on the clock
    confirm_seconds: float
    device_hours: float  # search and confirmation
    dollars: float | None


def kind(study: Study) -> str:
    return "GPU" if study.cluster.gpus else "CPU"


def scaled(study: Study, figures: Figures, speed: float, price: float | None, devices: int) -> Scale | None:
    """`speed` in images/s of one worker, `price` of a device hour. None where not one worker fits."""
    each = study.cluster.gpus or study.cluster.cpus
    fit = _fit(study, devices)
    if fit == 0:
        return None
    workers = min(study.cluster.workers, fit)
    at_once = min(fit // workers, study.budget.trials)
    trial = trial_seconds(study, figures.images, speed, workers)
    search = trial * study.budget.trials * kept_by_pruner(study)
    gang = min(study.confirm.workers, fit) if study.confirm else 1
    retraining = trial_seconds(study, full(study, figures), speed, gang)
    num = retrainings(study)
    hours = each * (search * workers + retraining * num * gang) / SECONDS
    return Scale(
        devices=devices,
        workers=workers,
        at_once=at_once,
        trial_seconds=trial,
        search_seconds=max(trial, search / at_once),
        confirm_seconds=retraining * math.ceil(num / (fit // gang)),
        device_hours=hours,
        dollars=None if price is None else price * hours,
    )


def _fit(study: Study, devices: int) -> int:
    """How many workers so many devices hold."""
    each = study.cluster.gpus or study.cluster.cpus
    if study.cluster.gpus and each < 1:
        return devices * int(1 / each + 1e-9)
    return int(devices / each)


def trial_seconds(study: Study, images: int, speed: float, workers: int) -> float:
    """A trial on so many training images, to its end."""
    recipe = study.recipe
    views = images // recipe.optimizer.batch_size * recipe.optimizer.batch_size * recipe.data.rotations
    share = min(1.0, study.cluster.gpus) if study.cluster.gpus else 1.0
    together = workers * (GANG if workers > 1 else 1.0)
    return views * recipe.epochs / (speed * share * together)


def full(study: Study, figures: Figures) -> int:
    """Training images of a retraining, which holds nothing out."""
    return round(figures.images / (1 - study.recipe.data.holdout))


def retrainings(study: Study) -> int:
    """Of the confirmation: the leaders, the paper's point and the controls, with each seed."""
    if study.confirm is None:
        return 0
    controls = [name for name in study.confirm.controls if name != study.recipe.method.name]
    return study.confirm.seeds * (study.confirm.leaders + 1 + len(controls))


def kept_by_pruner(study: Study) -> float:
    """About the part of all epochs that the pruner leaves: 1/eta of the trials goes on at each rung."""
    pruner = study.search.pruner
    if pruner.kind == "none":
        return 1.0
    if pruner.kind == "median":
        return 0.5 * (1 + pruner.grace)
    rungs = [pruner.grace]
    while rungs[-1] * pruner.eta < 1:
        rungs.append(rungs[-1] * pruner.eta)
    alive, spent, before = 1.0, 0.0, 0.0
    for rung in [*rungs, 1.0]:
        spent, before, alive = spent + alive * (rung - before), rung, alive / pruner.eta
    return min(1.0, spent)

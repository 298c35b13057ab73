"""The Optuna study of a run: opened, begun with the enqueued points, warm-started by an earlier run."""

import warnings
from collections.abc import Callable
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from raykd.driver.distributions import to_distribution
from raykd.driver.first_objective import FirstObjectiveStudy
from raykd.driver.optuna_check import RUN, check_optuna_study, find_optuna_study, get_identity
from raykd.driver.optuna_storage import TrialStorage, open_storage
from raykd.errors import UserError
from raykd.metric import METRICS
from raykd.spec import Dimension, Scalar
from raykd.store.run_files import RunFiles
from raykd.store.status import rank_trials
from raykd.study.constraints import get_excess
from raykd.study.space import draw
from raykd.study.study import Study


def open_optuna_study(
    study: Study, run_files: RunFiles, pruner: BasePruner, on_warm_start: Callable[[str], None]
) -> tuple[FirstObjectiveStudy, TrialStorage]:
    """Returns the run's Optuna study and its storage.

    In a new one an earlier run's trials come first, where the study names one; then wait the paper's point
    and the study's `enqueue`. What a driver that was killed at this had not written yet is written now.

    Args:
        study: The study.
        run_files: Of its run.
        pruner: Who stops trials.
        on_warm_start: Is called with how many trials of an earlier run were taken over, in words.

    Raises:
        UserError: As for `check_memory`, or the earlier run does not serve.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)  # of what our own tests hold
    warnings.filterwarnings("ignore", "Constraints have been set")  # cmaes does not heed them: Proposals does
    storage, transaction = open_storage(study, run_files)
    check_optuna_study(storage, study, run_files)
    if find_optuna_study(storage, study.name) is None:
        with transaction():
            maximize, minimize = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
            directions = [maximize if name in METRICS else minimize for name in study.search.objectives]
            new_study = optuna.create_study(storage=storage, study_name=study.name, directions=directions)
            new_study.set_metric_names(list(study.search.objectives))
    optuna_study = FirstObjectiveStudy(study.name, storage, pruner=pruner)
    if RUN not in optuna_study.user_attrs:
        optuna_study.set_user_attr(RUN, get_identity(run_files))
    roles = [trial.user_attrs.get("role") for trial in optuna_study.get_trials(deepcopy=False)]
    if study.warm_start is not None and set(roles) <= {"warm_start"}:
        on_warm_start(
            _warm_start(optuna_study, study, run_files, RunFiles.open(study.warm_start), len(roles))
        )
    first_points = [study.paper_point(), *study.enqueue]
    num_first = sum(role != "warm_start" for role in roles)
    for place in range(num_first, len(first_points)):
        role = "enqueued" if place else "paper"
        optuna_study.enqueue_trial(first_points[place], user_attrs={"role": role})
    return optuna_study, TrialStorage(storage, study.name, transaction)


def _warm_start(
    optuna_study: optuna.Study, study: Study, run_files: RunFiles, earlier_run: RunFiles, num_before: int
) -> str:
    """Adds an earlier run's complete trials, less the first `num_before`; says how many there are in all.

    Those that lie in this study's space and know its objectives, of a run of the same method.
    """
    method = earlier_run.study()["recipe"]["method"]["name"]
    if method != study.recipe.method.name:
        raise UserError([f"warm_start: {earlier_run.folder.uri} searched method '{method}'"])
    space, points = study.search_space(), []
    complete = rank_trials(earlier_run.trials())
    for row in complete:
        point = _to_point(space, row["params"])
        values = [row[name] for name in study.search.objectives if row.get(name) is not None]
        if point is not None and len(values) == len(study.search.objectives):
            points.append((point, values))
    students = run_files.students()
    for point, values in points[num_before:]:
        optuna_study.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                values=values,
                params=point,
                distributions={path: to_distribution(space[path]) for path in point},
                user_attrs={"role": "warm_start", "run": earlier_run.folder.uri},
                constraints=get_excess(students, point),
            )
        )
    num_outside = len(complete) - len(points)
    return f"{len(points)} trials taken over from {earlier_run.name}, {num_outside} outside left out"


def _to_point(space: dict[str, Dimension], params: dict[str, Any]) -> dict[str, Scalar] | None:
    """A trial's parameters as a point of the space; None where one is missing or outside."""
    try:
        point = draw(space, lambda path, dimension: params[path])
    except KeyError:
        return None
    return point if all(space[path].contains(value) for path, value in point.items()) else None

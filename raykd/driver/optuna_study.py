"""The Optuna study of a run: opened, begun with the enqueued points, warm-started by an earlier run."""

import warnings
from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from raykd.driver.optuna_journal import StoredJournal, truncate_torn_entry
from raykd.errors import UserError, first_line
from raykd.spec import Choice, Dimension, Scalar
from raykd.store import file_names
from raykd.store.run_files import RunFiles
from raykd.store.status import rank_trials
from raykd.study.space import draw
from raykd.study.study import Study


class FirstObjectiveStudy(optuna.Study):
    """An Optuna study that ranks pruned trials, and prunes, by its first objective: the accuracy.

    Optuna itself refuses intermediate values where there are several objectives.
    """

    @property
    def direction(self) -> StudyDirection:
        return StudyDirection.MAXIMIZE


def open_optuna_study(
    study: Study, run_files: RunFiles, pruner: BasePruner, on_warm_start: Callable[[str], None]
) -> FirstObjectiveStudy:
    """The run's Optuna study. In a new one the paper's point waits first, then the study's `enqueue`.

    `on_warm_start` is told how many trials of an earlier run were taken over, where the study names one.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)  # of what our own tests hold
    storage = _open_storage(study, run_files)
    objectives = study.search.objectives
    optuna.create_study(
        storage=storage,
        study_name=study.name,
        directions=["maximize" if name == "accuracy" else "minimize" for name in objectives],
        load_if_exists=True,
    ).set_metric_names(list(objectives))
    optuna_study = FirstObjectiveStudy(study.name, storage, pruner=pruner)
    if not optuna_study.get_trials(deepcopy=False):
        if study.warm_start is not None:
            on_warm_start(_warm_start(optuna_study, study, RunFiles.open(study.warm_start)))
        optuna_study.enqueue_trial(study.paper_point(), user_attrs={"role": "paper"})
        for point in study.enqueue:
            optuna_study.enqueue_trial(point, user_attrs={"role": "enqueued"})
    return optuna_study


def _open_storage(study: Study, run_files: RunFiles) -> BaseStorage:
    """The journal in the run, or the database that the study names."""
    if study.search.storage is not None:
        try:
            return RDBStorage(study.search.storage)
        except Exception as error:  # whatever the database's driver raises
            raise UserError([f"search/storage: {type(error).__name__}: {first_line(error)}"]) from None
    path = run_files.journal_path()
    if path is None:
        return JournalStorage(StoredJournal(run_files.folder / file_names.JOURNAL))
    path.with_name(path.name + ".lock").unlink(missing_ok=True)  # a dead driver's: this one holds the lock
    return JournalStorage(JournalFileBackend(str(truncate_torn_entry(path))))


def _warm_start(optuna_study: optuna.Study, study: Study, earlier_run: RunFiles) -> str:
    """Complete trials of an earlier run of the same method that lie in this study's space and know its
    objectives.
    """
    method = earlier_run.study()["recipe"]["method"]["name"]
    if method != study.recipe.method.name:
        raise UserError([f"warm_start: {earlier_run.folder.uri} searched method '{method}'"])
    space = study.search_space()
    complete = rank_trials(earlier_run.trials())
    num_taken = 0
    for row in complete:
        point = _to_point(space, row["params"])
        values = [row[name] for name in study.search.objectives if row.get(name) is not None]
        if point is not None and len(values) == len(study.search.objectives):
            distributions = {path: to_distribution(space[path]) for path in point}
            optuna_study.add_trial(
                create_trial(
                    state=TrialState.COMPLETE,
                    values=values,
                    params=point,
                    distributions=distributions,
                    user_attrs={"role": "warm_start", "run": earlier_run.folder.uri},
                )
            )
            num_taken += 1
    return (
        f"{num_taken} trials taken over from {earlier_run.name}, {len(complete) - num_taken} outside left out"
    )


def _to_point(space: dict[str, Dimension], params: dict[str, Any]) -> dict[str, Scalar] | None:
    """A trial's parameters as a point of the space; None where one is missing or outside."""
    try:
        point = draw(space, lambda path, dimension: params[path])
    except KeyError:
        return None
    return point if all(space[path].contains(value) for path, value in point.items()) else None


def to_distribution(dimension: Dimension) -> BaseDistribution:
    """A dimension in Optuna's words."""
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.values)
    low, high, log, step = dimension.low, dimension.high, dimension.log, dimension.step
    if dimension.integer:
        return IntDistribution(int(low), int(high), log=log, step=int(step or 1))
    return FloatDistribution(low, high, log=log, step=step)

"""The Optuna study of a run: opened, begun with the points to try first, warmed by an earlier run."""

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
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from raykd.driver.optuna_journal import StoredJournal, mended
from raykd.errors import BadInput
from raykd.spec import Choice, Dimension, Scalar
from raykd.store.run_files import JOURNAL, Ledger
from raykd.store.status import leaders
from raykd.study.space import draw
from raykd.study.study import Study

Pruner = optuna.pruners.BasePruner


class Memory(optuna.Study):
    """An Optuna study that ranks pruned trials, and prunes, by its first objective: the accuracy.

    Optuna itself refuses intermediate values where there are several objectives.
    """

    @property
    def direction(self) -> StudyDirection:
        return StudyDirection.MAXIMIZE


def open_memory(study: Study, ledger: Ledger, pruner: Pruner, told: Callable[[str], None]) -> Memory:
    """The run's Optuna study. In a new one the paper's point waits first, then the study's own first points.

    `told` hears how many trials of an earlier run were taken over, where the study names one.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)  # of what our own tests hold
    storage = _storage(study, ledger)
    objectives = study.search.objectives
    optuna.create_study(
        storage=storage,
        study_name=study.name,
        directions=["maximize" if name == "accuracy" else "minimize" for name in objectives],
        load_if_exists=True,
    ).set_metric_names(list(objectives))
    opened = Memory(study.name, storage, pruner=pruner)
    if not opened.get_trials(deepcopy=False):
        if study.warm is not None:
            told(_warm(opened, study, Ledger.open(study.warm)))
        opened.enqueue_trial(study.paper_point(), user_attrs={"role": "paper"})
        for point in study.first:
            opened.enqueue_trial(point, user_attrs={"role": "first"})
    return opened


def _storage(study: Study, ledger: Ledger) -> BaseStorage:
    """The journal in the run, or the database that the study names."""
    if study.search.storage is not None:
        try:
            return RDBStorage(study.search.storage)
        except Exception as error:  # whatever the database's driver raises
            reason = (str(error).splitlines() or [""])[0]
            raise BadInput([f"search/storage: {type(error).__name__}: {reason}"]) from None
    path = ledger.journal()
    if path is None:
        return JournalStorage(StoredJournal(ledger.folder / JOURNAL))
    path.with_name(path.name + ".lock").unlink(missing_ok=True)  # a dead driver's: this one holds the claim
    return JournalStorage(JournalFileBackend(str(mended(path))))


def _warm(opened: optuna.Study, study: Study, earlier: Ledger) -> str:
    """Complete trials of an earlier run of the same method that lie in this study's space and know its
    objectives.
    """
    method = earlier.study()["recipe"]["method"]["name"]
    if method != study.recipe.method.name:
        raise BadInput([f"warm: {earlier.folder.uri} searched method '{method}'"])
    space = study.opened()
    complete = leaders(earlier.trials())
    taken = 0
    for row in complete:
        point = _inside(space, row["drawn"])
        values = [row[name] for name in study.search.objectives if row.get(name) is not None]
        if point is not None and len(values) == len(study.search.objectives):
            distributions = {path: distribution(space[path]) for path in point}
            opened.add_trial(
                create_trial(
                    state=TrialState.COMPLETE,
                    values=values,
                    params=point,
                    distributions=distributions,
                    user_attrs={"role": "warm", "run": earlier.folder.uri},
                )
            )
            taken += 1
    return f"{taken} trials taken over from {earlier.name}, {len(complete) - taken} outside left out"


def _inside(space: dict[str, Dimension], drawn: dict[str, Any]) -> dict[str, Scalar] | None:
    """The drawn values as a point of the space; None where one is missing or outside."""
    try:
        point = draw(space, lambda path, dimension: drawn[path])
    except KeyError:
        return None
    return point if all(space[path].holds(value) for path, value in point.items()) else None


def distribution(dimension: Dimension) -> BaseDistribution:
    """A dimension in Optuna's words."""
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.values)
    low, high, log, step = dimension.low, dimension.high, dimension.log, dimension.step
    if dimension.integer:
        return IntDistribution(int(low), int(high), log=log, step=int(step or 1))
    return FloatDistribution(low, high, log=log, step=step)

"""Whether an Optuna study is the one of this run, and agrees with what the run's files say."""

from secrets import token_hex
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, check_distribution_compatibility
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from raykd.driver.distributions import to_distribution
from raykd.driver.optuna_storage import describe_place, open_storage
from raykd.errors import UserError
from raykd.store import file_names
from raykd.store.run_files import RunFiles
from raykd.study.study import Study

RUN = "run"  # the Optuna study's user attribute that names its run
ROLES_WITHOUT_FILES = ("warm_start", "duplicate", "not allowed")  # of trials that this run did not train
OTHER_NAME = "give the study another name (--set name=...)"


def check_memory(study: Study, run_files: RunFiles) -> None:
    """Checks a run's Optuna study before anything begins; writes no more than a new database's tables.

    Raises:
        UserError: Its storage cannot be opened, it is another run's, it holds other ranges or objectives, or
            it disagrees with the run's trials.
    """
    if study.search.storage or run_files.exists():
        check_optuna_study(open_storage(study, run_files)[0], study, run_files)


def find_optuna_study(storage: BaseStorage, name: str) -> optuna.Study | None:
    """Returns the Optuna study of a name; None where there is none."""
    names = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage) if name in names else None


def get_identity(run_files: RunFiles) -> str:
    """Returns the identity of a run, a random word, which is made where the run has none yet."""
    identity = _read_identity(run_files)
    if not identity:
        identity = token_hex(16)
        run_files.folder.write_json(file_names.IDENTITY, {RUN: identity})
    return identity


def _read_identity(run_files: RunFiles) -> str:
    return str((run_files.folder.read_json(file_names.IDENTITY) or {}).get(RUN, ""))


def check_optuna_study(storage: BaseStorage, study: Study, run_files: RunFiles) -> None:
    """UserError, as for `check_memory`, of a storage that is open."""
    optuna_study = find_optuna_study(storage, study.name)
    trials = [] if optuna_study is None else optuna_study.get_trials(deepcopy=False)
    place = describe_place(study, run_files)
    if optuna_study is not None:
        owner = optuna_study.user_attrs.get(RUN)
        differences = _find_other_settings(optuna_study, trials, study)
        if (owner or trials) and owner != _read_identity(run_files):
            also = "".join(f"; {difference}" for difference in differences)
            raise UserError(
                [
                    f"{place}: the study '{study.name}' there is another run's: {len(trials)} trials{also}. "
                    "Give this one another name (--set name=...), or take another search/storage"
                ]
            )
        if differences:
            raise UserError(
                f"{place}: {difference}. Go on with what it holds, or {OTHER_NAME}"
                for difference in differences
            )
    rows = {row["number"]: row for row in run_files.trials()} if run_files.exists() else {}
    if lines := _find_disagreements(rows, {trial.number: trial for trial in trials}):
        advice = f"Put back what was lost, or {OTHER_NAME}"
        raise UserError([f"{run_files.folder.uri}: its trials and {place} disagree. {advice}", *lines])


def _find_other_settings(optuna_study: optuna.Study, trials: list[FrozenTrial], study: Study) -> list[str]:
    """What an Optuna study was begun with that its trials could not go on with, in words."""
    lines = []
    objectives = list(study.search.objectives)
    if (held := optuna_study.metric_names) and held != objectives:
        lines.append(f"search/objectives: it holds {', '.join(held)}, the study {', '.join(objectives)}")
    for path, dimension in study.search_space().items():
        new = to_distribution(dimension)
        old = {str(t.distributions[path]): t.distributions[path] for t in trials if path in t.distributions}
        different = next((d for d in old.values() if not _is_compatible(d, new)), None)
        if different is not None:
            lines.append(f"space/{path}: it holds {_describe(different)}, the study {_describe(new)}")
    return lines


def _is_compatible(old: BaseDistribution, new: BaseDistribution) -> bool:
    try:
        check_distribution_compatibility(old, new)
    except ValueError:
        return False
    return True


def _describe(distribution: Any) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return "{" + ", ".join(map(str, distribution.choices)) + "}"
    return f"{distribution.low:g} .. {distribution.high:g}{' log' if distribution.log else ''}"


def _find_disagreements(rows: dict[int, dict[str, Any]], trials: dict[int, FrozenTrial]) -> list[str]:
    """In what a run's trials and Optuna's differ, less what a killed driver leaves: that is made up for."""
    lines = []
    for number, row in rows.items():
        trial, state = trials.get(number), row["state"]
        if trial is None:
            lines.append(f"trial {number}: {state} in the run, not there in Optuna")
        elif trial.params != row["params"]:
            lines.append(f"trial {number}: {row['params']} in the run, {trial.params} in Optuna")
        elif trial.state.name != state and (trial.state == TrialState.WAITING or _has_ended(state)):
            lines.append(f"trial {number}: {state} in the run, {trial.state.name} in Optuna")
    for number in sorted(trials.keys() - rows.keys()):
        trial = trials[number]
        if trial.state.is_finished() and trial.user_attrs.get("role") not in ROLES_WITHOUT_FILES:
            lines.append(f"trial {number}: not there in the run, {trial.state.name} in Optuna")
    return lines


def _has_ended(state: str) -> bool:
    return TrialState[state].is_finished()

"""A run's JSON files -> checked rows. What cannot be read is left out or unknown, and is a problem."""

from collections.abc import Sequence
from dataclasses import fields
from math import nan
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from raykd.metric import get_metric
from raykd.report.rows.types import Analysis, ConfirmationRow, EpochRow, TrialRow
from raykd.store import file_names
from raykd.store.run_files import RunFiles, repair_times

RowT = TypeVar("RowT", TrialRow, EpochRow, Analysis)
RARE_FIELDS = {"peer_accuracies", "breaks"}  # which a row has only where there is something to say
MAX_PLACES = 3  # places of a problem that are named
ADAPTERS: dict[type, TypeAdapter[Any]] = {
    row_type: TypeAdapter(row_type) for row_type in (TrialRow, EpochRow, Analysis)
}


class ProblemLog:
    """What is wrong with a run's files: each problem is listed once, with the number of its places."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}

    def add(self, message: str, place: str = "") -> None:
        """Adds a problem, and the file or folder that has it."""
        self._places.setdefault(message, []).append(place)

    def lines(self) -> list[str]:
        """Returns the problems as sentences, in the order in which they were first met."""
        return [
            _format_problem(message, [place for place in places if place])
            for message, places in self._places.items()
        ]


def _format_problem(message: str, places: Sequence[str]) -> str:
    shown = ", ".join(places[:MAX_PLACES]) + (
        f" and {len(places) - MAX_PLACES} more" if len(places) > MAX_PLACES else ""
    )
    return f"{shown}: {message}" if shown else message


def read_trials(run_files: RunFiles, problems: ProblemLog) -> list[TrialRow]:
    """Returns the trials in the order of their numbers."""
    rows: list[TrialRow] = []
    folder = run_files.folder / file_names.TRIALS
    names = folder.list_names()
    trial_jsons = folder.read_json_files([f"{name}/{file_names.TRIAL}" for name in names])
    provenances = folder.read_json_files([f"{name}/{file_names.PROVENANCE}" for name in names])
    for name, trial_json, provenance in zip(names, trial_jsons, provenances, strict=True):
        device = str(_as_dict(provenance).get("worker", "unknown"))
        place = f"{folder.name}/{name}/{file_names.TRIAL}"
        row = _parse_row(TrialRow, _judge(trial_json), {"device": device}, place, problems)
        rows += [row] if row is not None else []
    return sorted(rows, key=lambda row: row.number)


def read_epochs(run_files: RunFiles, trials: Sequence[TrialRow], problems: ProblemLog) -> list[EpochRow]:
    """Returns the epochs of the trials that have a held-out accuracy."""
    names = [f"{file_names.TRIALS}/{trial.number:05d}/{file_names.EPOCHS}" for trial in trials]
    rows: list[EpochRow] = []
    for trial, name, epochs_json in zip(trials, names, run_files.folder.read_json_files(names), strict=True):
        if not isinstance(epochs_json, list) and run_files.folder.exists(name):
            problems.add("left out: torn", name)
        for epoch_json in epochs_json if isinstance(epochs_json, list) else []:
            if not isinstance(epoch_json, dict) or epoch_json.get("accuracy", "") is not None:
                row = _parse_row(EpochRow, _judge(epoch_json), {"trial": trial.number}, name, problems)
                rows += [row] if row is not None else []
    return rows


def read_confirmations(run_files: RunFiles, problems: ProblemLog) -> list[ConfirmationRow]:
    """Returns the retrainings that have opened the test set."""
    rows = []
    folder = run_files.folder / file_names.CONFIRM
    for name in folder.list_names():
        place = f"{folder.name}/{name}"
        trial_json = _as_dict((folder / name).read_json(file_names.TRIAL))
        epochs_json = (folder / name).read_json(file_names.EPOCHS)
        if not isinstance(epochs_json, list) and (folder / name).exists(file_names.EPOCHS):
            problems.add("left out: torn", f"{place}/{file_names.EPOCHS}")
        epoch_rows = (
            [row for row in epochs_json if isinstance(row, dict)] if isinstance(epochs_json, list) else []
        )
        last_row = epoch_rows[-1] if epoch_rows else {}
        top1, score = (last_row.get(f"test_{name}") for name in ("accuracy", get_metric(last_row)))
        if not isinstance(score, int | float) or not isinstance(top1, int | float):
            continue
        role, _, seed = name.rpartition("-seed")
        if not role or not seed.isdecimal():
            problems.add("left out: the folder's name says no role and seed", place)
            continue
        analysis_json = (folder / name).read_json(file_names.ANALYSIS)
        rows.append(
            ConfirmationRow(
                role=role,
                trial=trial_json.get("number"),
                seed=int(seed),
                accuracy=float(score),
                top1=float(top1),
                split=str(trial_json.get("split", "test")),
                epochs=len(epoch_rows),
                seconds=sum_seconds(epoch_rows),
                analysis=_parse_analysis(analysis_json, f"{place}/{file_names.ANALYSIS}", problems),
                peer_accuracies=tuple(epoch_rows[-1].get("peer_test_accuracies") or ()),
            )
        )
    return sorted(rows, key=lambda row: (row.role, row.seed))


def _judge(row: Any) -> Any:
    """A row with its metric in the place of the accuracy."""
    if not isinstance(row, dict) or get_metric(row) == "accuracy":
        return row
    names = [name for name in ("accuracy", "accuracy_raw") if name in row]
    return row | {name: row.get(name.replace("accuracy", get_metric(row))) for name in names}


def _parse_analysis(analysis_json: Any, place: str, problems: ProblemLog) -> Analysis | None:
    if analysis_json is None:
        return None
    classes = [{"name": row.get("class"), **row} for row in _as_dict(analysis_json).get("per_class") or []]
    return _parse_row(Analysis, {**_as_dict(analysis_json), "per_class": classes}, {}, place, problems)


def _parse_row(
    row_type: type[RowT], values: Any, extra_values: dict[str, Any], place: str, problems: ProblemLog
) -> RowT | None:
    """A row of `values` and what is known already; None, and a problem, where it cannot be one."""
    if not isinstance(values, dict):
        problems.add("left out: missing, torn, or not a row", place)
        return None
    try:
        row: RowT = ADAPTERS[row_type].validate_python({**repair_times(values), **extra_values})
    except ValidationError as error:
        first_error = error.errors()[0]
        path = "/".join(map(str, first_error["loc"]))
        problems.add(f"left out: {path}: {first_error['msg'].lower()}", place)
        return None
    known = values.keys() | extra_values.keys() | RARE_FIELDS
    if missing := [f.name for f in fields(row_type) if f.name not in known]:
        problems.add(f"does not say {', '.join(missing)} (an older version's run?)", place)
    return row


def sum_seconds(epoch_rows: Sequence[dict[str, Any]]) -> float:
    """Returns the wall-clock seconds of epochs together; nan where one does not say."""
    return float(sum(repair_times(row).get("seconds", nan) for row in epoch_rows))


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}

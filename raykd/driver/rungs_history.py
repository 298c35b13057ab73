"""What a model of the rungs knows of an Optuna study: points, their values by rung, who diverged."""

from dataclasses import dataclass

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from raykd.maths.gaussian_process import Array
from raykd.maths.unit_space import UnitSpace

DIVERGED = "diverged"  # the user attribute of a trial whose loss was not finite


@dataclass(frozen=True)
class RungsHistory:
    """Trials in the order of their numbers.

    Attributes:
        units: Points [n, fields] of trials that reached the first rung and did not diverge.
        values: Their accuracies [n, rungs], the end the last; nan where not reached.
        numbers: Their numbers.
        diverged: Points of trials that diverged.
        pending: Points of trials that run and have not reached the first rung.
        paper: The paper's point and its trial's number; None where it is unknown.
    """

    units: Array
    values: Array
    numbers: list[int]
    diverged: Array
    pending: Array
    paper: tuple[Array, int] | None


def read_history(trials: list[FrozenTrial], space: UnitSpace, rungs: list[int]) -> RungsHistory:
    """Returns the history of trials whose values count at these epochs, the last of them the end."""
    drawn = [trial for trial in trials if trial.params]  # others wait, or are being drawn
    units = space.to_units([trial.params for trial in drawn])
    values = np.array([_values_at(trial, rungs) for trial in drawn]).reshape(-1, len(rungs))
    diverged = np.array([DIVERGED in trial.user_attrs for trial in drawn], dtype=bool)
    running = np.array([trial.state == TrialState.RUNNING for trial in drawn], dtype=bool)
    known = np.isfinite(values[:, 0]) & ~diverged
    papers = [place for place, trial in enumerate(drawn) if trial.user_attrs.get("role") == "paper"]
    return RungsHistory(
        units=units[known],
        values=values[known],
        numbers=[trial.number for trial, is_known in zip(drawn, known, strict=True) if is_known],
        diverged=units[diverged],
        pending=units[running & ~known & ~diverged],
        paper=(units[papers[0]], drawn[papers[0]].number) if papers else None,
    )


def _values_at(trial: FrozenTrial, rungs: list[int]) -> list[float]:
    """Of a rung and all before it; nan from the first on that has no value."""
    row = [trial.intermediate_values.get(rung, np.nan) for rung in rungs]
    gap = next((place for place, value in enumerate(row) if not np.isfinite(value)), len(row))
    return row[:gap] + [np.nan] * (len(row) - gap)

"""What a report is made from: plain rows of one run. Accuracies are percentages, times seconds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Literal

from raykd.space import Dimension, Scalar

TrialState = Literal["COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING"]
STATES: tuple[TrialState, ...] = ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")
Role = Literal["paper", "first", "searched"]


@dataclass(frozen=True)
class TrialRow:
    """One trial as the search's memory has it."""

    number: int
    state: TrialState
    drawn: dict[str, Scalar]  # path -> value; a conditional field that was not called for is missing
    accuracy: float | None  # held-out, averaged weights, at the trial's last epoch
    epochs: int  # finished ones
    started: float | None  # unix time
    ended: float | None
    reason: str  # why it was stopped or failed; else empty
    role: Role
    device: str


@dataclass(frozen=True)
class EpochRow:
    """One epoch of one trial."""

    trial: int
    epoch: int  # 1-based
    accuracy: float  # held-out, averaged weights
    accuracy_raw: float  # held-out, the weights as they are
    seconds: float
    lr: float
    terms: dict[str, float]  # raw loss terms, before their weights


@dataclass(frozen=True)
class ConfirmRow:
    """One retraining on the full training set, and its accuracy on the test set."""

    role: str  # "best", "paper", "ce", "kd", ...
    trial: int | None
    seed: int
    accuracy: float
    split: str = "test"


@dataclass(frozen=True)
class PublishedRow:
    """The paper's own number for this student and teacher."""

    value: float  # test accuracy
    source: str


@dataclass(frozen=True)
class RunData:
    """One run. Everything may be empty: a report says what is missing."""

    name: str
    method: str
    status: str  # "official" or "reconstruction"
    paper: str
    student: str
    teacher: str
    data: str
    state: Literal["running", "interrupted", "finished"]
    facts: dict[str, str]  # commit, hardware, versions, command, seeds, split ...
    space: dict[str, Dimension]
    paper_point: dict[str, Scalar]
    trials: Sequence[TrialRow]
    epochs: Sequence[EpochRow]
    budget_epochs: int  # of one full trial
    rungs: Sequence[int]  # epochs at which the pruner judged
    confirm: Sequence[ConfirmRow] = ()
    published: PublishedRow | None = None
    best: dict[str, tuple[Scalar | None, Scalar | None]] = field(default_factory=dict)  # path: (paper, best)
    device_hours: float | None = None  # None: the trials' wall-clock hours, summed
    units: dict[str, str] = field(default_factory=dict)  # path -> unit, for the axis titles
    problems: Sequence[str] = ()  # what could not be read, or differs from what was expected

    def finished(self) -> list[TrialRow]:
        """Complete trials with a finite accuracy, best first."""
        done = [t for t in self.trials if t.state == "COMPLETE" and scored(t)]
        return sorted(done, key=lambda t: (-accuracy(t), t.number))

    def at_paper(self) -> TrialRow | None:
        """The finished trial of the paper's point."""
        return next((t for t in self.finished() if t.role == "paper"), None)

    def curves(self) -> dict[int, list[EpochRow]]:
        """Each trial's epochs in order; of an epoch that was run again after a preemption, the last."""
        rows: dict[int, dict[int, EpochRow]] = {}
        for row in self.epochs:
            rows.setdefault(row.trial, {})[row.epoch] = row
        return {trial: [of[e] for e in sorted(of)] for trial, of in sorted(rows.items())}

    def hours(self) -> float:
        """Device-hours, or where they are not known the hours of all trials together."""
        if self.device_hours is not None:
            return self.device_hours
        spans = (t.ended - t.started for t in self.trials if t.started is not None and t.ended is not None)
        return sum(spans) / 3600

    def title(self, path: str) -> str:
        """An axis title: the path in the study file, and its unit where it has one."""
        return f"{path} ({self.units[path]})" if path in self.units else path


def scored(trial: TrialRow) -> bool:
    return trial.accuracy is not None and isfinite(trial.accuracy)


def accuracy(trial: TrialRow) -> float:
    """The accuracy of a trial that has one."""
    assert trial.accuracy is not None, f"trial {trial.number} has no accuracy"
    return trial.accuracy


def said(state: TrialState) -> str:
    """A trial's state as a word of a sentence."""
    return "failed" if state == "FAIL" else state.lower()

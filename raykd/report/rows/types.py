"""What a report is made from: plain rows of one run. Accuracies are percentages, times seconds.

Where a study is judged by another metric (RunData.metric), `accuracy` of these rows is that one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from typing import Literal

from raykd.metric import METRIC_TITLES
from raykd.spec import Dimension, Scalar

TrialState = Literal["COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING"]
STATES: tuple[TrialState, ...] = ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")

EmbeddingPoint = tuple[float, float, str | int]  # two components, class


@dataclass(frozen=True)
class TrialRow:
    """One trial as the search recorded it. What has a default may be missing in older runs."""

    number: int
    state: TrialState
    params: dict[str, Scalar] = field(default_factory=dict)  # by path; what was not active is missing
    accuracy: float | None = None  # held-out, averaged weights, at the trial's last epoch
    epochs: int = 0  # finished ones
    started: float | None = None  # unix time
    ended: float | None = None
    reason: str = ""  # why it was stopped or failed; else empty
    role: str = "searched"  # or "paper", "enqueued"
    device: str = "unknown"
    seconds_per_epoch: float | None = None
    parameters: int | None = None  # of the student
    seconds: float | None = None  # for which it held its devices; None: from its start to its end
    breaks: str = ""  # what its student breaks of the study's constraints


@dataclass(frozen=True)
class EpochRow:
    """One epoch of one trial. What has a default may be missing in older runs."""

    trial: int
    epoch: int  # 1-based
    accuracy: float  # held-out, averaged weights
    accuracy_raw: float = nan  # held-out, the weights as they are
    seconds: float = nan
    lr: float = nan
    terms: dict[str, float] = field(default_factory=dict)  # raw loss terms, before their weights
    peer_accuracies: tuple[float, ...] = ()  # of the other students of a trial that has several


@dataclass(frozen=True)
class ClassRow:
    """Test accuracies of one class."""

    name: str | int
    accuracy: float
    teacher: float | None = None


@dataclass(frozen=True)
class Analysis:
    """What is known of a retrained student beyond its accuracy, all on the test set; None: not measured."""

    teacher_accuracy: float | None = None
    agreement: float | None = None  # %, of images on which student and teacher answer the same
    kl: float | None = None  # nats, mean KL(teacher || student)
    calibration_error: float | None = None  # %, 15 bins
    calibration_error_scaled: float | None = None  # after temperature scaling
    temperature: float | None = None
    temperature_split: str | None = None  # what the temperature was fitted on
    per_class: tuple[ClassRow, ...] = ()
    # of "student" and "teacher":
    images_per_second: dict[str, float | None] = field(default_factory=dict)
    parameters: dict[str, int | None] = field(default_factory=dict)
    embedding: dict[str, tuple[EmbeddingPoint, ...] | None] = field(
        default_factory=dict
    )  # test images, two components


@dataclass(frozen=True)
class ConfirmationRow:
    """One retraining on the full training set, and its accuracy on the test set."""

    role: str  # "best", "paper", "ce", "kd", ...
    trial: int | None
    seed: int
    accuracy: float
    split: str = "test"
    top1: float = nan  # accuracy, whatever the metric
    epochs: int = 0
    seconds: float = nan  # of all epochs, wall-clock
    analysis: Analysis | None = None
    peer_accuracies: tuple[float, ...] = ()  # of the other students of a trial that has several


@dataclass(frozen=True)
class PublishedRow:
    """A number that a paper or an official code prints for a method, student and teacher."""

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
    dataset: str
    state: Literal["running", "interrupted", "finished"]
    facts: dict[str, str]  # commit, hardware, versions, command, seeds, split ...
    space: dict[str, Dimension]
    paper_point: dict[str, Scalar]
    trials: Sequence[TrialRow]
    epochs: Sequence[EpochRow]
    budget_epochs: int  # of one full trial
    rungs: Sequence[int]  # epochs at which the pruner judged
    split: str = ""  # how the held-out images were set apart
    objectives: Sequence[str] = ("accuracy",)  # of the search
    plus_kd: bool = False  # the method's loss stands beside KD's
    confirmations: Sequence[ConfirmationRow] = ()
    published: Sequence[PublishedRow] = ()  # of this method and pair
    device_kind: str = "device"  # what device-hours count: "GPU" or "CPU"
    trial_devices: float = 1.0  # of one trial
    retraining_devices: float = 1.0  # of one retraining
    teacher_hours: float = 0.0  # device-hours that the study's own teacher took
    method_settings: tuple[tuple[str, Scalar | None], ...] = ()  # of the method at the paper's point
    conditions: dict[str, Scalar | None] = field(default_factory=dict)  # what compared runs should share
    units: dict[str, str] = field(default_factory=dict)  # path -> unit, for the axis titles
    environments: Sequence[dict[str, str]] = ()  # "precision", "device" of trials and retrainings that say
    problems: Sequence[str] = ()  # what could not be read, or differs from what was expected

    @property
    def metric(self) -> str:
        """Returns the metric that its trials are judged by."""
        return self.objectives[0]

    @property
    def metric_title(self) -> str:
        """Returns the metric in words."""
        return METRIC_TITLES[self.metric]

    @property
    def held_out_label(self) -> str:
        """Returns the title of an axis or a column of held-out scores."""
        return f"held-out {self.metric_title} (%)"

    @property
    def test_label(self) -> str:
        """Returns the title of an axis or a column of scores on the test set."""
        return f"test {self.metric_title} (%)"

    def complete_trials(self) -> list[TrialRow]:
        """Returns the complete trials with a finite accuracy, within the study's constraints, best first."""
        trials = [t for t in self.trials if t.state == "COMPLETE" and has_accuracy(t) and not t.breaks]
        return sorted(trials, key=lambda t: (-get_accuracy(t), t.number))

    def paper_trial(self) -> TrialRow | None:
        """Returns the finished trial of the paper's point."""
        complete = (t for t in self.trials if t.state == "COMPLETE" and has_accuracy(t))
        return next((t for t in complete if t.role == "paper"), None)

    def diff_from_paper(self) -> dict[str, tuple[Scalar | None, Scalar | None]]:
        """Returns where the best recipe leaves the paper's: {path: (paper, best)}."""
        best = self.complete_trials()[:1]
        best_params = best[0].params if best else {}
        pairs = {path: (self.paper_point.get(path), best_params.get(path)) for path in self.space}
        return {path: pair for path, pair in pairs.items() if best and pair[0] != pair[1]}

    def epochs_by_trial(self) -> dict[int, list[EpochRow]]:
        """Returns each trial's epochs in order; of an epoch that was run again, the last."""
        rows: dict[int, dict[int, EpochRow]] = {}
        for row in self.epochs:
            rows.setdefault(row.trial, {})[row.epoch] = row
        return {
            trial: [rows_by_epoch[e] for e in sorted(rows_by_epoch)]
            for trial, rows_by_epoch in sorted(rows.items())
        }

    def search_hours(self) -> float:
        """Returns the device-hours of the search."""
        return sum(map(get_seconds, self.trials)) / 3600 * self.trial_devices

    def retraining_hours(self) -> float:
        """Returns the device-hours of all retrainings."""
        return (
            sum(row.seconds for row in self.confirmations if isfinite(row.seconds))
            / 3600
            * self.retraining_devices
        )

    def axis_title(self, path: str) -> str:
        """Returns an axis title: the path in the study file, and its unit where it has one."""
        return f"{path} ({self.units[path]})" if path in self.units else path


def format_counts(counts: Mapping[str, int]) -> str:
    """Returns how many trials have each value, the most frequent first."""
    return ", ".join(f"{n} x {value}" for value, n in sorted(counts.items(), key=lambda item: -item[1]))


def has_accuracy(trial: TrialRow) -> bool:
    """Returns whether a trial has a finite accuracy."""
    return trial.accuracy is not None and isfinite(trial.accuracy)


def get_accuracy(trial: TrialRow) -> float:
    """Returns the accuracy of a trial that has one."""
    assert trial.accuracy is not None, f"trial {trial.number} has no accuracy"
    return trial.accuracy


def get_seconds(trial: TrialRow) -> float:
    """Returns the seconds for which a trial held its devices."""
    if trial.seconds is not None:
        return trial.seconds
    if trial.started is None or trial.ended is None:
        return 0.0
    return max(0.0, trial.ended - trial.started)


def state_label(state: TrialState) -> str:
    """Returns a trial's state as a word of a sentence."""
    return "failed" if state == "FAIL" else state.lower()

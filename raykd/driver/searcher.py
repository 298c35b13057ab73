"""The search: its state in Optuna, its interface to Ray Tune.

An Optuna study in the run's journal knows every trial, its values by epoch and the pruner's rungs. Tune asks
`StudySearch` what to run next and tells it how trials end; the scheduler asks Optuna's pruner at every epoch.

Trials that were running when a driver died are RUNNING in the journal. Their epochs on disk are judged first,
as the dead driver would have judged them; those that go on are handed out again, under their own numbers,
before anything new is drawn.
"""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from optuna.trial import TrialState
from ray.tune.search import Searcher

from raykd.driver.disk_budget import DiskBudget
from raykd.driver.end_of_search import EndOfSearch
from raykd.driver.optuna_study import open_optuna_study
from raykd.driver.proposals import Proposals
from raykd.driver.rungs_history import DIVERGED
from raykd.driver.samplers import make_pruner
from raykd.driver.session import MAX_LOST_WORKERS
from raykd.metric import get_score, select_scores
from raykd.spec import Scalar
from raykd.store import file_names
from raykd.store.run_files import RunFiles, drop_checkpoints
from raykd.study.constraints import find_student, format_excess
from raykd.study.study import Study
from raykd.training.failure import is_lost, is_preempted

PRUNED_AT = "pruned_at"  # the user attribute of a trial that the pruner stops: the epoch


class StudySearch(Searcher):
    """Hands out trials and writes down their ends.

    Args:
        study: The study.
        run_files: Of its run.
        make_config: (number, params) -> the plain dict that Tune hands to the trial.
        num_slots: How many trials may run at once.
        on_update: Is called at every change of a trial's row (what trial.json holds).

    Raises:
        UserError: As for `open_optuna_study`.
    """

    def __init__(
        self,
        study: Study,
        run_files: RunFiles,
        make_config: Callable[[int, dict[str, Scalar]], dict[str, Any]],
        num_slots: Callable[[], int],
        on_update: Callable[[dict[str, Any]], None],
    ) -> None:
        super().__init__(metric="accuracy", mode="max")
        self.study, self.run_files, self.space = study, run_files, study.search_space()
        self._make_config, self._num_slots, self._on_update = make_config, num_slots, on_update
        self.rows = {row["number"]: row for row in run_files.trials()}
        self.running: dict[str, int] = {}  # numbers by Tune's trial ids
        self.stop_reason = ""  # the reason when the search cannot go on as things are
        self._num_crashes: Counter[int] = Counter()  # lost without notice
        # of running trials: up to when their seconds are in the row, on the monotonic clock
        self._counted_until: dict[int, float] = {}
        self._disk_budget = DiskBudget(study, run_files)
        self._end = EndOfSearch(study, run_files)
        pruner = make_pruner(study)
        self.optuna_study, self._storage = open_optuna_study(
            study, run_files, pruner, lambda message: on_update({"message": message})
        )
        self._students = run_files.students()
        self._proposals = Proposals(study, self.optuna_study, self._storage, self._students)
        self._to_resume: list[int] = []
        self._take_up()

    @property
    def end_reason(self) -> str:
        """The reason when the study ends before its trials are used up; else ""."""
        return self._end.reason

    # What Tune calls

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Returns the next trial's config; None where there is none for now, FINISHED where none comes."""
        if self._is_exhausted() or self.stop_reason:
            return None if self.running else Searcher.FINISHED
        if len(self.running) >= self._num_slots() or self._lacks_room() or self._lacks_hours():
            return None
        if self._to_resume:
            row = self.rows[self._to_resume.pop(0)]
        else:
            row = self._make_row(*self._proposals.draw(list(self.rows.values())))
        self.running[trial_id] = row["number"]
        row |= {"state": "RUNNING", "reason": "", "started": row["started"] or time.time()}
        self._write_row(row)
        self.run_files.trial(row["number"]).remove(file_names.FAILURE)
        return self._make_config(row["number"], row["params"])

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Does nothing: OptunaPruningScheduler gets each result first and calls `record_epoch`."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Writes down a trial's end, or makes it wait to be tried again."""
        number = self.running.pop(trial_id, None)
        if number is None:
            return
        if error:
            self._handle_failure(number)
        elif result is not None and result.get("final"):
            self._tell(number, TrialState.COMPLETE)
        else:
            self._tell(number, TrialState.PRUNED)

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the journal holds the search's state."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing, as `save`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    # What a trial reports

    def record_epoch(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Writes down how good a trial is at an epoch; returns whether it should be stopped there."""
        number, epoch = self.running[trial_id], int(result["epoch"])
        stop = self._report_to_optuna(number, epoch, float(get_score(result)), result["final"])
        row = self.rows[number]
        seconds_before = (row["seconds_per_epoch"] or 0.0) * (epoch - 1)
        seconds = (seconds_before + float(result["seconds"])) / epoch
        progress = select_scores(result) | {"epochs": epoch, "seconds_per_epoch": seconds}
        self._write_row(row | progress | {"parameters": result["parameters"]})
        return stop

    def _report_to_optuna(self, number: int, epoch: int, score: float, final: bool) -> bool:
        """An epoch trained twice is reported and judged once."""
        if epoch in self._storage.get(number).intermediate_values:
            return False
        with self._storage.transaction():
            self._storage.set_value(number, epoch, score)
            stop = self.optuna_study.pruner.prune(self.optuna_study, self._storage.get(number)) and not final
            if stop:
                self._storage.set_user_attr(number, PRUNED_AT, epoch)
        return stop

    # What a driver that died left behind

    def _take_up(self) -> None:
        """Completes what was written by half; each running trial is drawn, judged, and waits to go on."""
        for trial in self.optuna_study.get_trials(deepcopy=False):
            number, row = trial.number, self.rows.get(trial.number)
            if trial.state == TrialState.RUNNING:
                if row is None:
                    self.rows[number] = self._make_row(number, *self._proposals.draw_again(number))
                if not self._stop_by_epochs(number):
                    self._to_resume.append(number)
            elif row is not None and trial.state.is_finished() and row["state"] in ("RUNNING", "WAITING"):
                self._write_end(number, trial.state, trial.user_attrs.get("reason", ""))

    def _stop_by_epochs(self, number: int) -> bool:
        """Judge the epochs on disk that no driver was told of; whether the trial was stopped at one."""
        pruned_at, judged = self._storage.get(number).user_attrs.get(PRUNED_AT), []
        for row in self.run_files.epochs(number):
            epoch = row["epoch"]
            if epoch >= self.study.recipe.epochs:  # the trial itself reports its last
                break
            judged.append(row)
            if pruned_at is None and self._report_to_optuna(number, epoch, get_score(row), final=False):
                pruned_at = epoch
            if epoch == pruned_at:
                break
        if judged:
            seconds = sum(row["seconds"] for row in judged) / len(judged)
            progress = {"epochs": len(judged), "seconds_per_epoch": seconds}
            self.rows[number] |= progress | select_scores(judged[-1])
        if pruned_at is not None:
            self._tell(number, TrialState.PRUNED)
        return pruned_at is not None

    # What a comparison asks and adds

    def budget_part(self) -> float:
        """Returns the part of its trials or device-hours that is used up, by running trials, too."""
        part = (self.num_ended() + len(self.running)) / self.study.budget.trials
        return max(part, self._end.device_hours_part(list(self.rows.values()), at_end=True))

    def count_role(self, role: str) -> int:
        """Returns how many trials have a role, those that wait in Optuna's queue too."""
        trials = self.optuna_study.get_trials(deepcopy=False)
        return sum(trial.user_attrs.get("role") == role for trial in trials)

    def enqueue(self, point: dict[str, Scalar], role: str) -> None:
        """Puts a point into Optuna's queue, of which a trial is made before the sampler proposes another."""
        self.optuna_study.enqueue_trial(point, user_attrs={"role": role})

    # What follows from it

    def num_ended(self) -> int:
        """Returns how many trials have ended."""
        return sum(row["state"] in ("COMPLETE", "PRUNED", "FAIL") for row in self.rows.values())

    def is_done(self) -> bool:
        """Returns whether all trials that were asked for have ended, or the search has.

        The reason of that is in `end_reason` or `stop_reason`.
        """
        return not self.running and (
            self.num_ended() >= self.study.budget.trials or bool(self.end_reason or self.stop_reason)
        )

    def _is_exhausted(self) -> bool:
        rows = list(self.rows.values())
        if self._end.is_reached(rows, bool(self._to_resume)):
            return True
        if self._to_resume:
            return False
        if self.num_ended() + len(self.running) >= self.study.budget.trials:
            return True
        if reason := self._proposals.describe_small_gains():
            self._end.reason = reason
            return True
        if not self._proposals.are_used_up(rows):
            return False
        if not self.running:
            self._end.reason = f"all {self._proposals.num_points} points of the space are tried"
        return True

    def _lacks_hours(self) -> bool:
        """Whether a new trial must wait until it is known what the running ones leave of the device-hours."""
        return not self._to_resume and self._end.device_hours_part(list(self.rows.values()), at_end=True) >= 1

    def _lacks_room(self) -> bool:
        """Whether the next trial must wait for room on the disk; with none under way the study stops."""
        reason = self._disk_budget.make_room(list(self.rows.values()), list(self.running.values()))
        self.stop_reason = reason if reason and not self.running else ""
        return bool(reason)

    def _handle_failure(self, number: int) -> None:
        """A lost process is tried again for nothing; an error uses up one of the trial's `max_errors`.

        Who was told beforehand that its machine would go is tried again however often.
        """
        row = self.rows[number]
        failure = self.run_files.trial(number).read_json(file_names.FAILURE)
        if failure is None or is_lost(failure):
            reason = failure["reason"] if failure else "its process or machine was lost"
            row |= {"lost": row["lost"] + 1, "reason": reason}
            self._num_crashes[number] += not is_preempted(failure)
            retry = self._num_crashes[number] <= MAX_LOST_WORKERS
        else:
            row |= {"errors": row["errors"] + 1, "reason": failure["reason"]}
            retry = failure["kind"] == "error" and row["errors"] < self.study.cluster.max_errors
        for name in ("lost", "errors"):
            self._storage.set_user_attr(number, name, row[name])
        if retry:
            if not self._stop_by_epochs(number):
                self._to_resume.append(number)
                self._write_row(row | {"state": "WAITING"})
            return
        diverged = failure is not None and failure["kind"] == "diverged"
        if diverged:
            self._storage.set_user_attr(number, DIVERGED, True)
        prune = diverged and self.study.cluster.on_divergence == "prune"
        self._tell(number, TrialState.PRUNED if prune else TrialState.FAIL, reason=row["reason"])

    def _tell(self, number: int, state: TrialState, reason: str = "") -> None:
        row = self.rows[number]
        values = (
            [row[name] for name in self.study.search.objectives] if state == TrialState.COMPLETE else None
        )
        with self._storage.transaction():
            if reason:
                self._storage.set_user_attr(number, "reason", reason)
            self.optuna_study.tell(number, values, state)
        self._write_end(number, state, reason)

    def _write_end(self, number: int, state: TrialState, reason: str) -> None:
        self._write_row(self.rows[number] | {"state": state.name, "reason": reason, "ended": time.time()})
        drop_checkpoints(self.run_files.trial(number))
        front: set[int] = set()
        if len(self.study.search.objectives) > 1:
            front = {trial.number for trial in self.optuna_study.best_trials}
        self._disk_budget.keep_best(list(self.rows.values()), front)
        self._disk_budget.make_room(list(self.rows.values()), list(self.running.values()), num_new=0)

    def _make_row(self, number: int, role: str, params: dict[str, Scalar]) -> dict[str, Any]:
        """The row (trial.json) of a trial that has not begun."""
        metric = self.study.search.metric
        breaks = format_excess(find_student(self._students, params))
        return (
            {
                "number": number, "role": role, "params": params, "state": "RUNNING", "reason": "",
                "started": None, "ended": None, "seconds": 0.0, "accuracy": None, "seconds_per_epoch": None,
                "parameters": None, "epochs": 0, "errors": 0, "lost": 0,
            }
            | ({} if metric == "accuracy" else {"metric": metric, metric: None})
            | ({"breaks": breaks} if breaks else {})
        )  # fmt: skip

    def _write_row(self, row: dict[str, Any]) -> None:
        """Keep a row, with the seconds for which the trial has held its devices: not while nobody ran it."""
        number, now = row["number"], time.monotonic()
        row["seconds"] += now - self._counted_until.pop(number, now)
        if row["state"] == "RUNNING":
            self._counted_until[number] = now
        self.rows[number] = row
        self.run_files.trial(number).write_json(file_names.TRIAL, row)
        self._on_update(row)

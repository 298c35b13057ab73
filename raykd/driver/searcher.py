"""The search: its state in Optuna, its interface to Ray Tune.

An Optuna study in the run's journal knows every trial, its values by epoch and the pruner's rungs. Tune asks
`StudySearch` what to run next and tells it how trials end; the scheduler asks Optuna's pruner at every epoch.

A sampler is made anew for every trial from (seed, number of the trial): what it proposes depends on the
history alone, so a study that was interrupted proposes what an uninterrupted one would. Trials that were
running when a driver died are RUNNING in the journal; they are handed out again, under their own number,
before anything new is sampled.
"""

import time
from collections.abc import Callable
from typing import Any

import optuna
from optuna.trial import Trial, TrialState
from ray.tune.search import Searcher

from raykd.driver.disk_budget import DiskBudget
from raykd.driver.optuna_study import open_optuna_study, to_distribution
from raykd.driver.samplers import make_pruner, make_sampler
from raykd.driver.session import MAX_LOST_WORKERS
from raykd.spec import Dimension, Scalar
from raykd.store import file_names
from raykd.store.run_files import RunFiles, drop_checkpoints
from raykd.store.status import device_hours, rank_trials
from raykd.study.space import draw
from raykd.study.study import Study

MAX_INITIAL_FAILURES = 5  # so many trials failed and none succeeded: the study stops


class StudySearch(Searcher):
    """Hands out trials and writes down their ends.

    `make_config(number, params)` gives the plain dict that Tune hands to the trial; `num_slots()` how many
    may run at once; `on_update(row)` is called at every change of a trial's row (what trial.json holds).
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
        self.running: dict[str, Trial] = {}
        self.end_reason = ""  # the reason when the study ends before its trials are used up
        self._removed: set[int] = set()  # trials whose students were removed
        self._counted_until: dict[
            int, float
        ] = {}  # of running trials: up to when their seconds are in the row
        self.stop_reason = ""  # the reason when it cannot go on as things are
        self._disk_budget = DiskBudget(study, run_files)
        self._deadline = time.time() + 3600 * study.budget.hours if study.budget.hours else None
        pruner = make_pruner(study.search.pruner, study.recipe.epochs)
        self.optuna_study = open_optuna_study(
            study, run_files, pruner, lambda message: on_update({"message": message})
        )
        interrupted = self.optuna_study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        self._to_resume = [Trial(self.optuna_study, frozen._trial_id) for frozen in interrupted]

    # What Tune calls

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._is_exhausted() or self.stop_reason:
            return None if self.running else Searcher.FINISHED
        if len(self.running) >= self._num_slots() or self._lacks_room():
            return None
        trial = self._to_resume.pop(0) if self._to_resume else self._ask()
        self.running[trial_id] = trial
        row = self.rows.get(trial.number) or self._make_row(trial)
        row |= {"state": "RUNNING", "reason": "", "started": row["started"] or time.time()}
        self._write_row(row)
        self.run_files.trial(trial.number).remove(file_names.FAILURE)
        return self._make_config(trial.number, row["params"])

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        pass  # OptunaPruningScheduler gets each result first and calls `record_epoch`

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        trial = self.running.pop(trial_id, None)
        if trial is None:
            return
        if error:
            self._handle_failure(trial)
        elif result is not None and result.get("final"):
            self._tell(trial, TrialState.COMPLETE)
        else:
            self._tell(trial, TrialState.PRUNED)

    def record_epoch(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Write down an epoch's accuracy; whether the trial should be stopped at it."""
        trial = self.running[trial_id]
        epoch, accuracy = int(result["epoch"]), float(result["accuracy"])
        stop = self._report_to_optuna(trial, epoch, accuracy)
        row = self.rows[trial.number]
        seconds_before = (row["seconds_per_epoch"] or 0.0) * (epoch - 1)
        seconds = (seconds_before + float(result["seconds"])) / epoch
        progress = {"accuracy": accuracy, "epochs": epoch, "seconds_per_epoch": seconds}
        self._write_row(row | progress | {"parameters": result["parameters"]})
        return not result["final"] and stop

    def _report_to_optuna(self, trial: Trial, epoch: int, accuracy: float) -> bool:
        """Tell Optuna of an epoch, and first of those that a driver did not live to record."""
        recorded = self._get_frozen_trial(trial).intermediate_values
        values = {epoch: accuracy}
        if epoch > 1 and epoch - 1 not in recorded:
            rows = self.run_files.epochs(trial.number)
            values = {row["epoch"]: row["accuracy"] for row in rows if row["epoch"] < epoch} | values
        stop = False
        for step, value in values.items():
            if step not in recorded:
                self.optuna_study._storage.set_trial_intermediate_value(trial._trial_id, step, value)
            stop = self.optuna_study.pruner.prune(self.optuna_study, self._get_frozen_trial(trial)) or stop
        return stop

    def _get_frozen_trial(self, trial: Trial) -> optuna.trial.FrozenTrial:
        return self.optuna_study._storage.get_trial(trial._trial_id)

    def save(self, checkpoint_path: str) -> None:
        pass  # the journal holds the search's state

    def restore(self, checkpoint_path: str) -> None:
        pass

    def __getstate__(self) -> dict[str, Any]:
        return {}

    # What follows from it

    def num_ended(self) -> int:
        return sum(row["state"] in ("COMPLETE", "PRUNED", "FAIL") for row in self.rows.values())

    def is_done(self) -> bool:
        """Whether all trials that were asked for have ended, or the study did, for the reason in `end_reason`
        or `stop_reason`.
        """
        return not self.running and (
            self.num_ended() >= self.study.budget.trials or bool(self.end_reason or self.stop_reason)
        )

    def _is_exhausted(self) -> bool:
        states = [row["state"] for row in self.rows.values()]
        if (
            states.count("FAIL") >= MAX_INITIAL_FAILURES
            and "COMPLETE" not in states
            and "PRUNED" not in states
        ):
            last_reason = next(
                row["reason"] for row in reversed(self.rows.values()) if row["state"] == "FAIL"
            )
            self.end_reason = f"the first {MAX_INITIAL_FAILURES} trials failed, the last with: {last_reason}"
        budget = self.study.budget
        if self._deadline and time.time() > self._deadline:
            self.end_reason = f"budget/hours = {budget.hours:g} is used up"
        spent = device_hours(self.study.to_dict(), list(self.rows.values()))
        if budget.device_hours and spent > budget.device_hours:
            self.end_reason = f"budget/device_hours = {budget.device_hours:g} is used up"
        num_begun = self.num_ended() + len(self.running)
        return bool(self.end_reason) or (not self._to_resume and num_begun >= self.study.budget.trials)

    def _lacks_room(self) -> bool:
        """Whether the next trial must wait for room on the disk; with none under way the study stops."""
        reason = self._disk_budget.make_room(list(self.rows.values()), self._running_numbers())
        self.stop_reason = reason if reason and not self.running else ""
        return bool(reason)

    def _running_numbers(self) -> list[int]:
        return [trial.number for trial in self.running.values()]

    def _ask(self) -> Trial:
        trials = self.optuna_study.get_trials(deepcopy=False)
        number = sum(t.state != TrialState.WAITING for t in trials)
        self.optuna_study.sampler = make_sampler(self.study.search.sampler, self.study.search.seed, number)
        return self.optuna_study.ask()

    def _make_row(self, trial: Trial) -> dict[str, Any]:
        params = draw(self.space, lambda path, dimension: suggest(trial, path, dimension))
        role = trial.user_attrs.get("role", "searched")
        return {
            "number": trial.number, "role": role, "params": params, "state": "RUNNING", "reason": "",
            "started": None, "ended": None, "seconds": 0.0, "accuracy": None, "seconds_per_epoch": None,
            "parameters": None, "epochs": 0, "errors": 0, "lost": 0,
        }  # fmt: skip

    def _handle_failure(self, trial: Trial) -> None:
        """A lost process is tried again for nothing; an error uses up one of the trial's `max_errors`."""
        row = self.rows[trial.number]
        failure = self.run_files.trial(trial.number).read_json(file_names.FAILURE)
        if failure is None or failure["kind"] == "storage":  # neither is the trial's fault
            reason = failure["reason"] if failure else "its process or machine was lost"
            row |= {"lost": row["lost"] + 1, "reason": reason}
            retry = row["lost"] <= MAX_LOST_WORKERS
        else:
            row |= {"errors": row["errors"] + 1, "reason": failure["reason"]}
            retry = failure["kind"] == "error" and row["errors"] < self.study.cluster.max_errors
        for name in ("lost", "errors"):
            trial.set_user_attr(name, row[name])
        if retry:
            self._to_resume.append(trial)
            self._write_row(row | {"state": "WAITING"})
            return
        diverged = failure is not None and failure["kind"] == "diverged"
        prune = diverged and self.study.cluster.on_divergence == "prune"
        self._tell(trial, TrialState.PRUNED if prune else TrialState.FAIL, reason=row["reason"])

    def _tell(self, trial: Trial, state: TrialState, reason: str = "") -> None:
        if reason:
            trial.set_user_attr("reason", reason)
        row = self.rows[trial.number]
        is_complete = state == TrialState.COMPLETE
        self.optuna_study.tell(
            trial, [row[name] for name in self.study.search.objectives] if is_complete else None, state
        )
        self._write_row(row | {"state": state.name, "reason": reason, "ended": time.time()})
        drop_checkpoints(self.run_files.trial(trial.number))
        self._keep_best()
        self._disk_budget.make_room(list(self.rows.values()), self._running_numbers(), num_new=0)

    def _keep_best(self) -> None:
        """Only the students of the best trials stay on disk; with several objectives, the whole front's."""
        front = (
            {t.number for t in self.optuna_study.best_trials}
            if len(self.study.search.objectives) > 1
            else set()
        )
        for row in rank_trials(list(self.rows.values()))[self.study.keep :]:
            if row["number"] not in front | self._removed:
                self._removed.add(row["number"])
                self.run_files.trial(row["number"]).remove(file_names.STUDENT)

    def _write_row(self, row: dict[str, Any]) -> None:
        """Keep a row, with the seconds for which the trial has held its devices: not while nobody ran it."""
        number, now = row["number"], time.time()
        row["seconds"] += now - self._counted_until.pop(number, now)
        if row["state"] == "RUNNING":
            self._counted_until[number] = now
        self.rows[number] = row
        self.run_files.trial(number).write_json(file_names.TRIAL, row)
        self._on_update(row)


def suggest(trial: Trial, path: str, dimension: Dimension) -> Scalar:
    """One dimension's value from Optuna, under its path."""
    value: Scalar = trial._suggest(path, to_distribution(dimension))
    return value

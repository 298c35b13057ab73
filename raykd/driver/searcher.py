"""The search's memory and its tongue to Ray Tune.

An Optuna study in the run's journal knows every trial, its values by epoch and the pruner's rungs. Tune asks
`StudySearch` what to run next and tells it how trials end; the scheduler asks Optuna's pruner at every epoch.

A sampler is made anew for every trial from (seed, number of the trial): what it proposes depends on the
history alone, so a study that was interrupted proposes what an uninterrupted one would. Trials that were
running when a driver died are RUNNING in the journal; they are handed out again, under their own number,
before anything new is drawn.
"""

import time
from collections.abc import Callable
from typing import Any

import optuna
from optuna.trial import Trial, TrialState
from ray.tune.search import Searcher

from raykd.driver.disk_budget import Disk
from raykd.driver.optuna_study import distribution, open_memory
from raykd.driver.samplers import pruner, sampler
from raykd.driver.session import LOSSES
from raykd.spec import Dimension, Scalar
from raykd.store.run_files import Ledger, settle
from raykd.store.status import device_hours, leaders
from raykd.study.space import draw
from raykd.study.study import Study

HOPELESS = 5  # so many trials failed and none succeeded: the study stops


class StudySearch(Searcher):
    """Hands out trials and writes down their ends.

    `prepare(number, drawn)` gives the plain dict that Tune hands to the trial; `slots()` how many may run
    at once; `changed(row)` hears of every change of a trial's row (the row is what trial.json holds).
    """

    def __init__(
        self,
        study: Study,
        ledger: Ledger,
        prepare: Callable[[int, dict[str, Scalar]], dict[str, Any]],
        slots: Callable[[], int],
        changed: Callable[[dict[str, Any]], None],
    ) -> None:
        super().__init__(metric="accuracy", mode="max")
        self.spec, self.ledger, self.space = study, ledger, study.opened()
        self._prepare, self._slots, self._changed = prepare, slots, changed
        self.rows = {row["number"]: row for row in ledger.trials()}
        self.live: dict[str, Trial] = {}
        self.why = ""  # the reason when the study ends before its trials are used up
        self._gone: set[int] = set()  # trials whose students were removed
        self._counted: dict[int, float] = {}  # of running trials: up to when their seconds are in the row
        self.stopped = ""  # the reason when it cannot go on as things are
        self._disk = Disk(study, ledger)
        self._deadline = time.time() + 3600 * study.budget.hours if study.budget.hours else None
        rungs = pruner(study.search.pruner, study.recipe.epochs)
        self.optuna = open_memory(study, ledger, rungs, lambda words: changed({"words": words}))
        running = self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        self._again = [Trial(self.optuna, frozen._trial_id) for frozen in running]

    # What Tune calls

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._exhausted() or self.stopped:
            return None if self.live else Searcher.FINISHED
        if len(self.live) >= self._slots() or self._no_room():
            return None
        trial = self._again.pop(0) if self._again else self._ask()
        self.live[trial_id] = trial
        row = self.rows.get(trial.number) or self._new_row(trial)
        row |= {"state": "RUNNING", "reason": "", "started": row["started"] or time.time()}
        self._write(row)
        self.ledger.trial(trial.number).remove("failure.json")
        return self._prepare(trial.number, row["drawn"])

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        pass  # Rungs hears of each result first, and tells `heard`

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        trial = self.live.pop(trial_id, None)
        if trial is None:
            return
        if error:
            self._failed(trial)
        elif result is not None and result.get("final"):
            self._told(trial, TrialState.COMPLETE)
        else:
            self._told(trial, TrialState.PRUNED)

    def heard(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Write down an epoch's accuracy; whether the trial should be stopped at it."""
        trial = self.live[trial_id]
        epoch, accuracy = int(result["epoch"]), float(result["accuracy"])
        stop = self._report(trial, epoch, accuracy)
        row = self.rows[trial.number]
        before = (row["seconds_per_epoch"] or 0.0) * (epoch - 1)
        seconds = (before + float(result["seconds"])) / epoch
        news = {"accuracy": accuracy, "epochs": epoch, "seconds_per_epoch": seconds}
        self._write(row | news | {"parameters": result["parameters"]})
        return not result["final"] and stop

    def _report(self, trial: Trial, epoch: int, accuracy: float) -> bool:
        """Tell Optuna of an epoch, and first of those that a driver did not live to hear of."""
        known = self._frozen(trial).intermediate_values
        news = {epoch: accuracy}
        if epoch > 1 and epoch - 1 not in known:
            rows = self.ledger.epochs(trial.number)
            news = {row["epoch"]: row["accuracy"] for row in rows if row["epoch"] < epoch} | news
        stop = False
        for step, value in news.items():
            if step not in known:
                self.optuna._storage.set_trial_intermediate_value(trial._trial_id, step, value)
            stop = self.optuna.pruner.prune(self.optuna, self._frozen(trial)) or stop
        return stop

    def _frozen(self, trial: Trial) -> optuna.trial.FrozenTrial:
        return self.optuna._storage.get_trial(trial._trial_id)

    def save(self, checkpoint_path: str) -> None:
        pass  # the journal is the memory

    def restore(self, checkpoint_path: str) -> None:
        pass

    def __getstate__(self) -> dict[str, Any]:
        return {}

    # What follows from it

    def told(self) -> int:
        return sum(row["state"] in ("COMPLETE", "PRUNED", "FAIL") for row in self.rows.values())

    def done(self) -> bool:
        """Whether all trials that were asked for have ended, or the study did, for the reason in `why` or
        `stopped`.
        """
        return not self.live and (self.told() >= self.spec.budget.trials or bool(self.why or self.stopped))

    def _exhausted(self) -> bool:
        ends = [row["state"] for row in self.rows.values()]
        if ends.count("FAIL") >= HOPELESS and "COMPLETE" not in ends and "PRUNED" not in ends:
            last = next(row["reason"] for row in reversed(self.rows.values()) if row["state"] == "FAIL")
            self.why = f"the first {HOPELESS} trials failed, the last with: {last}"
        budget = self.spec.budget
        if self._deadline and time.time() > self._deadline:
            self.why = f"budget/hours = {budget.hours:g} is used up"
        spent = device_hours(self.spec.plain(), list(self.rows.values()))
        if budget.device_hours and spent > budget.device_hours:
            self.why = f"budget/device_hours = {budget.device_hours:g} is used up"
        begun = self.told() + len(self.live)
        return bool(self.why) or (not self._again and begun >= self.spec.budget.trials)

    def _no_room(self) -> bool:
        """Whether the next trial must wait for room on the disk; with none under way the study stops."""
        full = self._disk.full(list(self.rows.values()), self._numbers())
        self.stopped = full if full and not self.live else ""
        return bool(full)

    def _numbers(self) -> list[int]:
        return [trial.number for trial in self.live.values()]

    def _ask(self) -> Trial:
        begun = self.optuna.get_trials(deepcopy=False)
        number = sum(t.state != TrialState.WAITING for t in begun)
        self.optuna.sampler = sampler(self.spec.search.sampler, self.spec.search.seed, number)
        return self.optuna.ask()

    def _new_row(self, trial: Trial) -> dict[str, Any]:
        drawn = draw(self.space, lambda path, dimension: suggest(trial, path, dimension))
        role = trial.user_attrs.get("role", "searched")
        return {
            "number": trial.number, "role": role, "drawn": drawn, "state": "RUNNING", "reason": "",
            "started": None, "ended": None, "seconds": 0.0, "accuracy": None, "seconds_per_epoch": None,
            "parameters": None, "epochs": 0, "tries": 0, "lost": 0,
        }  # fmt: skip

    def _failed(self, trial: Trial) -> None:
        """A lost process is tried again for nothing; an error uses up one of the trial's tries."""
        row = self.rows[trial.number]
        failure = self.ledger.trial(trial.number).read_json("failure.json")
        if failure is None or failure["kind"] == "storage":  # neither is the trial's fault
            reason = failure["reason"] if failure else "its process or machine was lost"
            row |= {"lost": row["lost"] + 1, "reason": reason}
            again = row["lost"] <= LOSSES
        else:
            row |= {"tries": row["tries"] + 1, "reason": failure["reason"]}
            again = failure["kind"] == "error" and row["tries"] < self.spec.cluster.tries
        for name in ("lost", "tries"):
            trial.set_user_attr(name, row[name])
        if again:
            self._again.append(trial)
            self._write(row | {"state": "WAITING"})
            return
        diverged = failure is not None and failure["kind"] == "diverged"
        prune = diverged and self.spec.cluster.on_divergence == "prune"
        self._told(trial, TrialState.PRUNED if prune else TrialState.FAIL, reason=row["reason"])

    def _told(self, trial: Trial, state: TrialState, reason: str = "") -> None:
        if reason:
            trial.set_user_attr("reason", reason)
        row = self.rows[trial.number]
        ended = state == TrialState.COMPLETE
        self.optuna.tell(trial, [row[name] for name in self.spec.search.objectives] if ended else None, state)
        self._write(row | {"state": state.name, "reason": reason, "ended": time.time()})
        settle(self.ledger.trial(trial.number))
        self._keep_best()
        self._disk.full(list(self.rows.values()), self._numbers(), coming=0)

    def _keep_best(self) -> None:
        """Only the students of the best trials stay on disk; with several objectives, the whole front's."""
        front = {t.number for t in self.optuna.best_trials} if len(self.spec.search.objectives) > 1 else set()
        for row in leaders(list(self.rows.values()))[self.spec.keep :]:
            if row["number"] not in front | self._gone:
                self._gone.add(row["number"])
                self.ledger.trial(row["number"]).remove("student.safetensors")

    def _write(self, row: dict[str, Any]) -> None:
        """Keep a row, with the seconds for which the trial has held its devices: not while nobody ran it."""
        number, now = row["number"], time.time()
        row["seconds"] += now - self._counted.pop(number, now)
        if row["state"] == "RUNNING":
            self._counted[number] = now
        self.rows[number] = row
        self.ledger.trial(number).write_json("trial.json", row)
        self._changed(row)


def suggest(trial: Trial, path: str, dimension: Dimension) -> Scalar:
    """One dimension drawn by Optuna, under its path."""
    value: Scalar = trial._suggest(path, distribution(dimension))
    return value

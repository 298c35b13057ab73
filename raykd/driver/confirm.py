"""The end of a study: the leaders, the paper's point and the controls, retrained on the full training set.

Several seeds each, as Ray Train jobs; the test set is opened once, after the last epoch. A retraining whose
worker or machine was lost goes on from its checkpoint; one that fails is named with its reason, and
the others go on.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from raykd.driver import trainables
from raykd.driver.disk_budget import DiskBudget
from raykd.driver.resources import get_size, list_nodes, worker_slots
from raykd.driver.session import MAX_LOST_WORKERS
from raykd.driver.study_run import StudyRun
from raykd.store import file_names
from raykd.store.folder import Folder
from raykd.store.run_files import RunFiles, drop_checkpoints
from raykd.store.status import rank_trials, test_accuracy
from raykd.study.recipe import Recipe
from raykd.study.study import Study
from raykd.training import trial
from raykd.training.failure import is_lost, is_preempted


class Retraining(NamedTuple):
    """A recipe to be trained on the full training set with one seed."""

    run: StudyRun
    role: str
    seed: int
    recipe: Recipe
    number: int | None  # of the trial that it is

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.role}, seed {self.seed}"

    @property
    def folder(self) -> Folder:
        """Where it is trained."""
        return self.run.run_files.confirmation(self.role, self.seed)

    def is_done(self) -> bool:
        """Returns whether all is written that it owes."""
        return _is_done(self.run.run_files, self.role, self.seed)


def select_recipes(study: Study, rows: list[dict[str, Any]]) -> dict[str, tuple[Recipe, int | None]]:
    """Returns what is retrained: {role: (recipe, the trial it is; None for a control)}."""
    assert study.confirm is not None
    recipes: dict[str, tuple[Recipe, int | None]] = {}
    for rank, row in enumerate(rank_trials(rows)[: study.confirm.leaders], start=1):
        recipes["best" if rank == 1 else f"leader{rank}"] = (study.recipe_with(row["params"]), row["number"])
    recipes["paper"] = (study.recipe, next((r["number"] for r in rows if r["role"] == "paper"), None))
    for name in study.confirm.controls:
        if name != study.recipe.method.name:
            recipes[name] = (make_control(study.recipe, name), None)
    return recipes


# mdistiller's, configs/imagenet/*/kd.yaml: its KD on ImageNet has other values than on CIFAR-100
IMAGENET_KD = {"name": "kd", "temperature": 1.0, "weights": {"task": 0.5, "kd": 0.5}}


def make_control(recipe: Recipe, name: str) -> Recipe:
    """Returns the same recipe with another method at its paper's point for the data, alone.

    Of several students the first one is trained, by itself.
    """
    is_imagenet_kd = name == "kd" and recipe.data.name == "imagenet"
    method = IMAGENET_KD if is_imagenet_kd else {"name": name}
    student = recipe.to_dict()["student"] | {"copies": 1}
    return recipe.with_settings({"method": method, "plus_kd": None, "student": student, "peers": []})


def make_retraining_recipe(recipe: Recipe, seed: int) -> Recipe:
    """Returns the recipe on the full training set, nothing held out, with another seed."""
    data = recipe.to_dict()["data"] | {"holdout": 0.0}
    return recipe.with_settings({"data": data, "seed": seed})


def list_pending(runs: Sequence[StudyRun]) -> list[Retraining]:
    """Returns the retrainings that still owe something: their test accuracy, or their analysis; by seeds.

    Of the runs whose study has a confirmation and a complete trial. A process that is killed after its last
    checkpoint owes the analysis; begun again, it makes up for it.
    """
    retrainings = [retraining for run in runs for retraining in _list_retrainings(run)]
    return sorted((r for r in retrainings if not r.is_done()), key=lambda retraining: retraining.seed)


def _list_retrainings(run: StudyRun) -> list[Retraining]:
    study, rows = run.study, run.run_files.trials()
    if study.confirm is None or not rank_trials(rows):
        return []
    return [
        Retraining(run, role, seed, make_retraining_recipe(recipe, seed), number)
        for seed in range(1, study.confirm.seeds + 1)
        for role, (recipe, number) in select_recipes(study, rows).items()
    ]


def _is_done(run_files: RunFiles, role: str, seed: int) -> bool:
    """Whether all is written that a retraining owes."""
    has_analysis = run_files.confirmation(role, seed).exists(file_names.ANALYSIS)
    return has_analysis and test_accuracy(run_files, role, seed) is not None


def drop_done_checkpoints(run_files: RunFiles) -> None:
    """Removes the checkpoints of retrainings that are done, which a killed driver may have left."""
    for row in run_files.confirmations():
        if _is_done(run_files, row["role"], row["seed"]):
            drop_checkpoints(run_files.confirmation(row["role"], row["seed"]))


def confirm(
    runs: Sequence[StudyRun],
    make_job: Callable[..., trial.Job],
    on_update: Callable[[dict[str, Any]], None],
) -> dict[str, str]:
    """Retrains what is still to do; returns what failed and why, by the method.

    As many Ray Train jobs run at once as the cluster holds, each with a lane of retrainings.

    Args:
        runs: Of different methods. Their `auto` must have become numbers, the same for all.
        make_job: (study, recipe, folder, test=True) -> a Job.
        on_update: Is called with {"left": retrainings, "total": retrainings} whenever a lane ends.
    """
    import ray

    confirmation = _Confirmation(runs, make_job)
    running = confirmation.start_lanes()
    while running:
        for job_ref in ray.wait(list(running), timeout=1.0)[0]:
            if lane := confirmation.end_lane(running.pop(job_ref)):
                running[confirmation.start(lane)] = lane
        on_update({"left": len(list_pending(runs)), "total": confirmation.num_pending})
    return {method: "; ".join(reasons) for method, reasons in confirmation.failures.items()}


class _Confirmation:
    """What is known of retrainings under way: where there is room, what was lost, what failed."""

    def __init__(self, runs: Sequence[StudyRun], make_job: Callable[..., trial.Job]) -> None:
        study, self._make_job = runs[0].study, make_job
        assert study.confirm is not None
        self._size, self._workers = get_size(study), study.confirm.workers
        self._pending = list_pending(runs)
        self.num_pending = len(self._pending)
        self._rows = {run.method: run.run_files.trials() for run in runs}
        self._disk_budgets = {run.method: DiskBudget(*run) for run in runs}
        self._num_lost: Counter[tuple[str, str, int]] = Counter()
        self._num_crashes: Counter[tuple[str, str, int]] = Counter()  # of these, without notice
        self.failures: dict[str, list[str]] = {}  # by the method

    def start_lanes(self) -> dict[Any, list[Retraining]]:
        """Deals out all retrainings, and returns the lanes by Ray's references to their jobs."""
        for retraining in self._pending:
            _write_row(retraining, 0)
        num_lanes = max(1, min(self.num_pending, worker_slots(list_nodes(), self._size) // self._workers))
        for method in dict.fromkeys(retraining.run.method for retraining in self._pending):
            if reason := self._find_shortage(method, num_lanes):
                self.failures[method] = [reason]
        pending = [retraining for retraining in self._pending if retraining.run.method not in self.failures]
        lanes = [pending[offset::num_lanes] for offset in range(num_lanes)]
        return {self.start(lane): lane for lane in lanes if lane}

    def start(self, lane: list[Retraining]) -> Any:
        """Starts the Ray Train job of a lane, and returns Ray's reference to it."""
        import ray

        for retraining in lane:
            retraining.folder.remove(file_names.FAILURE)
        jobs = [self._make_job(r.run.study, r.recipe, r.folder.uri, test=True) for r in lane]
        run_job = ray.remote(num_cpus=0, max_retries=0)(trainables.run_train_job)
        return run_job.remote(jobs, self._workers, self._size, f"confirm-{lane[0].name}", False)

    def end_lane(self, lane: list[Retraining]) -> list[Retraining]:
        """Returns what is to be gone on with of a lane whose job has ended."""
        for run in {retraining.run.method: retraining.run for retraining in lane}.values():
            drop_done_checkpoints(run.run_files)
        remaining = [retraining for retraining in lane if not retraining.is_done()]
        if remaining and (reason := self._judge_failure(remaining[0])):
            self._give_up(remaining.pop(0), reason)
        while remaining and (reason := self._find_shortage(remaining[0].run.method)):
            self._give_up(remaining[0], reason)
            full = remaining[0].run.method
            remaining = [retraining for retraining in remaining if retraining.run.method != full]
        return remaining

    def _find_shortage(self, method: str, num_new: int = 1) -> str:
        return self._disk_budgets[method].make_room(self._rows[method], [], num_new)

    def _give_up(self, retraining: Retraining, reason: str) -> None:
        message = f"confirmation of {retraining.name}: {reason}"
        self.failures.setdefault(retraining.run.method, []).append(message)

    def _judge_failure(self, retraining: Retraining) -> str:
        """Why the first retraining that a lane left undone is given up; "" when it is to be tried again."""
        failure = retraining.folder.read_json(file_names.FAILURE)
        if failure is not None and not is_lost(failure):
            return str(failure["reason"])
        key = (retraining.run.method, retraining.role, retraining.seed)
        self._num_lost[key] += 1
        self._num_crashes[key] += not is_preempted(failure)
        _write_row(retraining, self._num_lost[key])
        if self._num_crashes[key] < MAX_LOST_WORKERS:
            return ""
        return f"its process or machine was lost {MAX_LOST_WORKERS} times"


def _write_row(retraining: Retraining, num_lost: int) -> None:
    row = {
        "role": retraining.role, "seed": retraining.seed, "number": retraining.number, "split": "test",
        "lost": num_lost,
    }  # fmt: skip
    retraining.folder.write_json(file_names.TRIAL, row)

"""The end of a study: the leaders, the paper's point and the controls, retrained on the full training set.

Several seeds each, as Ray Train jobs; the test set is opened once, after the last epoch. A retraining whose
worker or machine was lost goes on from its checkpoint; one that fails is named with its reason, and
the others go on.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from raykd.driver import trainables
from raykd.driver.disk_budget import DiskBudget
from raykd.driver.resources import get_size, list_nodes, worker_slots
from raykd.driver.session import MAX_LOST_WORKERS
from raykd.store import file_names
from raykd.store.run_files import RunFiles, drop_checkpoints
from raykd.store.status import rank_trials, test_accuracy
from raykd.study.recipe import Recipe
from raykd.study.study import Confirm, Study
from raykd.training import trial


class Retraining(NamedTuple):
    """A recipe to be trained on the full training set with one seed."""

    role: str
    seed: int
    recipe: Recipe
    number: int | None  # of the trial that it is

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.role}, seed {self.seed}"


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


def make_control(recipe: Recipe, name: str) -> Recipe:
    """Returns the same recipe with another method at its paper's point, alone."""
    return recipe.with_settings({"method": {"name": name}, "plus_kd": None})


def make_retraining_recipe(recipe: Recipe, seed: int) -> Recipe:
    """Returns the recipe on the full training set, nothing held out, with another seed."""
    data = recipe.to_dict()["data"] | {"holdout": 0.0}
    return recipe.with_settings({"data": data, "seed": seed})


def list_pending(study: Study, settings: Confirm, run_files: RunFiles) -> list[Retraining]:
    """Returns the retrainings that still owe something: their test accuracy, or their analysis.

    A process that is killed after its last checkpoint owes the analysis; begun again, it makes up for it.
    """
    recipes = select_recipes(study, run_files.trials())
    return [
        Retraining(role, seed, make_retraining_recipe(recipe, seed), number)
        for seed in range(1, settings.seeds + 1)
        for role, (recipe, number) in recipes.items()
        if not _is_done(run_files, role, seed)
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
    study: Study,
    run_files: RunFiles,
    make_job: Callable[..., trial.Job],
    on_update: Callable[[dict[str, Any]], None],
) -> str:
    """Retrains what is still to do; returns what failed and why, "" when nothing did.

    As many Ray Train jobs run at once as the cluster holds, each with a lane of retrainings.

    Args:
        study: Its `auto` must have become numbers.
        run_files: Of its run.
        make_job: (recipe, folder, test=True) -> a Job.
        on_update: Is called with {"left": retrainings, "total": retrainings} whenever a lane ends.
    """
    import ray

    assert study.confirm is not None
    pending, rows = list_pending(study, study.confirm, run_files), run_files.trials()
    size, workers, disk_budget = get_size(study), study.confirm.workers, DiskBudget(study, run_files)
    num_lanes = max(1, min(len(pending), worker_slots(list_nodes(), size) // workers))
    run_job = ray.remote(num_cpus=0, max_retries=0)(trainables.run_train_job)

    def start(lane: list[Retraining]) -> Any:
        folders = [run_files.confirmation(r.role, r.seed) for r in lane]
        for folder in folders:
            folder.remove(file_names.FAILURE)
        jobs = [make_job(r.recipe, folder.uri, test=True) for r, folder in zip(lane, folders, strict=True)]
        return run_job.remote(jobs, workers, size, f"confirm-{lane[0].name}", False)

    num_lost: Counter[str] = Counter()
    failed: dict[str, str] = {}
    for retraining in pending:
        _write_row(run_files, retraining, 0)
    if reason := disk_budget.make_room(rows, [], num_lanes):
        return reason
    running = {start(lane): lane for offset in range(num_lanes) if (lane := pending[offset::num_lanes])}
    while running:
        for job_ref in ray.wait(list(running), timeout=1.0)[0]:
            remaining = [r for r in running.pop(job_ref) if not _is_done(run_files, r.role, r.seed)]
            drop_done_checkpoints(run_files)
            if remaining and (reason := _judge_failure(run_files, remaining[0], num_lost)):
                failed[remaining.pop(0).name] = reason
            if remaining and (reason := disk_budget.make_room(rows, [])):
                failed[remaining[0].name] = reason
            elif remaining:
                running[start(remaining)] = remaining
        on_update({"left": len(list_pending(study, study.confirm, run_files)), "total": len(pending)})
    return "; ".join(f"confirmation of {name}: {reason}" for name, reason in failed.items())


def _write_row(run_files: RunFiles, retraining: Retraining, num_lost: int) -> None:
    row = {
        "role": retraining.role,
        "seed": retraining.seed,
        "number": retraining.number,
        "split": "test",
        "lost": num_lost,
    }
    run_files.confirmation(retraining.role, retraining.seed).write_json(file_names.TRIAL, row)


def _judge_failure(run_files: RunFiles, retraining: Retraining, num_lost: Counter[str]) -> str:
    """Why the first retraining that a lane left undone is given up; "" when it is to be tried again."""
    failure = run_files.confirmation(retraining.role, retraining.seed).read_json(file_names.FAILURE)
    if failure is not None and failure["kind"] != "storage":
        return str(failure["reason"])
    num_lost[retraining.name] += 1
    _write_row(run_files, retraining, num_lost[retraining.name])
    if num_lost[retraining.name] < MAX_LOST_WORKERS:
        return ""
    return f"its process or machine was lost {MAX_LOST_WORKERS} times"

"""The end of a study: the leaders, the paper's point and the controls, retrained on the full training set.

Several seeds each, as Ray Train jobs; the test set is opened once, after the last epoch. A retraining whose
worker or machine was lost goes on from its checkpoint; one that fails is told with its reason, and the others
go on.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from raykd.driver import trainables
from raykd.driver.disk_budget import Disk
from raykd.driver.resources import places
from raykd.driver.session import LOSSES
from raykd.store.run_files import Ledger, settle
from raykd.store.status import leaders, test_accuracy
from raykd.study.recipe import Recipe
from raykd.study.study import Confirm, Study
from raykd.training import trial


class Retraining(NamedTuple):
    role: str
    seed: int
    recipe: Recipe
    number: int | None  # of the trial that it is

    @property
    def name(self) -> str:
        return f"{self.role}, seed {self.seed}"


def roles(study: Study, rows: list[dict[str, Any]]) -> dict[str, tuple[Recipe, int | None]]:
    """What is retrained: {role: (recipe, the trial it is)}."""
    assert study.confirm is not None
    found: dict[str, tuple[Recipe, int | None]] = {}
    for place, row in enumerate(leaders(rows)[: study.confirm.leaders], start=1):
        found["best" if place == 1 else f"leader{place}"] = (study.drawn(row["drawn"]), row["number"])
    found["paper"] = (study.recipe, next((r["number"] for r in rows if r["role"] == "paper"), None))
    for name in study.confirm.controls:
        if name != study.recipe.method.name:
            found[name] = (control(study.recipe, name), None)
    return found


def control(recipe: Recipe, name: str) -> Recipe:
    """The same recipe with another method at its paper's point, alone."""
    return recipe.changed({"method": {"name": name}, "plus_kd": None})


def retraining(recipe: Recipe, seed: int) -> Recipe:
    """The recipe on the full training set, nothing held out, with another seed."""
    data = recipe.plain()["data"] | {"holdout": 0.0}
    return recipe.changed({"data": data, "seed": seed})


def pending(study: Study, settings: Confirm, ledger: Ledger) -> list[Retraining]:
    """The retrainings that have no test accuracy yet."""
    wanted = roles(study, ledger.trials())
    return [
        Retraining(role, seed, retraining(recipe, seed), number)
        for seed in range(1, settings.seeds + 1)
        for role, (recipe, number) in wanted.items()
        if test_accuracy(ledger, role, seed) is None
    ]


def confirm(
    study: Study, ledger: Ledger, job: Callable[..., trial.Job], changed: Callable[[dict[str, Any]], None]
) -> str:
    """Retrain what is still to do; what failed and why, "" when nothing did. As many Ray Train jobs run at
    once as the cluster holds, each with a lane of retrainings.
    """
    import ray

    assert study.confirm is not None
    todo, rows = pending(study, study.confirm, ledger), ledger.trials()
    cluster, workers, disk = study.cluster, study.confirm.workers, Disk(study, ledger)
    lanes = max(1, min(len(todo), places(cluster.cpus, cluster.gpus) // workers))
    drive = ray.remote(num_cpus=0, max_retries=0)(trainables.train_job)

    def start(lane: list[Retraining]) -> Any:
        folders = [ledger.confirmation(one.role, one.seed) for one in lane]
        for folder in folders:
            folder.remove("failure.json")
        jobs = [job(one.recipe, at.uri, test=True) for one, at in zip(lane, folders, strict=True)]
        return drive.remote(jobs, workers, cluster.cpus, cluster.gpus, f"confirm-{lane[0].name}", False)

    lost: Counter[str] = Counter()
    failed: dict[str, str] = {}
    for one in todo:
        _write(ledger, one, 0)
    if reason := disk.full(rows, [], lanes):
        return reason
    running = {start(lane): lane for place in range(lanes) if (lane := todo[place::lanes])}
    while running:
        for ended in ray.wait(list(running), timeout=1.0)[0]:
            left = [one for one in running.pop(ended) if _finish(ledger, one) is None]
            if left and (reason := _given_up(ledger, left[0], lost)):
                failed[left.pop(0).name] = reason
            if left and (reason := disk.full(rows, [])):
                failed[left[0].name] = reason
            elif left:
                running[start(left)] = left
        changed({"left": len(pending(study, study.confirm, ledger)), "of": len(todo)})
    return "; ".join(f"confirmation of {name}: {reason}" for name, reason in failed.items())


def _write(ledger: Ledger, one: Retraining, lost: int) -> None:
    row = {"role": one.role, "seed": one.seed, "number": one.number, "split": "test", "lost": lost}
    ledger.confirmation(one.role, one.seed).write_json("trial.json", row)


def _finish(ledger: Ledger, one: Retraining) -> float | None:
    """Its test accuracy; with one, it needs no checkpoint any more."""
    accuracy = test_accuracy(ledger, one.role, one.seed)
    if accuracy is not None:
        settle(ledger.confirmation(one.role, one.seed))
    return accuracy


def _given_up(ledger: Ledger, one: Retraining, lost: Counter[str]) -> str:
    """Why the first retraining that a lane left is given up; "" when it is to be tried again."""
    failure = ledger.confirmation(one.role, one.seed).read_json("failure.json")
    if failure is not None and failure["kind"] != "storage":
        return str(failure["reason"])
    lost[one.name] += 1
    _write(ledger, one, lost[one.name])
    return f"its process or machine was lost {LOSSES} times" if lost[one.name] >= LOSSES else ""

"""The end of a study: the leaders, the paper's point and the controls, retrained on the full training set.

Several seeds each, as Ray Train jobs; the test set is opened once, after the last epoch.
"""

from collections.abc import Callable
from typing import Any

from raykd import trial
from raykd.driver.cluster import places
from raykd.ledger import Ledger, settle
from raykd.recipe import Recipe
from raykd.study import Confirm, Study


def roles(study: Study, rows: list[dict[str, Any]]) -> dict[str, tuple[Recipe, int | None]]:
    """What is retrained: {role: (recipe, the trial it is)}. The paper's point is left out where it leads."""
    assert study.confirm is not None
    complete = sorted((r for r in rows if r["state"] == "COMPLETE"), key=lambda r: -r["accuracy"])
    found: dict[str, tuple[Recipe, int | None]] = {}
    for place, row in enumerate(complete[: study.confirm.leaders], start=1):
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


def pending(study: Study, settings: Confirm, ledger: Ledger) -> list[tuple[str, int, Recipe, int | None]]:
    """(role, seed, recipe, trial) of each retraining that has no test accuracy yet."""
    wanted = roles(study, ledger.trials())
    return [
        (role, seed, retraining(recipe, seed), number)
        for seed in range(1, settings.seeds + 1)
        for role, (recipe, number) in wanted.items()
        if test_accuracy(ledger, role, seed) is None
    ]


def test_accuracy(ledger: Ledger, role: str, seed: int) -> float | None:
    rows = ledger.confirmation(role, seed).read_json("epochs.json") or []
    return rows[-1].get("test_accuracy") if rows else None


def confirm(
    study: Study, ledger: Ledger, job: Callable[..., trial.Job], changed: Callable[[dict[str, Any]], None]
) -> None:
    """Retrain what is still to do. As many Ray Train jobs run at once as the cluster holds."""
    import ray

    assert study.confirm is not None
    todo = pending(study, study.confirm, ledger)
    cluster, workers = study.cluster, study.confirm.workers
    lanes = max(1, min(len(todo), places(cluster.cpus, cluster.gpus) // workers))
    drive = ray.remote(num_cpus=0, max_retries=0)(trial.train_job)
    running = []
    for lane in range(lanes):
        jobs = []
        for role, seed, recipe, number in todo[lane::lanes]:
            folder = ledger.confirmation(role, seed)
            folder.write_json("trial.json", {"role": role, "seed": seed, "number": number, "split": "test"})
            jobs.append(job(recipe, folder.uri, test=True))
        if jobs:
            name = f"confirm-{lane}-{len(todo)}"
            running.append(
                drive.remote(
                    jobs, workers, cluster.cpus, cluster.gpus, name, f"{ledger.folder.uri}/train", False
                )
            )
    while running:
        done, running = ray.wait(running, timeout=1.0)
        ray.get(done)
        left = len(pending(study, study.confirm, ledger))
        changed({"left": left, "of": len(todo)})
    for role, seed, _, _ in todo:
        settle(ledger.confirmation(role, seed))

"""A study's settings as the job of one trial."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from raykd.study.recipe import Recipe
from raykd.study.study import Study
from raykd.training import trial

Tell = Callable[[str, dict[str, Any]], None]  # (phase, what changed)


def trial_job(
    study: Study, teacher: str, root: Path, download: bool, recipe: Recipe, folder: str, test: bool = False
) -> trial.Job:
    threads, cluster = max(1, round(study.cluster.cpus)), study.cluster
    return trial.Job(
        recipe.plain(), folder, teacher, str(root.absolute()), download, threads, test,
        table=cluster.table, checkpoint_minutes=cluster.checkpoint_minutes,
    )  # fmt: skip

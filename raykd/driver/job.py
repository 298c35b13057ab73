"""A study's settings as the job of one trial."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from raykd import plugins
from raykd.paths import get_given_cache_folder
from raykd.study.recipe import Recipe
from raykd.study.study import Study
from raykd.training import trial

EventHandler = Callable[[str, dict[str, Any]], None]  # (phase, details)


def make_trial_job(
    teachers: tuple[str, ...],
    root: Path,
    download: bool,
    study: Study,
    recipe: Recipe,
    folder: str,
    test: bool = False,
) -> trial.Job:
    """Returns the job of one recipe of a study.

    Args:
        teachers: The file of each teacher's weights.
        root: Where data sets lie on the nodes.
        download: Whether a missing one may be fetched.
        study: Its `auto` must have become numbers.
        recipe: What is trained.
        folder: Path or URI at which the trial writes.
        test: Whether the test set is opened after the last epoch.
    """
    threads, cluster = max(1, round(study.cluster.num_cpus)), study.cluster
    return trial.Job(
        recipe.to_dict(), folder, teachers, str(root.absolute()), download, threads, test,
        teacher_cache_gib=cluster.teacher_cache_gib, checkpoint_minutes=cluster.checkpoint_minutes,
        cache=get_given_cache_folder(), metric=study.search.metric, plugins=plugins.get_sources(),
    )  # fmt: skip

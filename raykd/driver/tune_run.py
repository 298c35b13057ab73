"""The search itself: one Ray Tune experiment over a run's Optuna study, or over those of a comparison."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from ray import tune
from ray.tune import Callback, CheckpointConfig, FailureConfig, RunConfig
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import Searcher
from ray.util import remove_placement_group
from ray.util.placement_group import PlacementGroup, placement_group_table

from raykd.driver import trainables
from raykd.driver.leftovers import temporary_folder
from raykd.driver.pooled_search import PooledSearch
from raykd.driver.resources import choose_workers, get_size, list_nodes, worker_slots
from raykd.driver.same_code import get_fingerprint
from raykd.driver.scheduler import OptunaPruningScheduler
from raykd.driver.searcher import StudySearch
from raykd.driver.study_run import StudyRun
from raykd.store.run_files import RunFiles
from raykd.study.study import Study
from raykd.training import trial

# What the actor takes that only drives a Ray Train job: no CPU, which its workers may need to the last.
DRIVER_RESOURCES = {"cpu": 0, "memory": 200 * 2**20}


class PlacementGroupCleanup(Callback):
    """Frees what the workers of a stopped Ray Train job held: Ray leaves their placement group behind."""

    def __init__(self) -> None:
        self._groups: dict[str, PlacementGroup] = {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Remembers the group that a trial's workers hold."""
        if group := result.get("placement_group"):
            self._groups[trial.trial_id] = group

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Frees the group of a trial that has ended or was stopped."""
        self._free(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Frees the group of a trial that has failed."""
        self._free(trial.trial_id)

    def _free(self, trial_id: str) -> None:
        group = self._groups.pop(trial_id, None)
        if group is not None and placement_group_table(group).get("state") == "CREATED":
            remove_placement_group(group)


class LostTrials(Callback):
    """Tells the searcher of trials that Tune has given up without a word: whose actor could not be reused."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Of a trial's end the searcher takes notice once."""
        for tune_trial in trials:
            if tune_trial.status == TuneTrial.ERROR:
                self._searcher.on_trial_complete(tune_trial.trial_id, error=True)


def search(
    runs: Sequence[StudyRun],
    owner: RunFiles,
    make_job: Callable[..., trial.Job],
    on_update: Callable[[str, dict[str, Any]], None],
    share: bool = False,
) -> list[StudySearch]:
    """Runs trials until each study has all that it asked for, or is interrupted; returns their searchers.

    Args:
        runs: The studies, whose trials take equally much of the cluster.
        owner: Of the run or the comparison that holds them.
        make_job: (study, recipe, folder) -> a trial's Job.
        on_update: Is called with the method and the trial's row at every change of a row.
        share: Whether each study tries what the others have learnt of the fields that they share.

    Raises:
        UserError: As for `open_optuna_study`.
    """
    cluster, size = runs[0].study.cluster, get_size(runs[0].study)
    workers = cluster.workers
    num_workers: dict[str, int] = {}  # of each trial that was begun, by its folder

    def count_free(but: str = "") -> int:
        """Of workers, when all trials but one at most are where they are."""
        running = (one.run_files.trial(number).uri for one in searchers for number in one.running.values())
        return worker_slots(list_nodes(), size) - sum(
            num_workers.get(uri, 0) for uri in running if uri != but
        )

    def num_slots() -> int:
        free = count_free()
        return sum(len(one.running) for one in searchers) + max(free // workers.max, int(free >= workers.min))

    def open_search(study: Study, run_files: RunFiles) -> StudySearch:
        def make_config(number: int, params: dict[str, Any]) -> dict[str, Any]:
            recipe, uri = study.recipe_with(params), run_files.trial(number).uri
            num_workers[uri] = choose_workers(recipe, workers, count_free(uri))
            return {
                "number": number, "job": asdict(make_job(study, recipe, uri)), "cpus": size.cpus,
                "gpus": size.gpus, "workers": num_workers[uri], "is_elastic": workers.min < workers.max,
                "name": f"{run_files.name}-{number:05d}", "driver": get_fingerprint(),
            }  # fmt: skip

        method = study.recipe.method.name
        return StudySearch(study, run_files, make_config, num_slots, partial(on_update, method))

    searchers = [open_search(*run) for run in runs]
    if not all(searcher.is_done() for searcher in searchers):
        if cluster.uses_ray_train:
            trainable = tune.with_resources(trainables.run_nested_trial, DRIVER_RESOURCES)
        else:
            trainable = tune.with_resources(trainables.run_in_tune, {"cpu": size.cpus, "gpu": size.gpus})
        pool = PooledSearch(searchers, owner, num_slots, share)
        run_trials(pool, trainable, reuse_actors=not cluster.uses_ray_train)
    return searchers


def run_trials(searcher: StudySearch | PooledSearch, trainable: Any, reuse_actors: bool) -> None:
    """Runs a Tune experiment of all the trials that the searcher has to give.

    Of Tune's own files nothing is read again: they are gone afterwards.

    Args:
        searcher: Hands out the trials.
        trainable: What Tune runs for each, with its resources.
        reuse_actors: Whether a trial runs in the process of one that has ended.

    Raises:
        OSError: The storage failed under the searcher.
    """
    with temporary_folder(searcher.run_files.folder.uri) as storage:
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=OptunaPruningScheduler(searcher),
                num_samples=-1,
                reuse_actors=reuse_actors,
                trial_dirname_creator=_make_dirname,
            ),
            run_config=RunConfig(
                name=searcher.run_files.name,
                storage_path=storage,
                verbose=0,
                callbacks=[PlacementGroupCleanup(), LostTrials(searcher)],
                failure_config=FailureConfig(max_failures=0),
                checkpoint_config=CheckpointConfig(num_to_keep=1),
            ),
        )
        try:
            with trainables.keep_interrupt_handler():
                tuner.fit()
        except tune.TuneError as error:
            if isinstance(error.__context__, OSError):  # the storage failed under the searcher
                raise error.__context__ from None
            raise


def _make_dirname(tune_trial: Any) -> str:
    return f"trial_{tune_trial.trial_id}"

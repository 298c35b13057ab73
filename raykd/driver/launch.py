"""A Study, or a Comparison, as a run: begun, or gone on with where it stands."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from raykd import data
from raykd.driver.job import EventHandler
from raykd.driver.local_session import check_local_session, starts_session
from raykd.driver.study_run import DriveOptions, StudyRun
from raykd.errors import UserError
from raykd.store import file_names
from raykd.store.folder import join_uri
from raykd.store.plugin_copies import require_plugins
from raykd.store.run_files import RunFiles
from raykd.study import space_check
from raykd.study.comparison import Comparison, parse_study
from raykd.study.constraints import list_ruled_out
from raykd.study.recipe import Recipe, make_teacher_recipes
from raykd.study.study import Study
from raykd.training import distiller, start
from raykd.training.student_costs import Costs, measure_students


def launch(
    study: Study | Comparison,
    *,
    storage: str = "runs",
    address: str | None = None,
    data_root: Path | None = None,
    download: bool = False,
    on_event: EventHandler = lambda phase, details: None,
) -> RunFiles:
    """Begins a study's run, or goes on with it: the same study in the same storage is the same run.

    Args:
        study: What to run. A comparison's run holds a run of each of its methods.
        storage: The folder or URI that holds the run's folder.
        address: Of a Ray cluster. None: the session that this process has, else one of this machine's own.
        data_root: Where data sets lie; None: the default.
        download: Whether a missing data set may be fetched.
        on_event: Is called with (phase, details) as the run goes on.

    Raises:
        UserError: Nothing was begun.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the run can be resumed.
        ClusterError: Ray did not start, or died; the run can be resumed.
    """
    from raykd.driver.optuna_check import check_memory

    check_local_session(address)
    root, owner = data_root or data.default_root(), RunFiles(join_uri(storage, study.name))
    if owner.exists():
        require_plugins(owner.folder)
    study = pin_weights(study, download)
    runs = list_runs(study, owner)
    _check_studies([run.study for run in runs], root, download, starts_session(address))
    if owner.exists():
        check_same_study(study, owner)
    else:
        for run in runs:
            check_memory(*run)
    _drive(study, owner, address, root, download, on_event)
    return owner


def resume(
    run: str,
    *,
    trials: int | None = None,
    address: str | None = None,
    data_root: Path | None = None,
    download: bool = False,
    on_event: EventHandler = lambda phase, details: None,
) -> RunFiles:
    """Goes on with a run; `trials` asks for so many in all, of each method. The rest as for `launch`."""
    check_local_session(address)
    owner = RunFiles.open_any(run)
    _drive(read_study(run, trials), owner, address, data_root or data.default_root(), download, on_event)
    return owner


def read_study(run: str, trials: int | None) -> Study | Comparison:
    """Returns the study of a run, with a budget of so many trials in all if `trials` says so."""
    owner = RunFiles.open_any(run)
    require_plugins(owner.folder)
    plain = owner.study()
    if trials is not None:
        plain["budget"]["trials"] = trials
    return parse_study(plain, f"{run}/{file_names.STUDY}")


def list_runs(study: Study | Comparison, owner: RunFiles) -> list[StudyRun]:
    """Returns a study's run, or those of a comparison's methods."""
    if isinstance(study, Study):
        return [StudyRun(study, owner)]
    return [StudyRun(one, owner.method_run(method)) for method, one in study.studies().items()]


def pin_weights(study: Study | Comparison, download: bool) -> Study | Comparison:
    """Returns the study with the SHA-256 of all weights that it names; see `start.pin_weights`."""
    if isinstance(study, Study):
        return study.with_recipe(start.pin_weights(study.recipe, download))
    recipe = start.pin_weights(next(iter(study.studies().values())).recipe, download).to_dict()
    nets = {key: recipe[key] for key in ("student", "peers", "teacher", "teachers") if key in study.recipe}
    return study.model_copy(update={"recipe": study.recipe | nets})


def check_same_study(study: Study | Comparison, run_files: RunFiles) -> None:
    """Raises UserError when the run was begun from another study (its budget may differ)."""
    launched, existing = study.to_dict(), run_files.study()
    launched["budget"] = existing["budget"] = None
    if different := [key for key in launched if launched[key] != existing.get(key)]:
        raise UserError(
            [
                f"{run_files.folder.uri}: holds a run of another study (different: {', '.join(different)}). "
                f"Give this one another name (--set name=...), or another --storage"
            ]
        )


def check_recipe(recipe: Recipe, root: Path, download: bool, alone: bool) -> data.DatasetInfo:
    """Returns what is known of the data. Nothing is trained; `alone` as for `check_starts`.

    Raises:
        UserError: They are missing, the method cannot serve the nets, or a file of weights cannot be used.
    """
    try:
        dataset = data.load(recipe.data, root, download)
        info = dataset.info
        for one in (recipe, *make_teacher_recipes(recipe)):
            one.check_classes(dataset.train.labels, dataset.classes)
            distiller.build_on_meta(one, *info)
        start.check_starts(recipe, info.classes, alone, download)
        return info
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error).splitlines()) from None


def _check_studies(studies: Sequence[Study], root: Path, download: bool, alone: bool) -> None:
    """UserError with all that keeps trials from beginning; what several have in common once."""
    lines: list[str] = []
    for study in studies:
        try:
            space_check.check(study, check_recipe(study.recipe, root, download, alone))
        except UserError as error:
            lines += error.lines
    if lines:
        raise UserError(dict.fromkeys(lines))


def _drive(
    study: Study | Comparison,
    owner: RunFiles,
    address: str | None,
    root: Path,
    download: bool,
    on_event: EventHandler,
) -> None:
    from raykd.driver.run_studies import run_studies

    runs = list_runs(study, owner)
    share = isinstance(study, Comparison) and study.share
    students = _measure_new_students(runs, root, download)
    with _hold_locks(owner, runs):
        if isinstance(study, Comparison):
            owner.begin_comparison(study.to_dict(), list(study.list_methods()))
        for run in runs:
            if run.run_files.exists():
                run.run_files.write_study(run.study.to_dict())  # its budget may be another now
            else:
                run.run_files.begin(run.study.to_dict(), students.get(run.method))
            for line in list_ruled_out(run.run_files.students()):
                on_event("resources", {"message": f"{line}: never the best"})
        run_studies(runs, owner, DriveOptions(address, root, download, on_event), share)


def _measure_new_students(
    runs: Sequence[StudyRun], root: Path, download: bool
) -> dict[str, list[dict[str, Any]]]:
    """What the students of each run that is to be begun cost, by the method; those that are equal once."""
    known: dict[str, Costs] = {}
    new = [run for run in runs if run.study.constraints is not None and not run.run_files.exists()]
    specs = {run.study.recipe.data for run in new}
    infos = {spec: data.load(spec, root, download).info for spec in specs}
    return {run.method: measure_students(run.study, infos[run.study.recipe.data], known) for run in new}


@contextmanager
def _hold_locks(owner: RunFiles, runs: Sequence[StudyRun]) -> Iterator[None]:
    """Holds a run, or a comparison and each of its runs, for a `with` block. UserError as `hold_lock`."""
    with ExitStack() as locks:
        for run_files in {
            each.folder.uri: each for each in (owner, *(run.run_files for run in runs))
        }.values():
            locks.enter_context(run_files.hold_lock())
        yield

"""A Study as a run: the teacher, the search, the confirmation, each gone on with where it stands."""

from functools import partial
from pathlib import Path

from raykd import data
from raykd.driver.auto_resources import resolve_on_cluster
from raykd.driver.job import EventHandler, make_trial_job
from raykd.driver.local_session import check_local_session
from raykd.driver.resources import describe_idle_gpus, describe_nodes, get_size
from raykd.driver.same_code import check_nodes
from raykd.driver.session import connect, describe_resume
from raykd.driver.session_watch import ClusterError
from raykd.driver.teacher import TeacherTrainingError, get_teacher_weights
from raykd.errors import UserError
from raykd.store import file_names
from raykd.store.folder import join_uri
from raykd.store.run_files import RunFiles
from raykd.store.status import rank_trials
from raykd.study import space_check
from raykd.study.recipe import Recipe
from raykd.study.study import Study
from raykd.training import distiller, trial


def launch(
    study: Study,
    *,
    storage: str = "runs",
    address: str | None = None,
    data_root: Path | None = None,
    download: bool = False,
    on_event: EventHandler = lambda phase, details: None,
) -> RunFiles:
    """Begins a study's run, or goes on with it: the same study in the same storage is the same run.

    Args:
        study: What to run.
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
    check_local_session(address)
    run_files = RunFiles(join_uri(storage, study.name))
    space_check.check(study, check_recipe(study.recipe, data_root or data.default_root(), download))
    if run_files.exists():
        check_same_study(study, run_files)
    else:
        _check_memory(study, run_files)
    with run_files.hold_lock():
        if run_files.exists():
            run_files.write_study(study.to_dict())  # its budget may be another now
        else:
            run_files.begin(study.to_dict())
        _run_study(study, run_files, address, data_root or data.default_root(), download, on_event)
    return run_files


def resume(
    run: str,
    *,
    trials: int | None = None,
    address: str | None = None,
    data_root: Path | None = None,
    download: bool = False,
    on_event: EventHandler = lambda phase, details: None,
) -> RunFiles:
    """Goes on with a run; `trials` asks for so many in all. The rest as for `launch`."""
    check_local_session(address)
    run_files = RunFiles.open(run)
    study = read_study(run, trials)
    with run_files.hold_lock():
        run_files.write_study(study.to_dict())
        _run_study(study, run_files, address, data_root or data.default_root(), download, on_event)
    return run_files


def read_study(run: str, trials: int | None) -> Study:
    """Returns the study of a run, with a budget of so many trials in all if `trials` says so."""
    plain = RunFiles.open(run).study()
    if trials is not None:
        plain["budget"]["trials"] = trials
    return Study.parse(plain, f"{run}/{file_names.STUDY}")


def check_same_study(study: Study, run_files: RunFiles) -> None:
    """Raises UserError when the run was begun from another study (its budget may differ)."""
    launched, existing = study.to_dict(), run_files.study()
    launched["budget"] = existing["budget"] = None
    if launched != existing:
        different = [key for key in launched if launched[key] != existing.get(key)]
        raise UserError(
            [
                f"{run_files.folder.uri}: holds a run of another study (different: {', '.join(different)}). "
                f"Give this one another name (--set name=...), or another --storage"
            ]
        )


def check_recipe(recipe: Recipe, root: Path, download: bool) -> data.DatasetInfo:
    """Returns what is known of the data. Nothing is trained.

    Raises:
        UserError: They are missing, the method cannot serve the nets, or the teacher's file, where it is seen
            from here, cannot be read.
    """
    try:
        info = data.load(recipe.data, root, download).info
        distiller.build_on_meta(recipe, *info)
        teacher = recipe.teacher
        if (
            teacher and teacher.weights and Path(teacher.weights).expanduser().is_file()
        ):  # else the nodes' own
            trial.load_teacher_net(teacher, teacher.weights, info.classes, root)
        return info
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error).splitlines()) from None


def _run_study(
    study: Study, run_files: RunFiles, address: str | None, root: Path, download: bool, on_event: EventHandler
) -> None:
    if run_files.state() == "finished" and not _wants_more(study, run_files):
        on_event("done already", {})
        return
    _check_memory(study, run_files)
    run_files.write_state("running")
    try:
        with connect(address, run_files.folder):
            check_nodes()
            resolved = _choose_resources(study, run_files, root, download, on_event)
            state, reason = _train_all(resolved, run_files, root, download, on_event)
    except ClusterError as error:
        run_files.write_state("interrupted")
        raise ClusterError(f"{error}; {describe_resume(run_files.folder)}") from None
    run_files.write_state(state, reason)
    if state == "interrupted":
        raise KeyboardInterrupt


def _choose_resources(
    study: Study, run_files: RunFiles, root: Path, download: bool, on_event: EventHandler
) -> Study:
    """Returns the study with numbers for `auto`, which it records and says. UserError when it never fits."""
    resolution = resolve_on_cluster(study, root, download)
    size, nodes = get_size(resolution.study), resolution.nodes
    run_files.folder.write_json(file_names.RESOURCES, size._asdict() | {"nodes": describe_nodes(nodes)})
    for message in filter(None, (resolution.description, describe_idle_gpus(study, nodes))):
        on_event("resources", {"message": message})
    return resolution.study


def _train_all(
    study: Study, run_files: RunFiles, root: Path, download: bool, on_event: EventHandler
) -> tuple[str, str]:
    """Teacher, search and confirmation; returns the run's state at the end, and why it stopped."""
    from raykd.driver.confirm import confirm, drop_done_checkpoints, list_pending
    from raykd.driver.tune_run import search

    try:
        teacher = get_teacher_weights(study, run_files, root, download, on_event)
    except TeacherTrainingError as error:
        return "stopped", str(error)
    make_job = partial(make_trial_job, study, teacher, root, download)
    searcher = search(study, run_files, make_job, partial(on_event, "search"))
    if not searcher.is_done():
        return "interrupted", ""
    if reason := searcher.end_reason or searcher.stop_reason:
        on_event("stopped", {"reason": reason})
    if searcher.stop_reason:
        return "stopped", searcher.stop_reason
    if not rank_trials(run_files.trials()):
        reasons = [row["reason"] for row in searcher.rows.values() if row["reason"]]
        last_failure = f", the last failed with: {reasons[-1]}" if reasons else ""
        return "stopped", searcher.end_reason or f"no trial was completed{last_failure}"
    drop_done_checkpoints(run_files)
    failures = ""
    if study.confirm is not None and list_pending(study, study.confirm, run_files):
        failures = confirm(study, run_files, make_job, partial(on_event, "confirm"))
    return "stopped" if failures else "finished", failures or searcher.end_reason


def _check_memory(study: Study, run_files: RunFiles) -> None:
    from raykd.driver.optuna_check import check_memory

    check_memory(study, run_files)


def _wants_more(study: Study, run_files: RunFiles) -> bool:
    ended = [row for row in run_files.trials() if row["state"] in ("COMPLETE", "PRUNED", "FAIL")]
    return len(ended) < study.budget.trials and not run_files.stop_reason()

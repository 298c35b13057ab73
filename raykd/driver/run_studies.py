"""The studies of a run or a comparison, from where they stand: teacher, search, confirmation."""

from collections.abc import Sequence

from raykd.driver.auto_resources import resolve_on_cluster
from raykd.driver.optuna_check import check_memory
from raykd.driver.resources import describe_idle_gpus, describe_nodes, get_size
from raykd.driver.same_code import check_nodes
from raykd.driver.session import connect, describe_resume
from raykd.driver.session_watch import ClusterError
from raykd.driver.study_run import DriveOptions, End, StudyRun
from raykd.store import file_names
from raykd.store.run_files import RunFiles


def run_studies(
    runs: Sequence[StudyRun], owner: RunFiles, options: DriveOptions, share: bool = False
) -> None:
    """Goes on with runs that this process has the locks of.

    Args:
        runs: Of one study, or of the methods of a comparison, in which they share the cluster.
        owner: The run, or the comparison that holds them.
        options: Where and how.
        share: Whether each tries what the others have learnt of the fields that they share.

    Raises:
        UserError: Nothing was begun.
        KeyboardInterrupt: Ctrl-C or SIGTERM; they can be resumed.
        ClusterError: Ray did not start, or died; they can be resumed.
    """
    if owner.state() == "finished" and not any(map(_wants_more, runs)):
        options.on_event("done already", {})
        return
    for run in runs:
        check_memory(*run)
    _write_ends(runs, owner, [("running", "")] * len(runs))
    try:
        with connect(options.address, owner.folder):
            check_nodes()
            from raykd.driver.train_studies import train_all  # imports Ray, which `connect` goes before

            ends = train_all(_choose_resources(runs, options), owner, options, share)
    except ClusterError as error:
        _write_ends(runs, owner, [("interrupted", "")] * len(runs))
        raise ClusterError(f"{error}; {describe_resume(owner.folder)}") from None
    _write_ends(runs, owner, ends)
    if ("interrupted", "") in ends:
        raise KeyboardInterrupt


def _write_ends(runs: Sequence[StudyRun], owner: RunFiles, ends: Sequence[End]) -> None:
    """Writes the state of each run; that of their owner is the least finished of theirs."""
    for run, end in zip(runs, ends, strict=True):
        run.run_files.write_state(*end)
    if owner not in [run.run_files for run in runs]:
        order = ("interrupted", "running", "stopped", "finished")
        state = min((state for state, _ in ends), key=order.index)
        reasons = [f"{run.method}: {end[1]}" for run, end in zip(runs, ends, strict=True) if end[1]]
        owner.write_state(state, "; ".join(reasons))


def _wants_more(run: StudyRun) -> bool:
    ended = [row for row in run.run_files.trials() if row["state"] in ("COMPLETE", "PRUNED", "FAIL")]
    return len(ended) < run.study.budget.trials and not run.run_files.stop_reason()


def _choose_resources(runs: Sequence[StudyRun], options: DriveOptions) -> list[StudyRun]:
    """Returns the studies with numbers for `auto`, which it records and says: enough for the largest of them.

    Raises:
        UserError: A trial never fits.
    """
    trials = sum(run.study.budget.trials for run in runs)  # side by side, as of one study
    studies = [run.study.with_trials(trials) for run in runs]
    resolutions = [resolve_on_cluster(study, options.data_root, options.download) for study in studies]
    largest = max(resolutions, key=lambda resolution: get_size(resolution.study)[::-1])
    size, nodes = get_size(largest.study), largest.nodes
    for run in runs:
        content = size._asdict() | {"nodes": describe_nodes(nodes)}
        run.run_files.folder.write_json(file_names.RESOURCES, content)
    for message in filter(None, (largest.description, describe_idle_gpus(runs[0].study, nodes))):
        options.on_event("resources", {"message": message, **size._asdict()})
    return [run._replace(study=run.study.with_resources(*size)) for run in runs]

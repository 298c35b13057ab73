"""The work of studies, one after another: the teachers once, all searches, all confirmations."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from raykd.driver import mps
from raykd.driver.confirm import confirm, drop_done_checkpoints, list_pending
from raykd.driver.job import EventHandler, make_trial_job
from raykd.driver.resources import get_size
from raykd.driver.searcher import StudySearch
from raykd.driver.study_run import DriveOptions, End, StudyRun
from raykd.driver.teacher import TeacherTrainingError, get_teacher_weights
from raykd.driver.tune_run import search
from raykd.store.run_files import RunFiles
from raykd.store.status import rank_trials


def train_all(runs: Sequence[StudyRun], owner: RunFiles, options: DriveOptions, share: bool) -> list[End]:
    """Teacher, search and confirmation; returns how each run has ended."""
    with mps.serve_nodes(get_size(runs[0].study).gpus):
        return _train_all(runs, owner, options, share)


def _train_all(runs: Sequence[StudyRun], owner: RunFiles, options: DriveOptions, share: bool) -> list[End]:
    root, download, on_event = options.data_root, options.download, options.on_event
    try:
        teachers = get_teacher_weights(*runs[0], root, download, on_event)
    except TeacherTrainingError as error:
        return [("stopped", str(error))] * len(runs)
    make_job = partial(make_trial_job, teachers, root, download)
    searchers = search(runs, owner, make_job, partial(_pass_on_row, on_event), share)
    if not all(searcher.is_done() for searcher in searchers):
        return [("interrupted", "")] * len(runs)
    ends = {run.method: _judge_search(searcher) for run, searcher in zip(runs, searchers, strict=True)}
    for method, (_, reason) in ends.items():
        if reason:
            on_event("stopped", {"reason": reason, "method": method})
    searched = [run for run in runs if ends[run.method][0] == "finished"]
    for run in searched:
        drop_done_checkpoints(run.run_files)
    if list_pending(searched):
        failures = confirm(searched, make_job, partial(on_event, "confirm"))
        ends |= {method: ("stopped", reason) for method, reason in failures.items()}
    return list(ends.values())


def _pass_on_row(on_event: EventHandler, method: str, row: dict[str, Any]) -> None:
    on_event("search", row | {"method": method})


def _judge_search(searcher: StudySearch) -> End:
    """How a search has ended that is done."""
    if searcher.stop_reason:
        return "stopped", searcher.stop_reason
    rows = list(searcher.rows.values())
    if rank_trials(rows):
        return "finished", searcher.end_reason
    reasons = [row["reason"] for row in rows if row["reason"]]
    last_failure = f", the last failed with: {reasons[-1]}" if reasons else ""
    return "stopped", searcher.end_reason or f"no trial was completed{last_failure}"

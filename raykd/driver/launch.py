"""A Study as a run: the teacher, the search, the confirmation, each gone on with where it stands."""

from functools import partial
from pathlib import Path

from raykd import data
from raykd.driver.job import Tell, trial_job
from raykd.driver.session import connected
from raykd.driver.teacher import Untaught, teacher_weights
from raykd.errors import BadInput
from raykd.store.folder import joined
from raykd.store.run_files import Ledger
from raykd.store.status import leaders
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
    tell: Tell = lambda phase, news: None,
) -> Ledger:
    """Begin a study's run, or go on with it: the same study in the same storage is the same run.

    `address`: of a Ray cluster; None starts one on this machine. Ctrl-C and SIGTERM leave a resumable run,
    and KeyboardInterrupt is raised. BadInput: nothing was begun.
    """
    ledger = Ledger(joined(storage, study.name))
    space_check.check(study, check_lesson(study.recipe, data_root or data.default_root(), download))
    if ledger.folder.exists("study.yaml"):
        check_same(study, ledger)
    with ledger.claim():
        if ledger.folder.exists("study.yaml"):
            ledger.folder.write_yaml("study.yaml", study.plain())  # its budget may be another now
        else:
            ledger.begin(study.plain())
        _go_on(study, ledger, address, data_root or data.default_root(), download, tell)
    return ledger


def resume(
    run: str,
    *,
    trials: int | None = None,
    address: str | None = None,
    data_root: Path | None = None,
    download: bool = False,
    tell: Tell = lambda phase, news: None,
) -> Ledger:
    """Go on with a run; `trials` asks for so many in all."""
    ledger = Ledger.open(run)
    study = extended(run, trials)
    with ledger.claim():
        ledger.folder.write_yaml("study.yaml", study.plain())
        _go_on(study, ledger, address, data_root or data.default_root(), download, tell)
    return ledger


def extended(run: str, trials: int | None) -> Study:
    """The study of a run; `trials`: asking for so many in all."""
    plain = Ledger.open(run).study()
    if trials is not None:
        plain["budget"]["trials"] = trials
    return Study.parse(plain, f"{run}/study.yaml")


def check_same(study: Study, ledger: Ledger) -> None:
    """BadInput when the run was begun from another study (its budget may differ)."""
    ours, theirs = study.plain(), ledger.study()
    ours["budget"] = theirs["budget"] = None
    if ours != theirs:
        different = [key for key in ours if ours[key] != theirs.get(key)]
        raise BadInput(
            [
                f"{ledger.folder.uri}: holds a run of another study (different: {', '.join(different)}). "
                f"Give this one another name (--set name=...), or another --storage"
            ]
        )


def check_lesson(recipe: Recipe, root: Path, download: bool) -> data.Figures:
    """What is known of the data. BadInput when they are missing, the method cannot serve the nets, or the
    teacher's file, where it is seen from here, cannot be read. Nothing is trained.
    """
    try:
        figures = data.load(recipe.data, root, download).figures
        distiller.check(recipe, *figures)
        teacher = recipe.teacher
        if (
            teacher and teacher.weights and Path(teacher.weights).expanduser().is_file()
        ):  # else the nodes' own
            trial.teacher_net(teacher, teacher.weights, figures.classes, root)
        return figures
    except BadInput:
        raise
    except ValueError as error:
        raise BadInput(str(error).splitlines()) from None


def _go_on(study: Study, ledger: Ledger, address: str | None, root: Path, download: bool, tell: Tell) -> None:
    from raykd.driver.confirm import confirm, pending

    if ledger.state() == "finished" and not _wants_more(study, ledger):
        tell("done already", {})
        return
    ledger.tell("running")
    with connected(address):
        from raykd.driver.tune_run import search

        try:
            teacher = teacher_weights(study, ledger, root, download, tell)
        except Untaught as error:
            ledger.tell("stopped", str(error))
            return
        job = partial(trial_job, study, teacher, root, download)
        searched = search(study, ledger, job, partial(tell, "search"))
        if not searched.done():
            ledger.tell("interrupted")
            raise KeyboardInterrupt
        if why := searched.why or searched.stopped:
            tell("stopped", {"why": why})
        if searched.stopped:
            ledger.tell("stopped", searched.stopped)
            return
        if not leaders(ledger.trials()):
            ledger.tell("stopped", searched.why or "no trial was completed")
            return
        failed = ""
        if study.confirm is not None and pending(study, study.confirm, ledger):
            failed = confirm(study, ledger, job, partial(tell, "confirm"))
        ledger.tell("stopped" if failed else "finished", failed or searched.why)


def _wants_more(study: Study, ledger: Ledger) -> bool:
    ended = [row for row in ledger.trials() if row["state"] in ("COMPLETE", "PRUNED", "FAIL")]
    return len(ended) < study.budget.trials and not ledger.why()

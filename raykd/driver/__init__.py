"""A Study as a run: the teacher, the search, the confirmation, each gone on with where it stands."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from raykd import corners, data, lesson, ray_trial, trial
from raykd.driver.cluster import LOSSES, connected
from raykd.ledger import Ledger, settle
from raykd.ledger.folder import Folder, joined
from raykd.mistakes import BadInput
from raykd.recipe import Recipe, digest, teacher_recipe
from raykd.standing import leaders
from raykd.study import Study

Tell = Callable[[str, dict[str, Any]], None]  # (phase, what changed)


class Untaught(RuntimeError):
    """The study's teacher could not be trained."""


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
    corners.check(study, check_lesson(study.recipe, data_root or data.default_root(), download))
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
        lesson.check(recipe, *figures)
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
        from raykd.driver.tuning import search

        try:
            teacher = _teacher(study, ledger, root, download, tell)
        except Untaught as error:
            ledger.tell("stopped", str(error))
            return
        job = partial(_job, study, teacher, root, download)
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


def _job(
    study: Study, teacher: str, root: Path, download: bool, recipe: Recipe, folder: str, test: bool = False
) -> trial.Job:
    threads, cluster = max(1, round(study.cluster.cpus)), study.cluster
    return trial.Job(
        recipe.plain(), folder, teacher, str(root.absolute()), download, threads, test,
        table=cluster.table, checkpoint_minutes=cluster.checkpoint_minutes,
    )  # fmt: skip


def _teacher(study: Study, ledger: Ledger, root: Path, download: bool, tell: Tell) -> str:
    """The file of the teacher's weights: named by the study, kept from before, or trained now and kept."""
    teacher = study.recipe.teacher
    if teacher is None:
        return ""
    if teacher.weights is not None:
        return teacher.weights
    kept = kept_teacher(study.recipe, ledger.storage)
    if kept is None:
        tell("teacher", {"net": teacher.net})
        workers = study.confirm.workers if study.confirm else study.cluster.workers
        folder, cluster = ledger.folder / "teacher", study.cluster
        job = _job(study, "", root, download, teacher_recipe(study.recipe), folder.uri)
        train = partial(ray_trial.train_job, [job], workers, cluster.cpus, cluster.gpus, "teacher", False)
        if failed := _until_done(train, folder):
            raise Untaught(f"the teacher {teacher.net} was not trained: {failed}")
        kept = keep_teacher(study.recipe, folder, ledger.storage)
    return kept


def _until_done(train: Callable[[], None], folder: Folder) -> str:
    """Train, again from the checkpoint whenever a process or machine is lost; what went wrong in it, or
    "".
    """
    from ray.train import TrainingFailedError

    for _ in range(LOSSES):
        folder.remove("failure.json")
        try:
            train()
        except TrainingFailedError:
            if failure := folder.read_json("failure.json"):
                return str(failure["reason"])
        else:
            return ""
    return f"its process or machine was lost {LOSSES} times"


def kept_teacher(recipe: Recipe, storage: Folder) -> str | None:
    """The file or URI of the teacher that a recipe trains, where the storage keeps it."""
    folder, name = storage / "teachers", _teacher_name(recipe)
    return joined(folder.uri, name) if folder.exists(name) else None


def keep_teacher(recipe: Recipe, folder: Folder, storage: Folder) -> str:
    """Move a trained teacher's weights into the storage; where they are then."""
    (storage / "teachers").write(_teacher_name(recipe), folder.read("student.safetensors"))
    folder.remove("student.safetensors")
    settle(folder)
    return joined((storage / "teachers").uri, _teacher_name(recipe))


def _teacher_name(recipe: Recipe) -> str:
    """Named by the hash of all that decides it."""
    assert recipe.teacher is not None
    return f"{recipe.teacher.net}-{digest(teacher_recipe(recipe))}.safetensors"

"""A run's files -> the plain rows that a report is made from.

What cannot be read becomes a problem that the page names.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Literal

from raykd.report.rows.read import ProblemLog, read_confirmations, read_epochs, read_trials, sum_seconds
from raykd.report.rows.study_file import StudyFile, flatten_settings, read_study_file
from raykd.report.rows.types import RunData, TrialRow, format_counts
from raykd.spec import Choice, Dimension, Range, Scalar
from raykd.store import file_names
from raykd.store.run_files import RunFiles
from raykd.store.status import find_mixtures
from raykd.study.constraints import describe_students
from raykd.study.rungs import list_rungs

RUN_STATES: dict[str, Literal["running", "interrupted", "finished"]] = {
    "running": "running",
    "interrupted": "interrupted",
}

HOLDOUT, SPLIT_SEED = "recipe/data/holdout", "recipe/data/split_seed"


def collect(run_files: RunFiles) -> RunData:
    """Returns all that the report of a run shows; what could not be read is named in its problems."""
    problems = ProblemLog()
    if reason := run_files.stop_reason():
        problems.add(f"the study ended early: {reason}")
    provenance = run_files.folder.read_json(file_names.PROVENANCE) or {}
    raykd_version = provenance.get("raykd", "of a version that it does not say")
    if raykd_version != version("raykd"):
        problems.add(f"begun with raykd {raykd_version}; this page was made by raykd {version('raykd')}")
    study_file = read_study_file(run_files, problems)
    method, status, paper = study_file.describe_method()
    trials = read_trials(run_files, problems)
    teacher_epochs = (run_files.folder / file_names.TEACHER).read_json(file_names.EPOCHS) or []
    several_epochs = [
        epoch
        for name in file_names.list_teacher_folders(study_file.count_teachers())
        for epoch in (run_files.folder / name).read_json(file_names.EPOCHS) or []
    ]
    environments = run_files.environments([trial.number for trial in trials if trial.epochs])
    for key, counts in find_mixtures(environments).items():
        shown = format_counts(counts)
        problems.add(f"trials and retrainings that do not compare exactly: their {key} differs ({shown})")
    retraining_devices = study_file.count_devices("confirm/workers")
    return RunData(
        name=study_file.get_text("name", run_files.name), method=method, status=status, paper=paper,
        student=study_file.get_text("recipe/student/net"),
        teacher=study_file.name_teachers(),
        dataset=study_file.get_text("recipe/data/name"),
        state=RUN_STATES.get(run_files.state(), "finished"),
        facts=_gather_facts(study_file, provenance, teacher_epochs) | describe_students(run_files.students()),
        space=study_file.study.search_space() if study_file.study else _space_from_trials(trials),
        paper_point=study_file.study.paper_point() if study_file.study else _find_paper_point(trials),
        trials=trials, epochs=read_epochs(run_files, trials, problems),
        budget_epochs=int(study_file.get_number("recipe/epochs", max((t.epochs for t in trials), default=1))),
        rungs=list_rungs(study_file.study) if study_file.study else [],
        objectives=study_file.study.search.objectives if study_file.study else ("accuracy",),
        split=f"{study_file.get_number(HOLDOUT):.0%} held out (seed {study_file.get_text(SPLIT_SEED)})",
        plus_kd=study_file.get_value("recipe/plus_kd") is not None,
        confirmations=read_confirmations(run_files, problems), published=study_file.find_published_rows(),
        device_kind="GPU" if study_file.get_number("cluster/gpus") else "CPU",
        trial_devices=study_file.count_devices("cluster/workers"), retraining_devices=retraining_devices,
        teacher_hours=sum_seconds([*teacher_epochs, *several_epochs]) / 3600 * retraining_devices,
        method_settings=tuple(flatten_settings("", study_file.get_value("recipe/method") or {})),
        conditions=study_file.get_conditions() | {key: provenance.get(key) for key in ("commit", "hardware")},
        environments=environments, problems=problems.lines(),
    )  # fmt: skip


def _gather_facts(
    study_file: StudyFile, provenance: dict[str, Any], teacher_epochs: Sequence[dict[str, Any]]
) -> dict[str, str]:
    facts = {
        "commit": str(provenance.get("commit", "unknown")),
        "hardware": str(provenance.get("hardware", "unknown")),
        "versions": ", ".join(
            f"{k} {provenance[k]}" for k in ("raykd", "python", "torch", "ray", "optuna") if k in provenance
        ),
        "started": str(provenance.get("started", "unknown")),
        "command": f"raykd launch {study_file.get_text('name')}.yaml",
        "sampler": f"{study_file.get_text('search/sampler/kind')}, seed {study_file.get_text('search/seed')}",
        "pruner": study_file.get_text("search/pruner/kind"),
        "trial": f"{study_file.get_text('recipe/epochs')} epochs, "
        f"batch {study_file.get_text('recipe/optimizer/batch_size')}, "
        f"seed {study_file.get_text('recipe/seed')}, precision {study_file.get_text('recipe/precision')}",
        **{f"start of the {role}": start for role, start in study_file.get_starts().items()},
        "split": f"{study_file.get_number(HOLDOUT):.0%} of the training images, stratified, seed "
        f"{study_file.get_text(SPLIT_SEED)}; selected by the averaged weights at the last epoch",
    }
    if teacher_epochs and "accuracy" in teacher_epochs[-1]:
        facts["teacher's held-out accuracy"] = (
            f"{teacher_epochs[-1]['accuracy']:.2f} % (trained by this study)"
        )
    return facts


def _space_from_trials(trials: Sequence[TrialRow]) -> dict[str, Dimension]:
    """A space as wide as the trials' params, where the study file does not say."""
    values_by_path: dict[str, list[Scalar]] = {}
    for trial in trials:
        for path, value in trial.params.items():
            values_by_path.setdefault(path, []).append(value)
    return {path: _dimension_around(values) for path, values in values_by_path.items()}


def _dimension_around(values: Sequence[Scalar]) -> Dimension:
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(values) and len(set(numbers)) > 1:
        return Range(min(numbers), max(numbers), integer=all(isinstance(v, int) for v in numbers))
    return Choice(tuple({repr(value): value for value in values}.values()))


def _find_paper_point(trials: Sequence[TrialRow]) -> dict[str, Scalar]:
    return next((trial.params for trial in trials if trial.role == "paper"), {})

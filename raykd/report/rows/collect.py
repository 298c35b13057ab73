"""A run's files -> the plain rows that a report is made from. What cannot be read becomes a problem told on
the page.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Literal

from raykd.report.rows import read, study_file
from raykd.report.rows.read import Notes
from raykd.report.rows.study_file import Asked, leaves
from raykd.report.rows.types import RunData, TrialRow
from raykd.spec import Choice, Dimension, Range, Scalar
from raykd.store.run_files import Ledger
from raykd.study.study import Study

STATES: dict[str, Literal["running", "interrupted", "finished"]] = {
    "running": "running",
    "interrupted": "interrupted",
}

HOLDOUT, SPLIT_SEED = "recipe/data/holdout", "recipe/data/split_seed"


def collect(ledger: Ledger) -> RunData:
    """Everything that the report of a run shows; what could not be read is named in its problems."""
    notes = Notes()
    if why := ledger.why():
        notes.add(f"the study ended early: {why}")
    stamp = ledger.folder.read_json("stamp.json") or {}
    if (wrote := stamp.get("raykd", "an unknown version")) != version("raykd"):
        notes.add(f"begun with raykd {wrote}; this page was made by raykd {version('raykd')}")
    study = study_file.read(ledger, notes)
    method, status, paper = study.method()
    trials = read.trials(ledger, notes)
    teacher = (ledger.folder / "teacher").read_json("epochs.json") or []
    devices = study.devices("confirm/workers")
    return RunData(
        name=study.text("name", ledger.name),
        method=method,
        status=status,
        paper=paper,
        student=study.text("recipe/student/net"),
        teacher=study.text("recipe/teacher/net", "none"),
        dataset=study.text("recipe/data/name"),
        state=STATES.get(ledger.state(), "finished"),
        facts=_facts(study, stamp, teacher),
        space=study.study.opened() if study.study else _seen(trials),
        paper_point=study.study.paper_point() if study.study else _tried_first(trials),
        trials=trials,
        epochs=read.epochs(ledger, trials, notes),
        budget_epochs=int(study.number("recipe/epochs", max((t.epochs for t in trials), default=1))),
        rungs=rungs(study.study) if study.study else [],
        objectives=study.study.search.objectives if study.study else ("accuracy",),
        split=f"{study.number(HOLDOUT):.0%} held out (seed {study.text(SPLIT_SEED)})",
        plus_kd=study.at("recipe/plus_kd") is not None,
        confirm=read.confirmations(ledger, notes),
        published=study.published(),
        device="GPU" if study.number("cluster/gpus") else "CPU",
        trial_devices=study.devices("cluster/workers"),
        devices=devices,
        teacher_hours=sum(row.get("seconds", 0.0) for row in teacher) / 3600 * devices,
        settings=tuple(leaves("", study.at("recipe/method") or {})),
        conditions=study.conditions() | {key: stamp.get(key) for key in ("commit", "hardware")},
        problems=notes.lines(),
    )


def rungs(study: Study) -> list[int]:
    """The epochs at which the pruner may stop a trial: successive halving's and Hyperband's rungs; else
    none.
    """
    pruner, epochs = study.search.pruner, study.recipe.epochs
    if pruner.kind not in ("halving", "hyperband"):
        return []
    rung, found = max(1, round(pruner.grace * epochs)), []
    while rung < epochs:
        found.append(rung)
        rung *= pruner.eta
    return found


def _facts(study: Asked, stamp: dict[str, Any], teacher: Sequence[dict[str, Any]]) -> dict[str, str]:
    facts = {
        "commit": str(stamp.get("commit", "unknown")),
        "hardware": str(stamp.get("hardware", "unknown")),
        "versions": ", ".join(
            f"{k} {stamp[k]}" for k in ("raykd", "python", "torch", "ray", "optuna") if k in stamp
        ),
        "begun": str(stamp.get("begun", "unknown")),
        "command": f"raykd launch {study.text('name')}.yaml",
        "sampler": f"{study.text('search/sampler/kind')}, seed {study.text('search/seed')}",
        "pruner": study.text("search/pruner/kind"),
        "trial": f"{study.text('recipe/epochs')} epochs, batch {study.text('recipe/optimizer/batch_size')}, "
        f"seed {study.text('recipe/seed')}, precision {study.text('recipe/precision')}",
        "split": f"{study.number(HOLDOUT):.0%} of the training images, stratified, seed "
        f"{study.text(SPLIT_SEED)}; selected by the averaged weights at the last epoch",
    }
    if teacher and "accuracy" in teacher[-1]:
        facts["teacher's held-out accuracy"] = f"{teacher[-1]['accuracy']:.2f} % (trained by this study)"
    return facts


def _seen(trials: Sequence[TrialRow]) -> dict[str, Dimension]:
    """A space as wide as the values that were drawn, where the study does not tell its own."""
    drawn: dict[str, list[Scalar]] = {}
    for trial in trials:
        for path, value in trial.drawn.items():
            drawn.setdefault(path, []).append(value)
    return {path: _around(values) for path, values in drawn.items()}


def _around(values: Sequence[Scalar]) -> Dimension:
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(values) and len(set(numbers)) > 1:
        return Range(min(numbers), max(numbers), integer=all(isinstance(v, int) for v in numbers))
    return Choice(tuple({repr(value): value for value in values}.values()))


def _tried_first(trials: Sequence[TrialRow]) -> dict[str, Scalar]:
    return next((trial.drawn for trial in trials if trial.role == "paper"), {})

"""A run's files -> the plain rows that a report is made from. What cannot be read becomes a problem told on
the page.
"""

from typing import Any, Literal

from raykd import methods
from raykd.catalogue import published
from raykd.ledger import Ledger
from raykd.report.data import ConfirmRow, EpochRow, PublishedRow, RunData, TrialRow
from raykd.space import called_for
from raykd.study import Study

STATES: dict[str, Literal["running", "interrupted", "finished"]] = {
    "running": "running",
    "interrupted": "interrupted",
}


def collect(ledger: Ledger) -> RunData:
    """Everything that the report of a run shows. BadInput when its study cannot be read."""
    study = Study.parse(ledger.study(), f"{ledger.folder.uri}/study.yaml")
    recipe, problems = study.recipe, []
    if why := ledger.why():
        problems.append(f"the study ended early: {why}")
    rows = ledger.trials()
    method = methods.module(recipe.method.name).Method
    paper_point = study.paper_point()
    held = f"{recipe.data.holdout:.0%} held out (seed {recipe.data.split_seed})"
    return RunData(
        name=study.name,
        method=recipe.method.name,
        status=method.status,
        paper=method.paper,
        student=recipe.student.net,
        teacher=recipe.teacher.net if recipe.teacher else "none",
        data=f"{recipe.data.name}, {held}",
        state=STATES.get(ledger.state(), "finished"),
        facts=_facts(ledger, study),
        space=study.opened(),
        paper_point=paper_point,
        trials=[_trial(ledger, row) for row in rows],
        epochs=[epoch for row in rows for epoch in _epochs(ledger, row["number"])],
        budget_epochs=recipe.epochs,
        rungs=rungs(study),
        confirm=_confirmations(ledger),
        published=_published(study),
        best=_difference(study, rows, paper_point),
        device_hours=_hours(rows) * study.cluster.workers,
        problems=problems,
    )


def _published(study: Study) -> PublishedRow | None:
    """What the method's own table says of this pair on this data set, where one is known."""
    recipe = study.recipe
    pair = f"{recipe.teacher.net if recipe.teacher else 'none'} -> {recipe.student.net}"
    for row in published():
        if (row["method"], row["data"]) == (recipe.method.name, recipe.data.name) and pair in row["top1"]:
            return PublishedRow(row["top1"][pair][0], f"{row['system']}, {row['source']}")
    return None


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


def _facts(ledger: Ledger, study: Study) -> dict[str, str]:
    stamp = ledger.folder.read_json("stamp.json") or {}
    teacher = (ledger.folder / "teacher").read_json("epochs.json")
    facts = {
        "commit": stamp.get("commit", "unknown"),
        "hardware": stamp.get("hardware", "unknown"),
        "versions": ", ".join(
            f"{k} {stamp[k]}" for k in ("raykd", "python", "torch", "ray", "optuna") if k in stamp
        ),
        "begun": stamp.get("begun", "unknown"),
        "command": f"raykd launch {study.name}.yaml",
        "sampler": f"{study.search.sampler.kind}, seed {study.search.seed}",
        "pruner": study.search.pruner.kind,
        "trial": f"{study.recipe.epochs} epochs, batch {study.recipe.optimizer.batch_size}, "
        f"seed {study.recipe.seed}, precision {study.recipe.precision}",
        "split": f"{study.recipe.data.holdout:.0%} of the training images, stratified, seed "
        f"{study.recipe.data.split_seed}; selected by the averaged weights at the last epoch",
    }
    if teacher:
        facts["teacher's held-out accuracy"] = f"{teacher[-1]['accuracy']:.2f} % (trained by this study)"
    return facts


def _trial(ledger: Ledger, row: dict[str, Any]) -> TrialRow:
    stamp = ledger.trial(row["number"]).read_json("stamp.json") or {}
    return TrialRow(
        number=row["number"],
        state=row["state"],
        drawn=row["drawn"],
        accuracy=row["accuracy"],
        epochs=row["epochs"],
        started=row["started"],
        ended=row["ended"],
        reason=row["reason"],
        role=row["role"],
        device=str(stamp.get("worker", "unknown")),
    )


def _epochs(ledger: Ledger, number: int) -> list[EpochRow]:
    return [
        EpochRow(
            number,
            row["epoch"],
            row["accuracy"],
            row["accuracy_raw"],
            row["seconds"],
            row["lr"],
            row["terms"],
        )
        for row in ledger.epochs(number)
        if row["accuracy"] is not None
    ]


def _confirmations(ledger: Ledger) -> list[ConfirmRow]:
    found = []
    for row in ledger.confirmations():
        epochs = ledger.confirmation(row["role"], row["seed"]).read_json("epochs.json") or []
        if epochs and "test_accuracy" in epochs[-1]:
            found.append(ConfirmRow(row["role"], row["number"], row["seed"], epochs[-1]["test_accuracy"]))
    return found


def _difference(study: Study, rows: list[dict[str, Any]], paper: dict[str, Any]) -> dict[str, Any]:
    complete = [row for row in rows if row["state"] == "COMPLETE"]
    if not complete:
        return {}
    drawn = max(complete, key=lambda row: row["accuracy"])["drawn"]
    paths = [p for p, d in study.opened().items() if called_for(d, drawn) or p in paper]
    return {p: (paper.get(p), drawn.get(p)) for p in paths if paper.get(p) != drawn.get(p)}


def _hours(rows: list[dict[str, Any]]) -> float:
    spans = (row["ended"] - row["started"] for row in rows if row["started"] and row["ended"])
    return float(sum(spans)) / 3600

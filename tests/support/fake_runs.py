"""Runs as the driver leaves them, without a training: the real search, pruner, journal and files; the
accuracies are made up.
"""

import json
from math import log10
from pathlib import Path
from typing import Any

import numpy as np

from raykd.driver.confirm import make_retraining_recipe, select_recipes
from raykd.driver.searcher import StudySearch
from raykd.store.provenance import record_provenance
from raykd.store.run_files import RunFiles
from raykd.study.study import Study

CLASSES = [str(digit) for digit in range(10)]
STUDY = {
    "name": "made",
    "recipe": {
        "data": {"name": "digits", "holdout": 0.2},
        "teacher": {"net": "resnet14", "weights": "teacher.pth"},
        "student": {"net": "resnet8"},
        "method": {"name": "dcd"},
        "epochs": 8,
        "optimizer": {"batch_size": 32},
    },
    "space": {"optimizer/lr": {"low": 0.005, "high": 0.5, "log": True}},
    "search": {"sampler": {"kind": "random"}, "pruner": {"kind": "halving", "min_fraction": 0.25, "eta": 3}},
    "budget": {"trials": 30},
    "confirm": {"leaders": 1, "controls": ["ce", "kd"], "seeds": 3},
}


def make_study(name: str, method: str = "dcd", trials: int = 30, **recipe: Any) -> Study:
    """A study of digits; `recipe` changes settings beside the method."""
    plain = json.loads(json.dumps(STUDY)) | {"name": name, "budget": {"trials": trials}}
    plain["recipe"] |= {"method": {"name": method}} | recipe
    return Study.parse(plain, name)


def write_run(study: Study, storage: Path, gain: float = 0.0, confirmed: bool = True) -> RunFiles:
    """The run's files, finished; `gain` points are added to every accuracy, every 13th trial diverges."""
    run_files = RunFiles(f"{storage}/{study.name}")
    run_files.begin(study.to_dict())
    worker = record_provenance() | {"seed": 0, "device": "cpu", "worker": "here 1"}
    searcher = StudySearch(
        study, run_files, lambda number, params: {"number": number}, lambda: 1, lambda row: None
    )
    rng = np.random.default_rng(0)
    while isinstance(config := searcher.suggest("tune"), dict):
        _write_trial(config["number"], study, run_files, searcher, worker, gain, rng)
    if confirmed:
        for role, (recipe, number) in select_recipes(study, run_files.trials()).items():
            for seed in range(1, study.confirm.seeds + 1 if study.confirm else 0):
                _write_retraining(
                    study, run_files, role, seed, number, make_retraining_recipe(recipe, seed).to_dict(), gain
                )
    run_files.write_state("finished")
    return run_files


def multiply(run_files: RunFiles, trials: int) -> None:
    """So many trials, the later ones copies of the earlier under their own numbers, with other accuracies."""
    rows, rng = run_files.trials(), np.random.default_rng(0)
    for number in range(len(rows), trials):
        row, shift = rows[number % len(rows)], float(rng.normal(0, 0.5))
        folder, epochs = run_files.trial(number), run_files.epochs(row["number"])
        accuracy = row["accuracy"] and row["accuracy"] + shift
        folder.write_json("trial.json", row | {"number": number, "role": "searched", "accuracy": accuracy})
        folder.write_json("epochs.json", [e | {"accuracy": e["accuracy"] + shift} for e in epochs])


def _write_trial(
    number: int, study: Study, run_files: RunFiles, searcher: StudySearch, worker: dict[str, Any],
    gain: float, rng: np.random.Generator,
) -> None:  # fmt: skip
    folder, epochs = run_files.trial(number), study.recipe.epochs
    folder.write_json("provenance.json", worker)
    lr = float(searcher.rows[number]["params"]["optimizer/lr"])
    final = 80 - 12 * (log10(lr) + 1.2) ** 2 + rng.normal(0, 0.5) + gain
    rows: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        if number % 13 == 7 and epoch == 2:
            reason = "loss term 'contrast' is nan at epoch 2, step 3"
            folder.write_json("failure.json", {"kind": "diverged", "reason": reason, "traceback": ""})
            searcher.on_trial_complete("tune", error=True)
            return
        accuracy = final * (1 - 2.0 ** (-8 * epoch / epochs))
        rows.append(_make_epoch(epoch, accuracy, accuracy - rng.uniform(0, 9) * (1 - epoch / epochs), lr))
        folder.write_json("epochs.json", [_judge(study, row) for row in rows])
        result = {"epoch": epoch, "accuracy": accuracy, "seconds": 3.0, "parameters": 78_000}
        result = _judge(study, result)
        result |= {"final": epoch == epochs}
        if searcher.record_epoch("tune", result):
            break
    searcher.on_trial_complete("tune", result)


def _judge(study: Study, row: dict[str, Any]) -> dict[str, Any]:
    """A row with its accuracies under the name of the study's metric, and other accuracies in their place."""
    metric = study.search.metric
    if metric == "accuracy":
        return row
    judged = {key.replace("accuracy", metric): row[key] for key in row if "accuracy" in key}
    other = {key: row[key] and 10 + row[key] / 2 for key in row if "accuracy" in key}
    return row | judged | other | {"metric": metric}


def _make_epoch(epoch: int, accuracy: float | None, raw: float | None, lr: float) -> dict[str, Any]:
    terms = {"task": 2.0 / epoch, "contrast": 4.0 - 0.1 * epoch, "consistency": 0.1}
    return {
        "epoch": epoch, "accuracy": accuracy, "accuracy_raw": raw, "lr": lr, "seconds": 3.0,
        "teacher_seconds": 1.0, "teacher_hits": 1100, "teacher_misses": 0, "teacher_seconds_saved": 2.0,
        "images_per_second": 400.0, "terms": terms,
    }  # fmt: skip


def _write_retraining(
    study: Study, run_files: RunFiles, role: str, seed: int, number: int | None, recipe: dict[str, Any],
    gain: float,
) -> None:  # fmt: skip
    folder = run_files.confirmation(role, seed)
    folder.write_yaml("recipe.yaml", recipe)
    folder.write_json("trial.json", {"role": role, "seed": seed, "number": number, "split": "test"})
    level = {"best": 84.0 + gain, "paper": 82.0 + gain, "kd": 81.0, "ce": 78.0}[role]
    rows = [_make_epoch(epoch, None, None, 0.05) for epoch in (1, 2)]
    noise = np.random.default_rng([seed, len(role)]).normal(0, 0.4)
    accuracy = level + 0.3 * seed + float(noise)
    last_row = _judge(study, rows[1] | {"test_accuracy": accuracy})
    folder.write_json("epochs.json", [_judge(study, rows[0]), last_row])
    folder.write_json("analysis.json", make_analysis(role, accuracy, seed))


def make_analysis(role: str, accuracy: float, seed: int) -> dict[str, Any]:
    """analysis.json as a confirmation writes it."""
    rng = np.random.default_rng(seed)
    embeddings = [
        [
            [float(x) + digit % 4, float(y) + digit // 4, CLASSES[digit]]
            for digit in range(10)
            for x, y in cloud
        ]
        for cloud in (rng.normal(0, 0.3, (20, 2)), rng.normal(0, 0.2, (20, 2)))
    ]
    classes = [
        {"class": name, "accuracy": accuracy + (i - 4) * (role == "best"), "teacher": 95.0, "control": None}
        for i, name in enumerate(CLASSES)
    ]
    return {
        "teacher_accuracy": 95.0, "accuracy": accuracy, "agreement": 83.0, "kl": 0.4,
        "calibration_error": 6.0, "calibration_error_scaled": 1.5, "temperature": 1.7,
        "temperature_split": "half of the test set", "per_class": classes,
        "images_per_second": {"student": 9000.0, "teacher": 2500.0},
        "parameters": {"student": 78_000, "teacher": 176_000},
        "embedding": {"student": embeddings[0], "teacher": embeddings[1]},
    }  # fmt: skip

"""The status of a run, from its files alone."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from raykd.metric import get_metric, get_score, select_scores
from raykd.store import file_names
from raykd.store.run_files import RunFiles, replace_auto
from raykd.study.starts import describe_starts

RECENT = 8  # trials that show the pace and the use of the teacher's cache


def get_status(run_files: RunFiles) -> dict[str, Any]:
    """Returns the status of a run, as plain data.

    State, trials by state, the best so far, time spent, saved and left, disk, the confirmation.
    """
    study, rows = run_files.resolved_study(), run_files.trials()
    return {
        "run": run_files.folder.uri,
        "study": study["name"],
        "method": study["recipe"]["method"]["name"],
        "starts": describe_starts(study["recipe"]),
        "state": run_files.state(),
        "stop_reason": run_files.stop_reason(),
        "lock_holder": run_files.lock_holder(),
        **summarize_trials(study, rows),
        "saved_by_pruning": saved_by_pruning(study, rows),
        "disk_bytes": sum(run_files.folder.file_sizes().values()),
        "disk_gb": study["budget"].get("disk_gb"),
        "retries": [
            {"trial": row["number"], "lost": row["lost"], "errors": row["errors"]}
            for row in rows
            if row["lost"] or row["errors"]
        ],
        "teacher_cache": teacher_cache_use(run_files, rows),
        "mixtures": find_mixtures(run_files.environments([row["number"] for row in rows if row["epochs"]])),
        "students": run_files.students(),
        "seconds_left": estimate_seconds_left(study, rows),
        "test_accuracies": test_accuracies(run_files),
        "failures": [
            {"trial": row["number"], "reason": row["reason"]} for row in rows if row["state"] == "FAIL"
        ],
    }


def summarize_trials(study: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the part of a run's status that follows from its study and the rows of its trials."""
    counts = {
        state.lower(): sum(row["state"] == state for row in rows)
        for state in ("RUNNING", "WAITING", "COMPLETE", "PRUNED", "FAIL")
    }
    best = next(iter(rank_trials(rows)), None)
    paper = next((row for row in rows if row["role"] == "paper"), None)
    return {
        "budget_trials": study["budget"]["trials"],
        "budget_device_hours": study["budget"].get("device_hours"),
        "trials": counts,
        "best": _summarize(best),
        "paper": _summarize(paper),
        "device": "GPU" if replace_auto(study["cluster"])["gpus"] else "CPU",
        "device_hours": device_hours(study, rows),
    }


def get_comparison_status(run_files: RunFiles) -> dict[str, Any]:
    """Returns the status of a comparison, as plain data: its own, and by method the status of each run."""
    return {
        "run": run_files.folder.uri,
        "study": run_files.study()["name"],
        "state": run_files.state(),
        "stop_reason": run_files.stop_reason(),
        "lock_holder": run_files.lock_holder(),
        "methods": {run.name: get_status(run) for run in run_files.list_runs()},
    }


def rank_trials(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the complete trials whose students are within the study's constraints, the best first.

    By the held-out metric of the averaged weights at the last epoch; of equals the earlier.
    """
    complete = [row for row in rows if row["state"] == "COMPLETE" and not row.get("breaks")]
    return sorted(complete, key=lambda row: (-get_score(row), row["number"]))


def estimate_seconds_left(study: dict[str, Any], rows: list[dict[str, Any]]) -> float | None:
    """Returns about how many seconds the search still takes; None before the first trial has ended.

    By the pace of the RECENT trials that ended last, on the clock; where that was set back, they took no less
    than the longest of them by its own seconds.
    """
    ended = sorted((row for row in rows if row["ended"] is not None), key=lambda row: row["ended"])
    if not ended:
        return None
    last = ended[-RECENT:]
    span = last[-1]["ended"] - min(row["started"] or row["ended"] for row in last)
    seconds_per_trial = max(span, *(row["seconds"] for row in last)) / len(last)
    return float(max(0, study["budget"]["trials"] - len(ended)) * seconds_per_trial)


def device_hours(study: dict[str, Any], rows: list[dict[str, Any]]) -> float:
    """Returns the hours of all workers of all trials; devices are GPUs where trials take them, else CPUs."""
    return float(sum(row["seconds"] for row in rows)) * _devices_per_trial(study) / 3600


def saved_by_pruning(study: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, float]:
    """Returns the epochs that pruned trials did not train, and about the device-hours of these.

    As they would have taken at the trials' own pace.
    """
    num_epochs, pruned = study["recipe"]["epochs"], [row for row in rows if row["state"] == "PRUNED"]
    epochs_left = sum(num_epochs - row["epochs"] for row in pruned)
    seconds = sum((num_epochs - row["epochs"]) * row["seconds"] / max(1, row["epochs"]) for row in pruned)
    return {"epochs": epochs_left, "device_hours": seconds * _devices_per_trial(study) / 3600}


def teacher_cache_use(run_files: RunFiles, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns how many views were read from the teacher's cache and the seconds saved; None without a cache.

    Of the RECENT trials that were begun last.
    """
    recent = [row["number"] for row in rows if row["epochs"]][-RECENT:]
    epochs = [epoch for number in recent for epoch in run_files.epochs(number)]
    hits, misses, seconds = (
        sum(epoch.get(f"teacher_{name}") or 0 for epoch in epochs)
        for name in ("hits", "misses", "seconds_saved")
    )
    if not hits:
        return None
    return {"trials": len(recent), "hits": hits, "misses": misses, "seconds_saved": seconds}


def find_mixtures(environments: Sequence[dict[str, str]]) -> dict[str, dict[str, int]]:
    """Returns in what trials differ that should be alike: {"precision" or "device": {value: trials}}.

    Args:
        environments: Of the trials, as `RunFiles.environments` returns them; who does not say is not counted.
    """
    counts = {
        key: Counter(environment[key] for environment in environments if key in environment)
        for key in ("precision", "device")
    }
    return {key: dict(count) for key, count in counts.items() if len(count) > 1}


def test_accuracies(run_files: RunFiles) -> dict[str, list[float]]:
    """Returns the metric on the test set (%) of the retrainings that are done: {role: by seed}."""
    accuracies: dict[str, list[float]] = {}
    for row in sorted(run_files.confirmations(), key=lambda row: (row["role"], row["seed"])):
        accuracy = test_accuracy(run_files, row["role"], row["seed"])
        if accuracy is not None:
            accuracies.setdefault(row["role"], []).append(accuracy)
    return accuracies


def test_accuracy(run_files: RunFiles, role: str, seed: int) -> float | None:
    """Returns the metric (%) of a retraining on the test set; None until it is done."""
    epochs = run_files.confirmation(role, seed).read_json(file_names.EPOCHS) or []
    return epochs[-1].get(f"test_{get_metric(epochs[-1])}") if epochs else None


def _devices_per_trial(study: dict[str, Any]) -> float:
    """Of one trial; at most, where its workers come and go."""
    cluster = replace_auto(study["cluster"])
    workers = cluster["workers"]
    most = workers["max"] if isinstance(workers, dict) else workers
    return float(most * (cluster["gpus"] or cluster["cpus"]))


def _summarize(row: dict[str, Any] | None) -> dict[str, Any] | None:
    keys = ("number", "state", "epochs", "params", "breaks")
    return row and select_scores(row) | {key: row[key] for key in keys if key in row}

"""Where a run stands, from its files alone."""

from typing import Any

from raykd.store.run_files import Ledger

RECENT = 8  # trials that tell of the pace and of the table


def standing(ledger: Ledger) -> dict[str, Any]:
    """State, trials by state, the best so far, time spent, saved and left, disk, the confirmation."""
    study, rows = ledger.study(), ledger.trials()
    counts = {
        state.lower(): sum(row["state"] == state for row in rows)
        for state in ("RUNNING", "WAITING", "COMPLETE", "PRUNED", "FAIL")
    }
    best = next(iter(leaders(rows)), None)
    paper = next((row for row in rows if row["role"] == "paper"), None)
    return {
        "run": ledger.folder.uri,
        "study": study["name"],
        "method": study["recipe"]["method"]["name"],
        "state": ledger.state(),
        "why": ledger.why(),
        "driver": ledger.held_by(),
        "asked": study["budget"]["trials"],
        "trials": counts,
        "best": _short(best),
        "paper": _short(paper),
        "device": "GPU" if study["cluster"]["gpus"] else "CPU",
        "device_hours": device_hours(study, rows),
        "saved": saved(study, rows),
        "disk_bytes": sum(ledger.folder.sizes().values()),
        "disk_gb": study["budget"].get("disk_gb"),
        "tried_again": [
            {"trial": row["number"], "lost": row["lost"], "tries": row["tries"]}
            for row in rows
            if row["lost"] or row["tries"]
        ],
        "teacher": answers(ledger, rows),
        "seconds_left": seconds_left(study, rows),
        "confirmed": confirmed(ledger),
        "failures": [
            {"trial": row["number"], "reason": row["reason"]} for row in rows if row["state"] == "FAIL"
        ],
    }


def leaders(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The complete trials, the best first: by the held-out accuracy of the averaged weights at the last
    epoch; of equals the earlier.
    """
    complete = [row for row in rows if row["state"] == "COMPLETE"]
    return sorted(complete, key=lambda row: (-row["accuracy"], row["number"]))


def seconds_left(study: dict[str, Any], rows: list[dict[str, Any]]) -> float | None:
    """About how long the search still takes, by the pace of the RECENT trials that ended last; None before
    the first.
    """
    ended = sorted((row for row in rows if row["ended"] is not None), key=lambda row: row["ended"])
    if not ended:
        return None
    last = ended[-RECENT:]
    pace = (last[-1]["ended"] - min(row["started"] or row["ended"] for row in last)) / len(last)
    return float(max(0.0, (study["budget"]["trials"] - len(ended)) * pace))


def device_hours(study: dict[str, Any], rows: list[dict[str, Any]]) -> float:
    """Of all workers of all trials; devices are GPUs where trials take them, else CPUs."""
    return float(sum(row["seconds"] for row in rows)) * _devices(study) / 3600


def saved(study: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, float]:
    """The epochs that pruned trials did not train, and the device-hours that these would have taken at the
    trials' own pace.
    """
    budget, pruned = study["recipe"]["epochs"], [row for row in rows if row["state"] == "PRUNED"]
    left = sum(budget - row["epochs"] for row in pruned)
    seconds = sum((budget - row["epochs"]) * row["seconds"] / max(1, row["epochs"]) for row in pruned)
    return {"epochs": left, "device_hours": seconds * _devices(study) / 3600}


def answers(ledger: Ledger, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Of the views of the RECENT trials begun last: how many were answered from the teacher's table, and the
    seconds that this saved. None where no table was used.
    """
    begun = [row["number"] for row in rows if row["epochs"]][-RECENT:]
    epochs = [epoch for number in begun for epoch in ledger.epochs(number)]
    hits, misses, seconds = (
        sum(epoch.get(f"teacher_{name}") or 0 for epoch in epochs)
        for name in ("hits", "misses", "seconds_saved")
    )
    if not hits:
        return None
    return {"trials": len(begun), "hits": hits, "misses": misses, "seconds_saved": seconds}


def confirmed(ledger: Ledger) -> dict[str, list[float]]:
    """Test accuracies (%) of the retrainings that are done: {role: by seed}."""
    found: dict[str, list[float]] = {}
    for row in sorted(ledger.confirmations(), key=lambda row: (row["role"], row["seed"])):
        accuracy = test_accuracy(ledger, row["role"], row["seed"])
        if accuracy is not None:
            found.setdefault(row["role"], []).append(accuracy)
    return found


def test_accuracy(ledger: Ledger, role: str, seed: int) -> float | None:
    """% of a retraining on the test set; None until it is done."""
    epochs = ledger.confirmation(role, seed).read_json("epochs.json") or []
    return epochs[-1].get("test_accuracy") if epochs else None


def _devices(study: dict[str, Any]) -> float:
    """Of one trial."""
    cluster = study["cluster"]
    return float(cluster["workers"] * (cluster["gpus"] or cluster["cpus"]))


def _short(row: dict[str, Any] | None) -> dict[str, Any] | None:
    return row and {key: row[key] for key in ("number", "state", "accuracy", "epochs", "drawn")}

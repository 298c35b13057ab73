"""Hand a trial on: a folder with recipe.yaml (which `raykd train` takes as it is), the student's weights and
a card.
"""

import json
from pathlib import Path
from typing import Any

from raykd import methods
from raykd.ledger import Ledger
from raykd.mistakes import BadInput
from raykd.recipe import Recipe


def best(ledger: Ledger) -> dict[str, Any]:
    """The row of the best complete trial, by held-out accuracy of the averaged weights at the last epoch."""
    complete = [row for row in ledger.trials() if row["state"] == "COMPLETE"]
    if not complete:
        raise BadInput([f"{ledger.folder.uri}: no trial is complete yet"])
    return max(complete, key=lambda row: row["accuracy"])


def export(ledger: Ledger, out: Path, number: int | None = None) -> Path:
    """Write recipe.yaml, student.safetensors and README.md of a trial (the best by default) into `out`."""
    row = best(ledger) if number is None else _row(ledger, number)
    folder = ledger.trial(row["number"])
    if not folder.exists("student.safetensors"):
        raise BadInput([f"{folder.uri}: its student is not kept (study: keep = {ledger.study()['keep']})"])
    out.mkdir(parents=True, exist_ok=True)
    for name in ("recipe.yaml", "student.safetensors", "stamp.json"):
        (out / name).write_bytes(folder.read(name))
    (out / "README.md").write_text(_card(ledger, row))
    return out


def _row(ledger: Ledger, number: int) -> dict[str, Any]:
    rows = {row["number"]: row for row in ledger.trials()}
    if number not in rows:
        raise BadInput([f"{ledger.folder.uri}: no trial {number}; there are 0 to {max(rows, default=-1)}"])
    return rows[number]


def _card(ledger: Ledger, row: dict[str, Any]) -> str:
    study = ledger.study()
    recipe = Recipe.model_validate_json(json.dumps(study["recipe"]))
    method = methods.module(recipe.method.name).Method
    stamp = ledger.trial(row["number"]).read_json("stamp.json") or {}
    tests = [
        f"- {c['role']}, seed {c['seed']}: {rows[-1]['test_accuracy']:.2f} % (test, full training set)"
        for c in ledger.confirmations()
        if (rows := ledger.confirmation(c["role"], c["seed"]).read_json("epochs.json"))
        and "test_accuracy" in rows[-1]
    ]
    teacher = recipe.teacher.net if recipe.teacher else "none"
    drawn = "\n".join(f"- `{path}`: {value}" for path, value in row["drawn"].items())
    return f"""# {recipe.student.net}, taught by {teacher} with {recipe.method.name}

Trial {row["number"]} of the study `{study["name"]}`. Method: {recipe.method.name} (**{method.status}**;
{method.paper}). Data: {recipe.data.name}; {recipe.data.holdout:.0%} of the training images held out for
selection.

Held-out accuracy of these weights: {row["accuracy"]:.2f} % (averaged weights, last epoch, n = 1 seed).

Retrained on the full training set by the same study:
{chr(10).join(tests) or "- not confirmed"}

Settings drawn:
{drawn}

Made with raykd {stamp.get("raykd")} (commit {stamp.get("commit")}), torch {stamp.get("torch")}, on
{stamp.get("hardware")}.

Again: `raykd train recipe.yaml`. Load:

```python
import safetensors.torch, raykd.models
net = raykd.models.make("{recipe.student.net}", classes=...)
net.load_state_dict(safetensors.torch.load_file("student.safetensors"))
```
"""

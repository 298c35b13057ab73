"""The model card: what a student is, how good, how to load it, how to teach it again."""

from pathlib import Path
from statistics import mean
from typing import Any

from raykd import methods
from raykd.data import Dataset
from raykd.export.choice import Chosen, teacher_at
from raykd.export.programs import ONNX, PROGRAM, Form
from raykd.maths.interval import half_width
from raykd.store.run_files import Ledger
from raykd.store.status import confirmed
from raykd.training.student import WEIGHTS

STATUS = {
    "official": "follows the authors' official code",
    "reconstruction": "**reconstruction**: no official code was followed; choices that the paper leaves open "
    "are settings",
}
LOADING = {
    WEIGHTS: """import raykd.student
net = raykd.student.load(".").net
logits = net(images).logits""",
    PROGRAM: """import torch
net = torch.export.load("student.pt2").module()
logits = net(images)""",
    ONNX: """import onnxruntime
net = onnxruntime.InferenceSession("student.onnx")
(logits,) = net.run(["logits"], {"images": images.numpy()})""",
}


def card(ledger: Ledger, taken: Chosen, dataset: Dataset[Any], written: dict[str, Form], root: Path) -> str:
    """Markdown. `root`: where data sets, and copies of teachers from object stores, lie."""
    recipe, stamp = taken.recipe, taken.folder.read_json("stamp.json") or {}
    mean_, std = ([round(x, 4) for x in three] for three in (dataset.mean, dataset.std))
    facts = _facts(taken, dataset, stamp, root)
    drawn = [f"- `{path}`: {value}" for path, value in taken.row["drawn"].items()]
    teacher = recipe.teacher.net if recipe.teacher else "no teacher"
    return f"""# {recipe.student.net}, taught by {teacher} with {recipe.method.name}

{_which(ledger, taken)}

| | |
|---|---|
{chr(10).join(f"| {name} | {words} |" for name, words in facts.items())}

## Accuracy

| what | images | top-1 | n |
|---|---|---|---|
{chr(10).join(_accuracies(ledger, taken, dataset))}

n counts seeds; an interval is the 95 % t interval of their mean. Held-out images chose the settings, so their
accuracies flatter; the test set chose nothing.

## Settings that were searched

{chr(10).join(drawn) or "None."}

## Input and output

Images: float32 [n, 3, {dataset.size}, {dataset.size}], any n, RGB, normalised: pixels / 255, minus {mean_},
divided by {std}. Answer: logits [n, {len(dataset.classes)}]. How to resize, the exact constants and the
names of the classes are in `preprocessing.json`, and the same text is in each file's metadata as
`preprocessing`.

## Load

{_loading(written)}

## Teach it again

    {_again(taken, stamp)}

The same numbers need the same kind of device and as many workers and threads: {_workers(stamp)}.

## Licence

raykd is under Apache-2.0. These weights are their maker's to license; the data set and the teacher have terms
of their own.
"""


def _which(ledger: Ledger, taken: Chosen) -> str:
    study, number = ledger.study()["name"], taken.row["number"]
    if not taken.confirmed:
        return f"Trial {number} of the study `{study}`: these are the weights that the search judged."
    return (
        f"The result of the study `{study}`: the settings of its best trial, {number}, taught again on the "
        f"full training set with seed {taken.recipe.seed}. These are the weights of that retraining "
        f"(`confirm/{taken.folder.name}`), not the trial's."
    )


def _facts(taken: Chosen, dataset: Dataset[Any], stamp: dict[str, Any], root: Path) -> dict[str, str]:
    recipe = taken.recipe
    method = methods.module(recipe.method.name).Method
    plus = " beside KD" if recipe.plus_kd else ""
    images, held = len(dataset.train.labels), len(dataset.heldout.labels)
    return {
        "Data": f"{recipe.data.name}: {images:,} training images, {held:,} held out for selection; "
        f"{len(dataset.classes)} classes",
        "Teacher": _teacher(taken, root),
        "Method": f"{recipe.method.name}{plus}: {STATUS[method.status]} ({method.paper})",
        "Weights": f"running average at the last of {recipe.epochs} epochs, float32, seed {recipe.seed}",
        "Made with": f"raykd {stamp.get('raykd')} (commit {stamp.get('commit')}), "
        f"torch {stamp.get('torch')}, on {stamp.get('hardware')}, {_workers(stamp)}",
    }


def _teacher(taken: Chosen, root: Path) -> str:
    """Net, file and SHA-256 of the teacher's weights."""
    asked = taken.recipe.teacher
    if asked is None:
        return "none"
    place, sha256 = teacher_at(taken, root)
    made = "trained by the study with cross-entropy" if asked.train else "given"
    name = place.partition("?")[0].rsplit("/", 1)[-1] or "a file that was not recorded"
    return f"{asked.net}, {made}: {name}, SHA-256 {sha256 or 'unknown, as the file is not here'}"


def _workers(stamp: dict[str, Any]) -> str:
    return f"workers: {stamp.get('workers', 'not recorded')}, threads: {stamp.get('threads', 'not recorded')}"


def _accuracies(ledger: Ledger, taken: Chosen, dataset: Dataset[Any]) -> list[str]:
    number, last = taken.row["number"], (taken.folder.read_json("epochs.json") or [{}])[-1]
    held, test = len(dataset.heldout.labels), f"test set, {len(dataset.test.labels):,}"
    rows = []
    if "test_accuracy" in last:
        rows.append(_accuracy("**these weights**", test, [last["test_accuracy"]]))
    if last.get("accuracy") is not None:
        rows.append(_accuracy("**these weights**", f"held out, {held:,}", [last["accuracy"]]))
    names = {"best": "the best trial's settings", "paper": "the paper's settings"}
    for role, values in confirmed(ledger).items():
        rows.append(_accuracy(f"{names.get(role, role)}, on the full training set", test, values))
    if taken.confirmed:
        rows.append(_accuracy(f"trial {number}, on its part of it", "held out", [taken.row["accuracy"]]))
    return rows


def _accuracy(what: str, images: str, values: list[float]) -> str:
    half = half_width(values)
    interval = f" ± {half:.2f}" if half is not None else ""
    return f"| {what} | {images} | {mean(values):.2f} %{interval} | {len(values)} |"


def _loading(written: dict[str, Form]) -> str:
    parts = [_code(WEIGHTS, "needs raykd")]
    for name, form in written.items():
        needs = f"needs {'torch' if name == PROGRAM else 'onnxruntime'} alone; {form.words}"
        parts.append(_code(name, needs) if form.there else f"`{name}` was left out: {form.words}.")
    return "\n\n".join(parts)


def _code(name: str, note: str) -> str:
    return f"`{name}` ({note}):\n\n```python\n{LOADING[name]}\n```"


def _again(taken: Chosen, stamp: dict[str, Any]) -> str:
    """In one line."""
    workers = stamp.get("workers", 1)
    return " ".join(
        ["raykd train recipe.yaml"]
        + (["--test"] if taken.confirmed else [])
        + ([f"--workers {workers}"] if workers > 1 else [])
    )

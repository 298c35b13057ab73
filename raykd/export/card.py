"""The model card: what a student is, how good, how to load it, how to train it again."""

from statistics import mean
from typing import Any

from raykd import methods
from raykd.data import Dataset
from raykd.export.choice import StudentChoice, locate_teachers
from raykd.export.programs import ONNX, PROGRAM, ProgramCheck
from raykd.export.quantized import INT8
from raykd.maths.interval import half_width
from raykd.metric import METRIC_TITLES, get_metric, get_score
from raykd.store import file_names
from raykd.store.run_files import RunFiles
from raykd.store.status import test_accuracies
from raykd.study.constraints import describe_student, find_student
from raykd.study.recipe import Recipe, TeacherSpec
from raykd.study.starts import describe_start

STATUS_TEXT = {
    "official": "follows the authors' official code",
    "reconstruction": "**reconstruction**: no official code was followed; choices that the paper leaves open "
    "are settings",
}
LOADING_CODE = {
    file_names.STUDENT: """from raykd.training import student
net = student.load(".").net
logits = net(images).logits""",
    PROGRAM: """import torch
net = torch.export.load("student.pt2").module()
logits = net(images)""",
    ONNX: """import onnxruntime
net = onnxruntime.InferenceSession("student.onnx")
(logits,) = net.run(["logits"], {"images": images.numpy()})""",
}
LOADING_CODE[INT8] = LOADING_CODE[ONNX].replace(ONNX, INT8)


def format_title(recipe: Recipe) -> str:
    """Returns the card's first line."""
    teachers = " + ".join(teacher.net for teacher in recipe.list_teachers()) or "no teacher"
    return f"# {recipe.student.net}, trained by {teachers} with {recipe.method.name}"


def render_card(
    run_files: RunFiles,
    choice: StudentChoice,
    dataset: Dataset[Any],
    checks: dict[str, ProgramCheck],
) -> str:
    """Returns Markdown."""
    recipe, provenance = choice.recipe, choice.folder.read_json(file_names.PROVENANCE) or {}
    mean_, std = ([round(x, 4) for x in three] for three in (dataset.mean, dataset.std))
    facts = _gather_facts(run_files, choice, dataset, provenance)
    param_lines = [f"- `{path}`: {value}" for path, value in choice.row["params"].items()]
    workers = _describe_workers(provenance)
    return f"""{format_title(recipe)}

{_describe_origin(run_files, choice)}

| | |
|---|---|
{chr(10).join(f"| {name} | {words} |" for name, words in facts.items())}

## {_get_heading(run_files)}

| what | images | {_get_title(run_files)} | n |
|---|---|---|---|
{chr(10).join(_accuracy_rows(run_files, choice, dataset))}

n counts seeds; an interval is the 95 % t interval of their mean. Held-out images chose the settings, so their
accuracies flatter; the test set chose nothing.

## Settings that were searched

{chr(10).join(param_lines) or "None."}

## Input and output

Images: float32 [n, 3, {dataset.size}, {dataset.size}], any n, RGB, normalised: pixels / 255, minus {mean_},
divided by {std}. Answer: logits [n, {len(dataset.classes)}]. How to resize, the exact constants and the
names of the classes are in `preprocessing.json`, and the same text is in each file's metadata as
`preprocessing`.

## Load

{_loading_section(checks)}

## Train it again

    {_retrain_command(choice, provenance)}

The same numbers need the same kind of device and as many workers and threads: {workers}.

## Licence

raykd is under Apache-2.0. These weights are their maker's to license; the data set and the teacher have terms
of their own.
"""


def _describe_origin(run_files: RunFiles, choice: StudentChoice) -> str:
    study, number = run_files.study()["name"], choice.row["number"]
    if not choice.confirmed:
        return f"Trial {number} of the study `{study}`: these are the weights that the search judged."
    return (
        f"The result of the study `{study}`: the settings of its best trial, {number}, trained again on "
        f"the full training set with seed {choice.recipe.seed}. These are the weights of that retraining "
        f"(`confirm/{choice.folder.name}`), not the trial's."
    )


def _gather_facts(
    run_files: RunFiles, choice: StudentChoice, dataset: Dataset[Any], provenance: dict[str, Any]
) -> dict[str, str]:
    recipe = choice.recipe
    method = methods.get_class(recipe.method.name)
    beside_kd = " beside KD" if recipe.plus_kd else ""
    num_images, num_held_out = len(dataset.train.labels), len(dataset.heldout.labels)
    return {
        "Data": f"{recipe.data.name}: {num_images:,} training images, {num_held_out:,} held out for "
        f"selection; {len(dataset.classes)} classes",
        "Teacher": _describe_teachers(choice),
        "Method": f"{recipe.method.name}{beside_kd}: {STATUS_TEXT[method.status]} ({method.paper})",
        **_describe_students(recipe),
        **_describe_costs(run_files, choice),
        "Start": describe_start(recipe.to_dict()["student"]),
        "Weights": f"running average at the last of {recipe.epochs} epochs, float32, seed {recipe.seed}",
        "Made with": f"raykd {provenance.get('raykd')} (commit {provenance.get('commit')}), "
        f"torch {provenance.get('torch')}, on {provenance.get('hardware')}, {_describe_workers(provenance)}",
    }


def _describe_costs(run_files: RunFiles, choice: StudentChoice) -> dict[str, str]:
    """What the student costs, where the study has constraints."""
    student = find_student(run_files.students(), choice.row["params"])
    return {"Costs": describe_student(student)} if student else {}


def _describe_students(recipe: Recipe) -> dict[str, str]:
    """What learnt beside the student, if anything did."""
    _, *others = recipe.list_students()
    if not others:
        return {}
    return {
        "Students": f"the first of {len(others) + 1}; beside it learnt {', '.join(s.net for s in others)}"
    }


def _describe_teachers(choice: StudentChoice) -> str:
    """Net, file and SHA-256 of each teacher's weights."""
    teachers = zip(choice.recipe.list_teachers(), locate_teachers(choice), strict=True)
    return "; ".join(_describe_teacher(teacher, *place) for teacher, place in teachers) or "none"


def _describe_teacher(teacher: TeacherSpec, uri: str, sha256: str | None) -> str:
    start = f" from {describe_start(teacher.model_dump())}" if teacher.weights else ""
    origin = (
        f"trained by the study with {_name_training(teacher.train.method.name)}{start}"
        if teacher.train
        else "given"
    )
    name = uri.partition("?")[0].rsplit("/", 1)[-1] or "a file that was not recorded"
    return f"{teacher.net}, {origin}: {name}, SHA-256 {sha256 or 'unknown, as the file is not here'}"


def _name_training(method: str) -> str:
    return "cross-entropy" if method == "ce" else f"cross-entropy and {method}"


def _describe_workers(provenance: dict[str, Any]) -> str:
    workers, threads = (provenance.get(name, "not recorded") for name in ("workers", "threads"))
    return f"workers: {workers}, threads: {threads}"


def _get_title(run_files: RunFiles) -> str:
    title = METRIC_TITLES[run_files.study()["search"]["objectives"][0]]
    return "top-1" if title == "accuracy" else title


def _get_heading(run_files: RunFiles) -> str:
    title = _get_title(run_files)
    return "Accuracy" if title == "top-1" else title[0].upper() + title[1:]


def _accuracy_rows(run_files: RunFiles, choice: StudentChoice, dataset: Dataset[Any]) -> list[str]:
    number, last_epoch = choice.row["number"], (choice.folder.read_json(file_names.EPOCHS) or [{}])[-1]
    num_held_out, test_images = len(dataset.heldout.labels), f"test set, {len(dataset.test.labels):,}"
    rows = []
    if test_score := last_epoch.get(f"test_{get_metric(last_epoch)}"):
        rows.append(_accuracy_row("**these weights**", test_images, [test_score]))
    if (score := last_epoch.get(get_metric(last_epoch))) is not None:
        rows.append(_accuracy_row("**these weights**", f"held out, {num_held_out:,}", [score]))
    names = {"best": "the best trial's settings", "paper": "the paper's settings"}
    for role, values in test_accuracies(run_files).items():
        rows.append(_accuracy_row(f"{names.get(role, role)}, on the full training set", test_images, values))
    if choice.confirmed:
        rows.append(_accuracy_row(f"trial {number}, on its part of it", "held out", [get_score(choice.row)]))
    return rows


def _accuracy_row(label: str, images: str, values: list[float]) -> str:
    interval_half_width = half_width(values)
    interval = f" ± {interval_half_width:.2f}" if interval_half_width is not None else ""
    return f"| {label} | {images} | {mean(values):.2f} %{interval} | {len(values)} |"


def _loading_section(checks: dict[str, ProgramCheck]) -> str:
    parts = [_code_block(file_names.STUDENT, "needs raykd")]
    for name, check in checks.items():
        needs = f"needs {'torch' if name == PROGRAM else 'onnxruntime'} alone; {check.message}"
        parts.append(
            _code_block(name, needs) if check.is_written else f"`{name}` was left out: {check.message}."
        )
    return "\n\n".join(parts)


def _code_block(name: str, note: str) -> str:
    return f"`{name}` ({note}):\n\n```python\n{LOADING_CODE[name]}\n```"


def _retrain_command(choice: StudentChoice, provenance: dict[str, Any]) -> str:
    """In one line."""
    workers = provenance.get("workers", 1)
    return " ".join(
        ["raykd train recipe.yaml"]
        + (["--test"] if choice.confirmed else [])
        + ([f"--workers {workers}"] if workers > 1 else [])
    )

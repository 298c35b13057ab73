"""An export: the same numbers again, the same answers in every form, loaded without raykd."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import safetensors
import safetensors.torch
import timm
import torch
from ruamel.yaml import YAML

from raykd import data, models
from raykd.errors import UserError
from raykd.export import programs
from raykd.export.card import format_title
from raykd.export.choice import StudentChoice, make_export_recipe
from raykd.export.export import export, is_export
from raykd.store.folder import Folder
from raykd.store.processors import count_cpus
from raykd.store.run_files import RunFiles
from raykd.study.recipe import Recipe
from raykd.study.study import Study
from raykd.training import student, trial

CPU = torch.device("cpu")
MakeRun = Callable[..., RunFiles]


@pytest.fixture
def run(tmp_path: Path, small: Path) -> MakeRun:
    """Makes a run of one trial, as a driver does, but in this process; `retrained`: and its confirmation."""

    def make(*overrides: str, retrained: bool = False) -> RunFiles:
        study = Study.read(small, ("epochs=2", "data/images=100", *overrides))
        run_files = RunFiles(str(tmp_path / "runs/small"))
        run_files.begin(study.to_dict())
        point, teachers = study.paper_point(), (str(tmp_path / "teacher.pth"),)
        recipe = study.recipe_with(point)

        def train(folder: Any, recipe: Any, row: dict[str, Any], test: bool) -> None:
            job = trial.Job(recipe.to_dict(), folder.uri, teachers, str(tmp_path), False, count_cpus(), test)
            trial.run(job, lambda metadata: None, CPU)
            last_epoch = folder.read_json("epochs.json")[-1]
            folder.write_json("trial.json", row | {"accuracy": last_epoch["accuracy"]})

        row = {"number": 0, "role": "paper", "params": point, "state": "COMPLETE"}
        train(run_files.trial(0), recipe, row, False)
        if retrained:
            full_data_recipe = recipe.with_settings(
                {"data": recipe.to_dict()["data"] | {"holdout": 0.0}, "seed": 1}
            )
            train(
                run_files.confirmation("best", 1),
                full_data_recipe,
                {"role": "best", "seed": 1, "number": 0},
                True,
            )
        return run_files

    return make


def read_card_code(folder: Path) -> dict[str, str]:
    """The card's code by the file that it loads."""
    card = (folder / "README.md").read_text()
    return dict(re.findall(r"`(student\.\w+)` \(needs.*?```python\n(.*?)\n```", card, re.DOTALL))


def run_alone(code: str, folder: Path, forbidden: tuple[str, ...], images: np.ndarray) -> np.ndarray:
    """Logits that the card's code gives in a process that cannot import the forbidden packages."""
    np.save(folder / "images.npy", images)
    program = f"""
import sys, types, numpy
for name in {forbidden!r}:
    sys.modules[name] = None
array = numpy.load("images.npy")
images = types.SimpleNamespace(numpy=lambda: array)
if "torch" not in {forbidden!r}:
    import torch
    images = torch.from_numpy(array)
{code}
numpy.save("logits.npy", numpy.asarray(logits.tolist(), "float32"))
"""
    command = [sys.executable, "-I", "-c", program]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    logits: np.ndarray = np.load(folder / "logits.npy")
    return logits


@pytest.mark.slow
def test_an_export_loads_without_raykd_and_is_trained_again_with_the_same_numbers(
    run: MakeRun, verb: Any, tmp_path: Path
) -> None:
    run_files = run()
    process = verb("export", "runs/small", "out")
    assert (process.returncode, process.stdout, process.stderr) == (0, f"export: {tmp_path}/out\n", "")
    process = verb("export", "runs/small", "runs")
    assert process.returncode == 2 and "runs: holds small, and is no earlier export" in process.stderr
    out = tmp_path / "out"

    preprocessing = json.loads((out / "preprocessing.json").read_text())
    assert (
        preprocessing["classes"] == [str(digit) for digit in range(10)]
        and preprocessing["size"] == preprocessing["resize"] == 32
    )
    extra = {"preprocessing": ""}
    torch.export.load(out / "student.pt2", extra_files=extra)
    assert json.loads(extra["preprocessing"]) == preprocessing
    session = onnxruntime.InferenceSession(out / "student.onnx")
    assert json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"]) == preprocessing
    with safetensors.safe_open(out / "student.safetensors", "pt") as file:
        assert json.loads(file.metadata()["preprocessing"]) == preprocessing

    pixels = data.load(data.Digits(), tmp_path, False).test.pixels[:5].numpy().astype(np.float32)
    images = (
        ((pixels / 255 - preprocessing["mean"]) / preprocessing["std"])
        .transpose(0, 3, 1, 2)
        .astype(np.float32)
    )
    with torch.no_grad():
        expected = student.load(str(out)).net(torch.from_numpy(images)).logits.numpy()
    code = read_card_code(out)
    assert list(code) == ["student.safetensors", "student.pt2", "student.onnx"]
    for name, forbidden in (("student.pt2", ("raykd",)), ("student.onnx", ("raykd", "torch"))):
        np.testing.assert_allclose(
            run_alone(code[name], out, forbidden, images), expected, rtol=1e-4, atol=1e-5
        )

    process = verb("train", "out/recipe.yaml", "--out", "again")
    assert process.returncode == 0, process.stderr
    keys = ("epoch", "accuracy", "accuracy_raw", "lr", "terms")
    again = json.loads((tmp_path / "again/epochs.json").read_text())
    assert [[row[k] for k in keys] for row in again] == [
        [row[k] for k in keys] for row in run_files.epochs(0)
    ]
    ours, theirs = (
        safetensors.torch.load_file(tmp_path / x / "student.safetensors") for x in ("out", "again")
    )
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_a_student_of_timm_loads_in_plain_timm_and_onnxruntime_with_the_same_numbers(
    run: MakeRun, tmp_path: Path
) -> None:
    """A ViT teaches a ResNet; each sees its own normalisation."""
    options = {"size": 32, "patch_size": 8, "depth": 2}
    vit = f"net: timm/vit_tiny_patch16_224, options: {json.dumps(options)}"
    teacher = models.make("timm/vit_tiny_patch16_224", 10, options)
    torch.save(teacher.state_dict(), tmp_path / "teacher.pth")
    run_files = run(
        "student={net: timm/resnet10t, options: {size: 32}}", "method={name: dkd}",
        f"teacher={{{vit}, weights: {tmp_path}/teacher.pth}}",
    )  # fmt: skip
    assert export(run_files, tmp_path / "out", root=tmp_path) == {}
    out = tmp_path / "out"
    net = timm.create_model("resnet10t", num_classes=10, checkpoint_path=out / "student.safetensors")
    statistics = json.loads((out / "preprocessing.json").read_text())
    pixels = torch.rand(2, 3, 32, 32)

    def normalize(mean: Any, std: Any) -> torch.Tensor:
        return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    with torch.no_grad():
        expected = net.eval()(normalize(net.pretrained_cfg["mean"], net.pretrained_cfg["std"])).numpy()
    images = normalize(statistics["mean"], statistics["std"])
    program = torch.export.load(out / "student.pt2").module()
    session = onnxruntime.InferenceSession(out / "student.onnx")
    for logits in (
        student.load(str(out)).net(images).logits.numpy(),
        program(images).detach().numpy(),
        session.run(None, {session.get_inputs()[0].name: images.numpy()})[0],
    ):
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


def check_int8(folder: Path, dataset: data.Dataset[Any]) -> None:
    """The drop on the card is counted anew on the test set; the answers are close to those in float32."""
    card = (folder / "README.md").read_text()
    (words,) = re.findall(r"`student.int8.onnx` \(needs (.*)\):", card)
    pixels, labels = dataset.test.pixels.float().permute(0, 3, 1, 2) / 255, dataset.test.labels
    images = (pixels - torch.tensor(dataset.mean)[:, None, None]) / torch.tensor(dataset.std)[:, None, None]
    sessions = [onnxruntime.InferenceSession(folder / f"student{kind}.onnx") for kind in (".int8", "")]
    answers = [session.run(["logits"], {"images": images.numpy()})[0].argmax(1) for session in sessions]
    correct, float_correct = (int((answer == labels.numpy()).sum()) for answer in answers)
    drop = 100 * (float_correct - correct) / 360
    assert f"accuracy on 360 test images {100 * correct / 360:.2f} %, a drop of {drop:.2f} points" in words, (
        words
    )
    assert ("fine-tuning" in words) == (drop > 0.5) and "on 100 training images" in words
    assert (answers[0] == answers[1]).mean() > 0.9
    metadata = [session.get_modelmeta().custom_metadata_map for session in sessions]
    assert metadata[0]["preprocessing"] == metadata[1]["preprocessing"]
    sizes = [(folder / f"student{kind}.onnx").stat().st_size for kind in (".int8", "")]
    assert sizes[0] < 0.5 * sizes[1] and f"{sizes[0] / sizes[1]:.2f} of its size" in words


@pytest.mark.slow
def test_a_confirmed_study_exports_the_retraining_and_says_so(
    run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_files, out = run(retrained=True), tmp_path / "out"
    assert not export(run_files, out, root=tmp_path, int8=True) and (out / "student.onnx").exists()
    check_int8(out, data.load(data.Digits(images=100), tmp_path, False))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as where the extra is not installed
    left_out = export(run_files, out, root=tmp_path, int8=True)
    reason = "ONNX needs onnxruntime: pip install 'raykd[export]', then export again"
    assert left_out == {"student.onnx": reason, "student.int8.onnx": reason}
    assert not list(out.glob("*.onnx")) and (out / "student.pt2").exists()
    recipe, card = YAML(typ="safe").load(out / "recipe.yaml"), (out / "README.md").read_text()
    assert (recipe["data"]["holdout"], recipe["seed"]) == (0.0, 1)
    test_accuracy = run_files.confirmation("best", 1).read_json("epochs.json")[-1]["test_accuracy"]
    assert "`confirm/best-seed1`" in card and f"| test set, 360 | {test_accuracy:.2f} % | 1 |" in card
    assert hashlib.sha256((tmp_path / "teacher.pth").read_bytes()).hexdigest() in card
    assert "follows the authors' official code" in card and "raykd train recipe.yaml --test" in card
    assert "`student.onnx` was left out: ONNX needs" in card

    export(run_files, tmp_path / "trial", 0, tmp_path)
    assert YAML(typ="safe").load(tmp_path / "trial/recipe.yaml")["data"]["holdout"] == 0.2
    assert "Trial 0 of the study `small`" in (tmp_path / "trial/README.md").read_text()
    with pytest.raises(UserError, match=r"out: holds README.md, .* and is no earlier export of this student"):
        export(run_files, out, 0, tmp_path)


@pytest.mark.slow
def test_a_student_with_a_tail_is_exported_with_it(run: MakeRun, tmp_path: Path) -> None:
    run_files = run("method={name: simkd}", "space={optimizer/lr: {low: 0.02, high: 0.2}}")
    assert not export(run_files, tmp_path / "out", root=tmp_path)
    net = student.load(str(tmp_path / "out")).net
    images = torch.randn(3, 3, 32, 32)
    program = torch.export.load(tmp_path / "out/student.pt2").module()
    with torch.no_grad():
        torch.testing.assert_close(program(images), net(images).logits)
        assert not torch.allclose(net(images).logits, net.student(images).logits)


@pytest.mark.slow
def test_a_net_of_many_shapes_becomes_a_program(tmp_path: Path) -> None:
    net = models.make("ShuffleV1", 10).requires_grad_(False).eval()
    checks = programs.write_programs(net, torch.randn(5, 3, 32, 32), {"net": "ShuffleV1"}, tmp_path)
    assert all(check.is_written for check in checks.values()), checks


def test_the_recipe_of_a_retraining_names_the_teacher_that_the_study_trained(tmp_path: Path) -> None:
    (tmp_path / "teacher.safetensors").write_bytes(b"weights")
    (tmp_path / "provenance.json").write_text(
        json.dumps({"teachers": [str(tmp_path / "teacher.safetensors")]})
    )
    recipe_values = {
        "data": {"name": "digits", "holdout": 0.0},
        "teacher": {"net": "resnet14", "train": {"epochs": 1}},
        "student": {"net": "resnet8"},
        "method": {"name": "kd"},
    }
    recipe = Recipe.model_validate_json(json.dumps(recipe_values))
    folder = Folder(str(tmp_path))
    teacher = make_export_recipe(StudentChoice({}, folder, recipe, confirmed=True)).teacher
    assert teacher is not None and teacher.train is None
    assert teacher.weights == str(tmp_path / "teacher.safetensors")
    assert teacher.sha256 == hashlib.sha256(b"weights").hexdigest()
    assert make_export_recipe(StudentChoice({}, folder, recipe, confirmed=False)) == recipe


RECIPE = {
    "data": {"name": "digits"}, "teacher": {"net": "resnet14", "train": {"epochs": 1}},
    "student": {"net": "resnet8"}, "method": {"name": "kd"},
}  # fmt: skip


def test_only_an_earlier_export_of_the_same_student_is_renewed(tmp_path: Path) -> None:
    recipe, folder = Recipe.model_validate_json(json.dumps(RECIPE)), Folder(str(tmp_path / "out"))
    assert not is_export(folder, recipe)
    folder.write_yaml("recipe.yaml", recipe.to_dict())
    assert is_export(folder, recipe)  # one that was cut off
    assert not is_export(folder, recipe.with_settings({"seed": 7}))
    folder.write("README.md", format_title(recipe).encode() + b"\n")
    assert is_export(folder, recipe)
    folder.write("README.md", b"# My project\n")
    assert not is_export(folder, recipe)
    for content in (b"\xff\xfe", b"a: [", b"method: 3\n"):
        folder.write("recipe.yaml", content)
        assert not is_export(folder, recipe)


@pytest.mark.slow
def test_exporting_leaves_no_telemetry_file_of_onnxruntime(tmp_path: Path) -> None:
    places = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    code = "from raykd.training import program; program.load_onnxruntime()"
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | places
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_program_that_differs_is_not_handed_out(tmp_path: Path) -> None:
    path, images, expected = tmp_path / "student.onnx", torch.randn(4, 3, 8, 8), torch.randn(4, 10)
    for wrong_logits in (1.001 * expected, expected * float("nan")):
        path.write_bytes(b"a program")
        outputs = iter((wrong_logits[:1], wrong_logits[1:]))
        check = programs.check_program(path, lambda _: next(outputs), images, expected)  # noqa: B023
        assert not check.is_written and not path.exists() and "tolerance 1e-04" in check.message


@pytest.mark.slow
def test_what_cannot_be_exported_or_loaded_is_one_line(run: MakeRun, tmp_path: Path) -> None:
    run_files = run()
    folder = run_files.trial(0).local
    assert folder is not None and student.load(str(folder)).net(torch.zeros(1, 3, 32, 32)).logits.shape == (
        1,
        10,
    )
    with pytest.raises(UserError, match="no trial 7; there are 0 to 0"):
        export(run_files, tmp_path / "out", 7)
    weights = safetensors.torch.load_file(folder / "student.safetensors")
    weights.pop("fc.bias")
    for content in (safetensors.torch.save(weights), b"torn"):
        (folder / "student.safetensors").write_bytes(content)
        with pytest.raises(UserError, match=r"student\.safetensors: not the weights of resnet8"):
            student.load(str(folder))
    (folder / "preprocessing.json").write_text("{")
    with pytest.raises(UserError, match=r"preprocessing\.json: torn"):
        student.load(str(folder))
    (folder / "student.safetensors").unlink()
    with pytest.raises(UserError, match="its student is not kept"):
        export(run_files, tmp_path / "out")
    with pytest.raises(UserError, match=r"no student\.safetensors"):
        student.load(str(folder))
    assert not (tmp_path / "out").exists()

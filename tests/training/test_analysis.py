"""The analysis of a student: each figure against another way to compute it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax, rel_entr, softmax
from sklearn.metrics import accuracy_score, recall_score

from raykd import data, models
from raykd.store.processors import name_device
from raykd.study.recipe import Recipe
from raykd.training import analysis, trial
from raykd.training.evaluation import uses_bf16

CPU = torch.device("cpu")


@pytest.fixture
def logits_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [600, 7] that are too sure, and labels."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(600, 7, generator=generator, dtype=torch.float64)
    labels = torch.distributions.Categorical(logits=logits / 4).sample()
    return logits, labels


def test_calibration_error_is_the_mean_gap_of_the_bins(logits_and_labels: Any) -> None:
    logits, labels = logits_and_labels
    probabilities = softmax(logits.numpy(), axis=1)
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels.numpy()
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert analysis.calibration_error(logits, labels) == pytest.approx(100 * expected, rel=1e-9)
    assert analysis.calibration_error(100.0 * torch.eye(7), torch.arange(7)) == pytest.approx(0, abs=1e-6)


def test_temperature_has_the_least_cross_entropy(logits_and_labels: Any) -> None:
    logits, labels = logits_and_labels

    def loss(log_temperature: np.ndarray) -> float:
        scaled = log_softmax(logits.numpy() / math.exp(log_temperature[0]), axis=1)
        return float(-scaled[np.arange(len(labels)), labels.numpy()].mean())

    expected = math.exp(minimize(loss, x0=[0.0], method="Nelder-Mead", options={"xatol": 1e-7}).x[0])
    temperature = analysis.fit_temperature(logits, labels)
    assert temperature == pytest.approx(expected, rel=1e-3) and 2 < temperature < 8
    assert analysis.calibration_error(logits / temperature, labels) < analysis.calibration_error(
        logits, labels
    )


def test_agreement_and_divergence(logits_and_labels: Any) -> None:
    student, _ = logits_and_labels
    teacher = student + torch.randn(
        student.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    p, q = softmax(teacher.numpy(), axis=1), softmax(student.numpy(), axis=1)
    assert analysis.kl_divergence(teacher, student) == pytest.approx(rel_entr(p, q).sum(1).mean(), rel=1e-9)
    assert analysis.kl_divergence(student, student) == pytest.approx(0, abs=1e-12)
    expected = 100 * accuracy_score(p.argmax(1), q.argmax(1))
    assert analysis.agreement(student, teacher) == pytest.approx(expected) and 0 < expected < 100


def analyse(spec: data.DataSpec, root: Path, teacher: bool) -> tuple[dict[str, Any], Any, Any]:
    torch.manual_seed(0)
    dataset = data.load(spec, root, False)
    student = models.make("resnet8", len(dataset.classes))
    net = models.make("resnet14", len(dataset.classes)) if teacher else None
    result = analysis.analyse(student, net, dataset, spec.make_source(dataset, CPU), False)
    return json.loads(json.dumps(result, allow_nan=False)), dataset, student


@pytest.mark.slow
def test_an_analysis_of_digits() -> None:
    result, dataset, student = analyse(data.Digits(), Path("unused"), teacher=True)
    images = torch.cat(
        [x for x, _ in data.Digits().make_source(dataset, CPU).evaluation_batches(dataset.test, 0, 1)]
    )
    with torch.no_grad():
        predicted = student.eval()(images).logits.argmax(1)
    labels = dataset.test.labels
    assert result["accuracy"] == pytest.approx(100 * accuracy_score(labels, predicted))
    recall = recall_score(labels, predicted, average=None, zero_division=0)
    rows = result["per_class"]
    assert [row["class"] for row in rows] == [str(digit) for digit in range(10)]
    assert [row["accuracy"] for row in rows] == pytest.approx(list(100 * recall))
    nets = {"student": "resnet8", "teacher": "resnet14"}
    expected = {name: models.num_parameters(models.make(net, 10)) for name, net in nets.items()}
    assert result["parameters"] == expected
    assert all(speed > 0 for speed in result["images_per_second"].values())
    for points in result["embedding"].values():
        assert len(points) == 360 and [name for _, _, name in points] == [str(x) for x in labels.tolist()]
    assert 0.05 < result["temperature"] <= 20 and "every other test image" in result["temperature_split"]


@pytest.mark.slow
def test_without_a_teacher_and_from_files(data_root: Path) -> None:
    spec = data.ImageNet(path="clothing", size=32, test="validation", loaders=0)
    result, dataset, _ = analyse(spec, data_root, teacher=False)
    assert result["teacher_accuracy"] is result["agreement"] is result["kl"] is None
    assert result["embedding"]["teacher"] is result["parameters"]["teacher"] is None
    assert result["images_per_second"]["teacher"] is None
    assert {row["teacher"] for row in result["per_class"]} == {None}
    assert len(result["embedding"]["student"]) == len(dataset.test.labels) == 341


@pytest.mark.slow
def test_a_retraining_that_opens_the_test_set_writes_its_analysis(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(models.make("resnet14", 10).state_dict(), tmp_path / "teacher.pth")
    plain = {
        "data": {"name": "digits", "images": 100, "holdout": 0.0},
        "teacher": {"net": "resnet14", "weights": str(tmp_path / "teacher.pth")},
        "student": {"net": "resnet8"},
        "method": {"name": "ce"},
        "epochs": 1,
    }
    recipe = Recipe.model_validate_json(json.dumps(plain)).to_dict()
    for name, test in (("opened", True), ("closed", False)):
        job = trial.Job(recipe, str(tmp_path / name), (str(tmp_path / "teacher.pth"),), "", False, 1, test)
        trial.run(job, lambda row: None, CPU)
    result = json.loads((tmp_path / "opened/analysis.json").read_text())
    rows = json.loads((tmp_path / "opened/epochs.json").read_text())
    assert result["accuracy"] == pytest.approx(rows[-1]["test_accuracy"])
    assert result["agreement"] is not None  # also of a control that needs no teacher
    assert not (tmp_path / "closed/analysis.json").exists()
    provenance = json.loads((tmp_path / "opened/provenance.json").read_text())
    assert provenance["teachers"] == [str(tmp_path / "teacher.pth")] and (
        provenance["workers"],
        provenance["threads"],
    ) == (
        1,
        1,
    )
    environment = json.loads((tmp_path / "opened/environment.json").read_text())
    precision = "bfloat16" if uses_bf16(Recipe.model_validate_json(json.dumps(plain)), CPU) else "float32"
    assert (environment["precision"], environment["device"]) == (precision, name_device(CPU))
    assert len(json.loads((tmp_path / "opened/preprocessing.json").read_text())["classes"]) == 10

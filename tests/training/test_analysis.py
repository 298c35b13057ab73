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
from raykd.study.recipe import Recipe
from raykd.training import analysis, trial

CPU = torch.device("cpu")


@pytest.fixture
def answers() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [600, 7] that are too sure, and labels."""
    chance = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(600, 7, generator=chance, dtype=torch.float64)
    labels = torch.distributions.Categorical(logits=logits / 4).sample()
    return logits, labels


def test_calibration_error_is_the_mean_gap_of_the_bins(answers: Any) -> None:
    logits, labels = answers
    probabilities = softmax(logits.numpy(), axis=1)
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels.numpy()
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (sure > low) & (sure <= low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert analysis.calibration_error(logits, labels) == pytest.approx(100 * expected, rel=1e-9)
    assert analysis.calibration_error(100.0 * torch.eye(7), torch.arange(7)) == pytest.approx(0, abs=1e-6)


def test_temperature_has_the_least_cross_entropy(answers: Any) -> None:
    logits, labels = answers

    def loss(log_temperature: np.ndarray) -> float:
        scaled = log_softmax(logits.numpy() / math.exp(log_temperature[0]), axis=1)
        return float(-scaled[np.arange(len(labels)), labels.numpy()].mean())

    expected = math.exp(minimize(loss, x0=[0.0], method="Nelder-Mead", options={"xatol": 1e-7}).x[0])
    found = analysis.temperature(logits, labels)
    assert found == pytest.approx(expected, rel=1e-3) and 2 < found < 8
    assert analysis.calibration_error(logits / found, labels) < analysis.calibration_error(logits, labels)


def test_agreement_and_divergence(answers: Any) -> None:
    ours, _ = answers
    theirs = ours + torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p, q = softmax(theirs.numpy(), axis=1), softmax(ours.numpy(), axis=1)
    assert analysis.divergence(theirs, ours) == pytest.approx(rel_entr(p, q).sum(1).mean(), rel=1e-9)
    assert analysis.divergence(ours, ours) == pytest.approx(0, abs=1e-12)
    expected = 100 * accuracy_score(p.argmax(1), q.argmax(1))
    assert analysis.agreement(ours, theirs) == pytest.approx(expected) and 0 < expected < 100


def analysed(spec: data.DataSpec, root: Path, teacher: bool) -> tuple[dict[str, Any], Any, Any]:
    torch.manual_seed(0)
    dataset = data.load(spec, root, False)
    student = models.make("resnet8", len(dataset.classes))
    net = models.make("resnet14", len(dataset.classes)) if teacher else None
    found = analysis.analyse(student, net, dataset, spec.source(dataset, CPU), False)
    return json.loads(json.dumps(found, allow_nan=False)), dataset, student


@pytest.mark.slow
def test_an_analysis_of_digits() -> None:
    found, dataset, student = analysed(data.Digits(), Path("unused"), teacher=True)
    images = torch.cat([x for x, _ in data.Digits().source(dataset, CPU).plain(dataset.test, 0, 1)])
    with torch.no_grad():
        said = student.eval()(images).logits.argmax(1)
    labels = dataset.test.labels
    assert found["accuracy"] == pytest.approx(100 * accuracy_score(labels, said))
    recall = recall_score(labels, said, average=None, zero_division=0)
    rows = found["per_class"]
    assert [row["class"] for row in rows] == [str(digit) for digit in range(10)]
    assert [row["accuracy"] for row in rows] == pytest.approx(list(100 * recall))
    nets = {"student": "resnet8", "teacher": "resnet14"}
    expected = {name: models.num_parameters(models.make(net, 10)) for name, net in nets.items()}
    assert found["parameters"] == expected
    assert all(speed > 0 for speed in found["images_per_second"].values())
    for points in found["embedding"].values():
        assert len(points) == 360 and [name for _, _, name in points] == [str(x) for x in labels.tolist()]
    assert 0.05 < found["temperature"] <= 20 and "every other test image" in found["temperature_split"]


@pytest.mark.slow
def test_without_a_teacher_and_from_files(data_root: Path) -> None:
    spec = data.ImageNet(path="clothing", size=32, test="validation", loaders=0)
    found, dataset, _ = analysed(spec, data_root, teacher=False)
    assert found["teacher_accuracy"] is found["agreement"] is found["kl"] is None
    assert found["embedding"]["teacher"] is found["parameters"]["teacher"] is None
    assert found["images_per_second"]["teacher"] is None
    assert {row["teacher"] for row in found["per_class"]} == {None}
    assert len(found["embedding"]["student"]) == len(dataset.test.labels) == 341


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
    recipe = Recipe.model_validate_json(json.dumps(plain)).plain()
    for name, test in (("opened", True), ("closed", False)):
        job = trial.Job(recipe, str(tmp_path / name), str(tmp_path / "teacher.pth"), "", False, 1, test)
        trial.run(job, lambda row: None, CPU)
    found = json.loads((tmp_path / "opened/analysis.json").read_text())
    rows = json.loads((tmp_path / "opened/epochs.json").read_text())
    assert found["accuracy"] == pytest.approx(rows[-1]["test_accuracy"])
    assert found["agreement"] is not None  # also of a control that needs no teacher
    assert not (tmp_path / "closed/analysis.json").exists()
    stamp = json.loads((tmp_path / "opened/stamp.json").read_text())
    assert stamp["teacher"] == str(tmp_path / "teacher.pth") and (stamp["workers"], stamp["threads"]) == (
        1,
        1,
    )
    assert len(json.loads((tmp_path / "opened/preprocessing.json").read_text())["classes"]) == 10

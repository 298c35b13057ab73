"""The metrics that may judge a trial: scikit-learn's, of one pass, from a state too, on several workers."""

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, top_k_accuracy_score
from support.small_trainer import CPU, comparable_metrics, make_trainer, recipe
from torch import Tensor, nn

from raykd.contract import gloo
from raykd.metric import METRICS, Metric
from raykd.training.evaluation import measure_metrics
from raykd.training.trainer import Trainer

CLASSES = 12


def score_by_sklearn(metric: Metric, labels: Any, logits: Any) -> float:
    """scikit-learn's value, %."""
    answers = logits.argmax(1)
    if metric == "top5":
        return float(100 * top_k_accuracy_score(labels, logits, k=5, labels=range(logits.shape[1])))
    functions = {
        "accuracy": accuracy_score(labels, answers),
        "balanced_accuracy": balanced_accuracy_score(labels, answers),
        "macro_f1": f1_score(labels, answers, average="macro"),
    }
    return float(100 * functions[metric])


class Answers(nn.Module):
    """A net whose logits are its images."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Any:
        return type("Logits", (), {"logits": self.weight * images})


class Share:
    """A source and a part of it: labels, and logits in the place of images, in small batches."""

    def __init__(self, labels: Tensor, logits: Tensor) -> None:
        self.labels, self.logits, self.num_passes = labels, logits, 0

    def evaluation_batches(self, part: Any, rank: int, world: int) -> Iterator[tuple[Tensor, Tensor]]:
        self.num_passes += 1
        yield from zip(self.logits[rank::world].split(32), self.labels[rank::world].split(32), strict=True)


def make_share(seed: int, absent: int, unanswered: int) -> Share:
    """Unbalanced classes: one of them without images, one that no image is answered with."""
    random = np.random.default_rng(seed)
    shares = np.r_[8, np.ones(CLASSES - 1)] * (np.arange(CLASSES) != absent)
    labels = torch.from_numpy(random.choice(CLASSES, 300, p=shares / shares.sum()))
    logits = torch.from_numpy(random.normal(size=(300, CLASSES))).float() + 1.5 * torch.eye(CLASSES)[labels]
    logits[:, unanswered] -= 100
    return Share(labels, logits)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("absent", "unanswered"), [(-1, 3), (5, 5), (5, 3)])
def test_they_are_scikit_learns_of_one_pass(metric: Metric, absent: int, unanswered: int) -> None:
    share = make_share(1, absent, unanswered)
    measured = measure_metrics(Answers(), share, share, False, metric, CLASSES)
    with warnings.catch_warnings(action="ignore"):  # an answer that is no image's class
        expected = {
            name: score_by_sklearn(name, share.labels.numpy(), share.logits.numpy()) for name in METRICS
        }
    assert measured == pytest.approx({name: expected[name] for name in ("accuracy", metric)}, abs=1e-10)
    assert share.num_passes == 1


def train(settings: Any, metric: Metric) -> list[dict[str, Any]]:
    return [comparable_metrics(row) for row in make_judged(metric, settings).run()]


def make_judged(metric: Metric, settings: Any) -> Trainer:
    trainer = make_trainer(settings)
    return Trainer(settings, trainer.dataset, trainer.teacher, CPU, metric=metric)


@pytest.mark.slow
def test_another_metric_stands_beside_the_accuracy_and_changes_nothing_else() -> None:
    settings = recipe(epochs=2, method={"name": "kd"})
    plain, judged = train(settings, "accuracy"), train(settings, "macro_f1")
    added = ("macro_f1", "macro_f1_raw", "metric")
    assert [{k: v for k, v in row.items() if k not in added} for row in judged] == plain
    assert all(row["metric"] == "macro_f1" and 0 < row["macro_f1"] < 100 for row in judged)


@pytest.mark.slow
def test_a_resumed_trainer_measures_the_same() -> None:
    settings = recipe(epochs=2, method={"name": "kd"})
    first, second = (make_judged("balanced_accuracy", settings) for _ in range(2))
    rows = [comparable_metrics(next(first.run()))]
    second.load_state_dict(copy.deepcopy(first.state_dict()), {})
    assert rows + [comparable_metrics(row) for row in second.run()] == train(settings, "balanced_accuracy")


def test_nothing_held_out_is_not_measured() -> None:
    settings = recipe(epochs=1, method={"name": "kd"}, data={"name": "digits", "images": 64, "holdout": 0})
    (row,) = train(settings, "top5")
    assert [row[name] for name in ("accuracy", "accuracy_raw", "top5", "top5_raw")] == [None] * 4


def measure_on_ranks(metric: Metric) -> dict[str, float]:
    share, rank = make_share(2, 5, 3), torch.distributed.get_rank()
    return measure_metrics(Answers(), share, share, False, metric, CLASSES, rank, 2)


@pytest.mark.slow
def test_workers_count_together() -> None:
    share = make_share(2, 5, 3)
    one = measure_metrics(Answers(), share, share, False, "macro_f1", CLASSES)
    assert gloo.run(measure_on_ranks, "macro_f1") == [one, one]

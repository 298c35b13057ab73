"""Do CRD and WCoRD learn as well from one draw of negatives for a batch as from one for each anchor?

    python tests/benchmarks/negatives.py [SEEDS [METHOD ...]]

Real CIFAR-100 under RAYKD_DATA, on one thread: a resnet14 learns 3,000 training images by cross-entropy,
then teaches a resnet8 on the same images, once with each sampling and seed. Only a third of the images is
drawn at a time, so that the draws differ. Accuracy: the 10,000 test images, averaged weights, last epoch.
The difference is paired by seed; its interval is Student's, 95 %.
"""

import statistics
import sys
import time
from typing import Any

import torch
from scipy import stats

from raykd import data, models
from raykd.store.provenance import record_provenance
from raykd.study.recipe import Recipe
from raykd.teachers.teacher import LiveTeacher, NoTeacher
from raykd.training.trainer import Trainer

IMAGES, EPOCHS, NEGATIVES = 3000, 8, 1000
CPU = torch.device("cpu")


def make_recipe(method: dict[str, Any], net: str, seed: int) -> Recipe:
    plain = {
        "data": {"name": "cifar100", "images": IMAGES, "holdout": 0.02},
        "teacher": {"net": "resnet14", "weights": "trained here"},
        "student": {"net": net},
        "method": method,
        "epochs": EPOCHS,
        "optimizer": {"lr": 0.1},
        "seed": seed,
    }
    return Recipe.model_validate(plain, strict=False)


def train(recipe: Recipe, dataset: Any, teacher: Any) -> Trainer:
    trainer = Trainer(recipe, dataset, teacher, CPU)
    for _ in trainer.run():
        pass
    return trainer


def main(seeds: str = "3", *chosen: str) -> None:
    torch.set_num_threads(1)
    provenance = record_provenance()
    print(
        f"{time.strftime('%F')}, {provenance['hardware']}, one thread, commit {provenance['commit']}, "
        f"n = {seeds} seeds; "
    )
    print(f"{' '.join(['python', *sys.argv])}\n", flush=True)
    teacher_recipe = make_recipe({"name": "ce"}, "resnet14", 0)
    dataset = data.load(teacher_recipe.data, data.default_root(), False)
    net = models.make("resnet14", len(dataset.classes))
    teacher_trainer = train(teacher_recipe, dataset, NoTeacher())
    print(f"teacher: {teacher_trainer.measure_test_metrics()['accuracy']:.2f} %\n", flush=True)
    net.load_state_dict(teacher_trainer.ema_student.state_dict())
    teacher = LiveTeacher(net, dataset.size, CPU, False)
    for name in chosen or ("crd", "wcord"):
        print(f"| {name}, seed | shared draw, % | a draw an anchor, % | less, points |", flush=True)
        print("|---|---|---|---|")
        differences = []
        for seed in range(int(seeds)):
            accuracies = [
                train(
                    make_recipe(
                        {"name": name, "sampling": sampling, "negatives": NEGATIVES}, "resnet8", seed
                    ),
                    dataset,
                    teacher,
                ).measure_test_metrics()["accuracy"]
                for sampling in ("shared", "per_sample")
            ]
            differences.append(accuracies[0] - accuracies[1])
            print(
                f"| {seed} | {accuracies[0]:.2f} | {accuracies[1]:.2f} | {differences[-1]:+.2f} |", flush=True
            )
        half_width = (
            stats.t.ppf(0.975, len(differences) - 1) * statistics.stdev(differences) / len(differences) ** 0.5
        )
        print(f"| mean | | | {statistics.mean(differences):+.2f} ± {half_width:.2f} |\n", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

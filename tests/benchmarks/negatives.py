"""Do CRD and WCoRD learn as well from one draw of negatives for a batch as from one for each anchor?

    python tests/benchmarks/negatives.py [SEEDS [METHOD ...]]

Real CIFAR-100 under RAYKD_DATA, on one thread: a resnet14 learns 3,000 training images by cross-entropy,
then teaches a resnet8 on the same images, once in each draw with each seed. Only a third of the images is
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
from raykd.store.provenance import stamp
from raykd.study.recipe import Recipe
from raykd.teachers.teacher import LiveTeacher, NoTeacher
from raykd.training.trainer import Teaching

IMAGES, EPOCHS, NEGATIVES = 3000, 8, 1000
CPU = torch.device("cpu")


def recipe(method: dict[str, Any], net: str, seed: int) -> Recipe:
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


def taught(chosen: Recipe, dataset: Any, teacher: Any) -> Teaching:
    teaching = Teaching(chosen, dataset, teacher, CPU)
    for _ in teaching.epochs():
        pass
    return teaching


def main(seeds: str = "3", *chosen: str) -> None:
    torch.set_num_threads(1)
    ran = stamp()
    print(
        f"{time.strftime('%F')}, {ran['hardware']}, one thread, commit {ran['commit']}, n = {seeds} seeds; "
    )
    print(f"{' '.join(['python', *sys.argv])}\n", flush=True)
    first = recipe({"name": "ce"}, "resnet14", 0)
    dataset = data.load(first.data, data.default_root(), False)
    net = models.make("resnet14", len(dataset.classes))
    learnt = taught(first, dataset, NoTeacher())
    print(f"teacher: {learnt.test_accuracy():.2f} %\n", flush=True)
    net.load_state_dict(learnt.average.state_dict())
    teacher = LiveTeacher(net, dataset.size, CPU, False)
    for name in chosen or ("crd", "wcord"):
        print(f"| {name}, seed | shared draw, % | a draw an anchor, % | less, points |", flush=True)
        print("|---|---|---|---|")
        less = []
        for seed in range(int(seeds)):
            found = [
                taught(
                    recipe({"name": name, "draw": draw, "negatives": NEGATIVES}, "resnet8", seed),
                    dataset,
                    teacher,
                ).test_accuracy()
                for draw in ("shared", "per_sample")
            ]
            less.append(found[0] - found[1])
            print(f"| {seed} | {found[0]:.2f} | {found[1]:.2f} | {less[-1]:+.2f} |", flush=True)
        wide = stats.t.ppf(0.975, len(less) - 1) * statistics.stdev(less) / len(less) ** 0.5
        print(f"| mean | | | {statistics.mean(less):+.2f} ± {wide:.2f} |\n", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

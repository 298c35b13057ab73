"""Test accuracy of students that learn from a live teacher and from each form of its cache, and bytes a view.

    python tests/benchmarks/cache_forms.py DATA OUT [SEEDS]

Teachers and results are kept in OUT: a run that was cut off goes on. Raw weights after the last epoch.
"""

import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from raykd import data, models
from raykd.store.provenance import record_provenance
from raykd.study.recipe import Recipe
from raykd.teachers.cache_file import count_row_bytes
from raykd.teachers.cache_form import EXACT, CacheForm
from raykd.teachers.cached import add_cache
from raykd.teachers.teacher import LiveTeacher, NoTeacher
from raykd.training.evaluation import measure_accuracy
from raykd.training.trainer import Trainer

CPU = torch.device("cpu")


class Setting(NamedTuple):
    data: dict[str, Any]
    teacher: str
    teacher_epochs: int
    epochs: int
    tops: tuple[int, ...]  # logits of the compact forms


SETTINGS = {
    "digits": Setting({"name": "digits", "images": 1000, "holdout": 0}, "resnet14", 8, 6, (3,)),
    "CIFAR-100": Setting({"name": "cifar100", "images": 3000, "holdout": 0}, "resnet20", 20, 6, (10, 30)),
}
STUDENT, BATCH = "resnet8", 32


def make_recipe(setting: Setting, method: str, epochs: int, seed: int, student: str) -> Recipe:
    teacher = None if method == "ce" else {"net": setting.teacher, "weights": "trained here"}
    plain = {"data": setting.data, "student": {"net": student}, "teacher": teacher, "epochs": epochs}
    plain |= {"optimizer": {"batch_size": BATCH}, "schedule": {"kind": "cosine"}, "seed": seed}
    return Recipe.model_validate_json(
        json.dumps(plain | {"method": {"name": method}, "precision": "float32"})
    )


def make_teacher(name: str, setting: Setting, dataset: Any, out: Path) -> Any:
    path = out / f"{name}.pt"
    if not path.exists():
        recipe = make_recipe(setting, "ce", setting.teacher_epochs, 100, setting.teacher)
        trainer = Trainer(recipe, dataset, NoTeacher(), CPU)
        list(trainer.run())
        torch.save(trainer.ema_student.state_dict(), path)
    net = models.make(setting.teacher, len(dataset.classes))
    net.load_state_dict(torch.load(path, weights_only=True))
    return net


def list_forms(setting: Setting) -> list[tuple[str, str, CacheForm | None]]:
    """(method, name, form); None: a live teacher."""
    tops = [CacheForm(top_logits=top, embedding="none") for top in setting.tops]
    forms = {"kd": [EXACT, *tops], "dcd": [EXACT, CacheForm(embedding="int8")]}
    return [
        (method, form.describe() if form else "live", form)
        for method in forms
        for form in (None, *forms[method])
    ]


def train(setting: Setting, method: str, form: CacheForm | None, dataset: Any, net: Any, seed: int) -> float:
    recipe = make_recipe(setting, method, setting.epochs, seed, STUDENT)
    live = LiveTeacher(net, dataset.size, CPU, False, form or EXACT)
    teacher = live if form is None else add_cache(live, recipe.data.index_views(dataset), 8, CPU)
    trainer = Trainer(recipe, dataset, teacher, CPU)
    list(trainer.run())
    return measure_accuracy(trainer.student, trainer.source, dataset.test, False)


@torch.no_grad()
def describe_loss(form: CacheForm, net: Any, dataset: Any, source: Any) -> str:
    """What a form loses on the test images: KL at two temperatures, and the embedding's relative error."""
    images, _ = next(iter(source.evaluation_batches(dataset.test, 0, 1)))
    outputs, shapes = net.eval()(images), net.shapes(dataset.size)
    logits, embedding = form.decode(form.encode(outputs.logits, outputs.embedding), shapes)
    kl = [
        F.kl_div(
            F.log_softmax(logits / t, 1),
            F.log_softmax(outputs.logits / t, 1),
            log_target=True,
            reduction="batchmean",
        ).item()
        for t in (1, 4)
    ]
    error = (
        ((embedding - outputs.embedding).norm() / outputs.embedding.norm()).item()
        if embedding.numel()
        else None
    )
    return f"{kl[0]:.1e}, {kl[1]:.1e} | {'' if error is None else f'{error:.1e}'}"


def main(root: str, out: str, seeds: str = "3") -> None:
    torch.set_num_threads(1)
    folder, results = Path(out), Path(out) / "results.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["RAYKD_CACHE"] = str(folder / "cache")
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    table = []
    for name, setting in SETTINGS.items():
        dataset = data.load(make_recipe(setting, "ce", 1, 0, STUDENT).data, Path(root), False)
        net = make_teacher(name, setting, dataset, folder)
        source = make_recipe(setting, "ce", 1, 0, STUDENT).data.make_source(dataset, CPU)
        teacher_accuracy = measure_accuracy(net.eval(), source, dataset.test, False)
        for method, form_name, form in list_forms(setting):
            accuracies = []
            for seed in range(1, int(seeds) + 1):
                key = [name, method, form_name, seed]
                known = [row["accuracy"] for row in done if row["key"] == key]
                if not known:
                    known = [train(setting, method, form, dataset, net, seed)]
                    with results.open("a") as file:
                        file.write(json.dumps({"key": key, "accuracy": known[0]}) + "\n")
                accuracies.append(known[0])
            bytes_ = "" if form is None else str(count_row_bytes(form.count_bytes(net.shapes(dataset.size))))
            loss = " | " if form is None else describe_loss(form, net, dataset, source)
            by_seed = ", ".join(f"{value:.2f}" for value in accuracies)
            mean = statistics.mean(accuracies)
            table.append(
                f"| {name} ({setting.teacher} {teacher_accuracy:.1f} %) | {method} | {form_name} | {bytes_} "
                f"| {loss} | {by_seed} | {mean:.2f} |"
            )
            print(table[-1], flush=True)
    provenance = record_provenance()
    print(f"{provenance['hardware']}, commit {provenance['commit']}")


if __name__ == "__main__":
    main(*sys.argv[1:])

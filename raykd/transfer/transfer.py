"""How well a student's features serve another data set: a linear probe on its frozen net.

The protocol of DCD's transfer script (read in giakoumoglou/distillers, cifar/transfer_student.py): the head
is replaced by a linear layer (weights from N(0, 0.01^2), biases 0), all else is frozen; 120 epochs of SGD at
batch size 64, learning rate 0.05 (there 0.01 for MobileNetV2, ShuffleV1 and ShuffleV2: set optimizer/lr),
divided by 10 after epochs 30, 60 and 90, weight decay 5e-4; images at the student's size, random crops with
padding 4 and flips, normalised by the new data set's constants; the last epoch counts. There the batch norms
stay in training mode, so that features follow the batch and the running statistics move: batch_norm =
released. By default they are frozen like the rest. The features are the net's embedding; SimKD's student
keeps its own, without the projector.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import nn

from raykd import data, models
from raykd.errors import UserError, suggest_nearest, validate
from raykd.maths.interval import half_width
from raykd.store import file_names
from raykd.store.folder import Folder
from raykd.store.provenance import record_provenance
from raykd.study.starts import PRETRAINED
from raykd.study.yaml_file import override
from raykd.training.evaluation import set_numerics
from raykd.training.student import TrainedStudent
from raykd.training.trial_teachers import load_teacher_net
from raykd.transfer.probe import Features, Probe, measure_accuracy

ReportAccuracy = Callable[[str, int, float], None]  # (which net, seed, accuracy)


def make_probe(to: str, student: TrainedStudent, root: Path, overrides: tuple[str, ...]) -> Probe:
    """Returns the probe of a data set, or of a folder of images under the data root, at the student's size.

    All training images are used.

    Raises:
        UserError: No such set, or a mistake in `overrides` (path=value).
    """
    kinds = data.names()
    if to not in kinds and not (root / Path(to).expanduser()).is_dir():
        raise UserError(
            [
                f"--to {to}: neither a data set nor a folder under {root}.{suggest_nearest(to, kinds)} "
                f"There are: {', '.join(kinds)}"
            ]
        )
    settings = {"name": to} if to in kinds else {"name": "folder", "path": to}
    size = {"size": student.size} if "size" in data.get_spec(settings["name"]).model_fields else {}
    plain: dict[str, Any] = {"data": settings | size | {"holdout": 0.0}}
    override(plain, overrides)
    return validate(Probe, plain, "transfer")


def load_teacher(folder: Folder, student: TrainedStudent, file: str | None) -> nn.Module | None:
    """Returns the student's teacher, from `file` or from where it lay.

    None when it is not there any more, and where several taught: they share no features.
    """
    spec = student.recipe.teacher
    places = (folder.read_json(file_names.PROVENANCE) or {}).get("teachers") or [""]
    place = file or places[0]
    if spec is None or not place or (file is None and not _may_be_there(place)):
        return None
    teacher = load_teacher_net(spec, place, len(student.classes))
    teacher.set_input_statistics(*student.statistics)
    return teacher


def _may_be_there(place: str) -> bool:
    return "://" in place or place == PRETRAINED or Path(place).is_file()


def transfer(
    student: TrainedStudent,
    teacher: nn.Module | None,
    settings: Probe,
    root: Path,
    download: bool,
    report: ReportAccuracy,
) -> dict[str, Any]:
    """Probes the student, its teacher and an untrained student; returns the result as plain data.

    rows: {net: {accuracy (test, %, mean), interval (half of the 95 % t interval), seeds (accuracies)}}.
    """
    dataset = data.load(settings.data, root, download)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    set_numerics(device, bf16=False)
    source = settings.data.make_source(dataset, device)
    moving = settings.batch_norm == "released"

    def make_features(net: nn.Module) -> Features:
        return Features(net, moving, dataset, source, device)

    def probe(net_name: str, features_of_seed: Callable[[int], Features]) -> dict[str, Any]:
        accuracies = []
        for seed in range(1, settings.seeds + 1):
            accuracies.append(measure_accuracy(features_of_seed(seed), settings, seed))
            report(net_name, seed, accuracies[-1])
        return {"accuracy": mean(accuracies), "interval": half_width(accuracies), "seeds": accuracies}

    def for_any_seed(net: nn.Module) -> Callable[[int], Features]:
        if moving:
            return lambda seed: make_features(copy.deepcopy(net))  # its statistics move
        features = make_features(net)
        return lambda seed: features

    def make_untrained(seed: int) -> Features:
        torch.manual_seed(seed)
        spec = student.recipe.student
        net = models.make(spec.net, len(student.classes), spec.options)
        net.set_input_statistics(*student.statistics)
        return make_features(net)

    rows = {"student": probe("student", for_any_seed(student.net))}
    if teacher is not None:
        rows["teacher"] = probe("teacher", for_any_seed(teacher))
    rows["untrained"] = probe("untrained", make_untrained)
    return {
        "settings": settings.model_dump(mode="json"),
        "student": student.recipe.student.net,
        "method": student.recipe.method.name,
        "teacher": student.recipe.teacher.net if student.recipe.teacher else None,
        "classes": len(dataset.classes),
        "images": {"train": len(dataset.train.labels), "test": len(dataset.test.labels)},
        "rows": rows,
        "provenance": record_provenance(),
    }


def write_result(folder: Folder, to: str, result: dict[str, Any]) -> None:
    """Writes the result into the student's transfer.json, which holds one for each data set."""
    folder.write_json(file_names.TRANSFER, (folder.read_json(file_names.TRANSFER) or {}) | {to: result})

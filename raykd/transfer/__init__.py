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
from typing import Any, get_args

import torch
from torch import nn

from raykd import data, models
from raykd.data import AnyData
from raykd.errors import BadInput, checked, nearest
from raykd.maths.interval import half_width
from raykd.store.folder import Folder
from raykd.store.provenance import stamp
from raykd.study.yaml_file import override
from raykd.training import trial
from raykd.training.student import Student
from raykd.transfer.probe import Features, Probe, accuracy

__all__ = ["Probe", "keep", "probe_of", "teacher_of", "transfer"]

Heard = Callable[[str, int, float], None]  # (whose features, seed, accuracy)


def probe_of(to: str, student: Student, root: Path, overrides: tuple[str, ...]) -> Probe:
    """The probe of a data set by name, or of a folder of images under the data root, at the student's size.

    All training images are used. BadInput: no such set, or a mistake in `overrides` (path=value).
    """
    kinds = {spec.model_fields["name"].default: spec for spec in get_args(get_args(AnyData)[0])}
    if to not in kinds and not (root / Path(to).expanduser()).is_dir():
        raise BadInput(
            [
                f"--to {to}: neither a data set nor a folder under {root}.{nearest(to, kinds)} "
                f"There are: {', '.join(kinds)}"
            ]
        )
    settings = {"name": to} if to in kinds else {"name": "folder", "path": to}
    sized = {"size": student.size} if "size" in kinds[settings["name"]].model_fields else {}
    plain: dict[str, Any] = {"data": settings | sized | {"holdout": 0.0}}
    override(plain, overrides)
    return checked(Probe, plain, "transfer")


def teacher_of(folder: Folder, student: Student, file: str | None, root: Path) -> nn.Module | None:
    """The student's teacher, from `file` or from where it lay; None when it is not there any more."""
    asked = student.recipe.teacher
    there = file or (folder.read_json("stamp.json") or {}).get("teacher", "")
    if asked is None or not there or (file is None and "://" not in there and not Path(there).is_file()):
        return None
    return trial.teacher_net(asked, there, len(student.classes), root)


def transfer(
    student: Student, teacher: nn.Module | None, settings: Probe, root: Path, download: bool, heard: Heard
) -> dict[str, Any]:
    """Probe the student, its teacher and an untrained student; the result as plain data.

    rows: {whose: {accuracy (test, %, mean), interval (half of the 95 % t interval), seeds (accuracies)}}.
    """
    dataset = data.load(settings.data, root, download)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    source = settings.data.source(dataset, device)
    released = settings.batch_norm == "released"

    def features(net: nn.Module) -> Features:
        return Features(net, released, dataset, source, device)

    def probed(whose: str, made: Callable[[int], Features]) -> dict[str, Any]:
        accuracies = []
        for seed in range(1, settings.seeds + 1):
            accuracies.append(accuracy(made(seed), settings, seed))
            heard(whose, seed, accuracies[-1])
        return {"accuracy": mean(accuracies), "interval": half_width(accuracies), "seeds": accuracies}

    def of(net: nn.Module) -> Callable[[int], Features]:
        if released:
            return lambda seed: features(copy.deepcopy(net))  # its statistics move
        once = features(net)
        return lambda seed: once

    def untrained(seed: int) -> Features:
        torch.manual_seed(seed)
        return features(models.make(student.recipe.student.net, len(student.classes)))

    rows = {"student": probed("student", of(student.net))}
    if teacher is not None:
        rows["teacher"] = probed("teacher", of(teacher))
    rows["untrained"] = probed("untrained", untrained)
    return {
        "settings": settings.model_dump(mode="json"),
        "student": student.recipe.student.net,
        "method": student.recipe.method.name,
        "teacher": student.recipe.teacher.net if student.recipe.teacher else None,
        "classes": len(dataset.classes),
        "images": {"train": len(dataset.train.labels), "test": len(dataset.test.labels)},
        "rows": rows,
        "stamp": stamp(),
    }


def keep(folder: Folder, to: str, result: dict[str, Any]) -> None:
    """Write the result into the student's transfer.json, which holds one for each data set."""
    folder.write_json("transfer.json", (folder.read_json("transfer.json") or {}) | {to: result})

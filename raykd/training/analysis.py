"""What a taught student is like beyond its accuracy: agreement with its teacher, calibration, classes, speed.

Legend: n images, c classes, d width of the embedding.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raykd.data import Dataset, Source

BINS = 15
SHOWN = 500  # images of the picture of embeddings
SPEED_BATCH = 64
SPEED_SECONDS = 0.3  # of each net, once it is warm
SPLIT = "every other test image; both calibration errors are of the others"


class Answers(NamedTuple):
    """A net's answers to the whole test set, on the CPU."""

    logits: Tensor  # [n, c], float32
    embedding: Tensor  # [at most SHOWN, d], float32


def analyse(
    student: nn.Module, teacher: nn.Module | None, dataset: Dataset[Any], source: Source[Any], half: bool
) -> dict[str, Any]:
    """The analysis of a student on the test set, as plain data; what is of a teacher is None without one.

    Keys: accuracy, teacher_accuracy, agreement (top-1), in %; kl, the mean KL(teacher || student) in nats;
    calibration_error, calibration_error_scaled (ECE of 15 bins before and after temperature scaling, %),
    temperature, temperature_split; per_class; images_per_second and parameters of both; embedding, the first
    two principal components of up to 500 images, [x, y, class]. `half`: bfloat16, as the student was judged.
    """
    nets = {"student": student} | ({"teacher": teacher} if teacher is not None else {})
    labels, answers = _answers(nets, dataset, source, half)
    logits = answers["student"].logits
    theirs = answers["teacher"].logits if teacher is not None else None
    fitted, judged = slice(0, None, 2), slice(1, None, 2)
    scale = temperature(logits[fitted], labels[fitted])
    names = ("student", "teacher")
    return {
        "teacher_accuracy": None if theirs is None else _accuracy(theirs, labels),
        "accuracy": _accuracy(logits, labels),
        "agreement": None if theirs is None else agreement(logits, theirs),
        "kl": None if theirs is None else divergence(theirs, logits),
        "calibration_error": calibration_error(logits[judged], labels[judged]),
        "calibration_error_scaled": calibration_error(logits[judged] / scale, labels[judged]),
        "temperature": scale,
        "temperature_split": SPLIT,
        "per_class": _per_class(dataset.classes, labels, logits, theirs),
        "images_per_second": {name: _speed(nets.get(name), dataset, source, half) for name in names},
        "parameters": {name: _parameters(nets.get(name)) for name in names},
        "embedding": {name: _picture(answers.get(name), labels, dataset.classes) for name in names},
    }


@torch.no_grad()
def _answers(
    nets: dict[str, nn.Module], dataset: Dataset[Any], source: Source[Any], half: bool
) -> tuple[Tensor, dict[str, Answers]]:
    """Labels [n] and each net's answers, from one pass over the test set."""
    for net in nets.values():
        net.eval()
    shown = set(_shown(len(dataset.test.labels)).tolist())
    seen: list[Tensor] = []
    logits: dict[str, list[Tensor]] = {name: [] for name in nets}
    embedding: dict[str, list[Tensor]] = {name: [] for name in nets}
    position = 0
    for images, labels in source.plain(dataset.test, 0, 1):
        picked = [i for i in range(len(labels)) if position + i in shown]
        for name, net in nets.items():
            with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
                view = net(images)
            logits[name].append(view.logits.float().cpu())
            embedding[name].append(view.embedding[picked].float().cpu())
        seen.append(labels.cpu())
        position += len(labels)
    found = {name: Answers(torch.cat(logits[name]), torch.cat(embedding[name])) for name in nets}
    return torch.cat(seen), found


def _shown(images: int) -> Tensor:
    """The positions of the images in the picture, evenly over the test set."""
    return torch.arange(min(images, SHOWN)) * images // min(images, SHOWN)


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return 100 * (logits.argmax(1) == labels).double().mean().item()


def agreement(ours: Tensor, theirs: Tensor) -> float:
    """Of logits [n, c] each: on how many images both say the same class, %."""
    return _accuracy(ours, theirs.argmax(1))


def divergence(of: Tensor, from_: Tensor) -> float:
    """Mean over n images of KL(softmax(of) || softmax(from_)), nats; logits [n, c]."""
    return F.kl_div(from_.log_softmax(1), of.log_softmax(1), reduction="batchmean", log_target=True).item()


def calibration_error(logits: Tensor, labels: Tensor) -> float:
    """Expected calibration error, %: Guo et al. 2017, arXiv:1706.04599, Eq. 5, with 15 bins of equal width.

    A bin (low, high] holds the images whose greatest probability lies in it.
    """
    confidence, said = logits.softmax(1).max(1)
    place = (confidence * BINS).ceil().clamp(1, BINS).long() - 1
    gap = (said == labels).double() - confidence
    sums = torch.zeros(BINS, dtype=gap.dtype).index_add_(0, place, gap)
    return 100 * sums.abs().sum().item() / len(labels)


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature in 0.05 .. 20 by which logits [n, c] are divided for the least cross-entropy: same
    paper, section 4.2.
    """
    from scipy.optimize import minimize_scalar  # here: it takes a while, and most trials need it not

    def loss(inverse: float) -> float:  # convex in it
        return F.cross_entropy(logits * inverse, labels).item()

    return 1 / float(minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-5}).x)


def _per_class(
    classes: tuple[str, ...], labels: Tensor, ours: Tensor, theirs: Tensor | None
) -> list[dict[str, Any]]:
    """Accuracy by class, %. Every class has test images: the data sets see to that."""
    mine = _by_class(ours, labels, len(classes))
    others = [None] * len(classes) if theirs is None else _by_class(theirs, labels, len(classes))
    return [
        {"class": name, "accuracy": own, "teacher": other}
        for name, own, other in zip(classes, mine, others, strict=True)
    ]


def _by_class(logits: Tensor, labels: Tensor, classes: int) -> list[float]:
    right = labels[logits.argmax(1) == labels].bincount(minlength=classes)
    return [100 * part for part in (right / labels.bincount(minlength=classes)).tolist()]


def _parameters(net: nn.Module | None) -> int | None:
    return None if net is None else sum(p.numel() for p in net.parameters())


@torch.no_grad()
def _speed(net: nn.Module | None, dataset: Dataset[Any], source: Source[Any], half: bool) -> float | None:
    """Images per second of a forward pass on batches of 64 that lie on the device: the median pass."""
    if net is None:
        return None
    few = dataset.test.take(torch.arange(min(SPEED_BATCH, len(dataset.test.labels))))
    images = next(source.plain(few, 0, 1))[0]

    def once() -> float:
        began = time.perf_counter()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
            net(images).logits.sum().item()  # waits for the device
        return time.perf_counter() - began

    return len(images) / _median(once)


def _median(once: Callable[[], float]) -> float:
    once()
    took = [once()]
    while sum(took) < SPEED_SECONDS:
        took.append(once())
    return sorted(took)[len(took) // 2]


def _picture(
    answers: Answers | None, labels: Tensor, classes: tuple[str, ...]
) -> list[tuple[float, float, str]] | None:
    """The embeddings' first two principal components, each with its class."""
    if answers is None:
        return None
    from sklearn.decomposition import PCA  # here: it takes seconds, and most trials need it not

    flat = PCA(n_components=2).fit_transform(answers.embedding.numpy())
    names = [classes[label] for label in labels[_shown(len(labels))].tolist()]
    return [(round(float(x), 4), round(float(y), 4), name) for (x, y), name in zip(flat, names, strict=True)]

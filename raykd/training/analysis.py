"""What a trained student is like beyond its accuracy: agreement with its teacher, calibration, speed.

Legend: n images, c classes, d width of the embedding.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raykd.data import Dataset, Source

NUM_BINS = 15
NUM_EMBEDDED = 500  # images whose embeddings are plotted
SPEED_BATCH = 64
SPEED_SECONDS = 0.3  # of each net, once it is warm
TEMPERATURE_SPLIT = "every other test image; both calibration errors are of the others"


class NetOutputs(NamedTuple):
    """A net's outputs for the whole test set, on the CPU."""

    logits: Tensor  # [n, c], float32
    embedding: Tensor  # [at most NUM_EMBEDDED, d], float32


def analyse(
    student: nn.Module, teacher: nn.Module | None, dataset: Dataset[Any], source: Source[Any], bf16: bool
) -> dict[str, Any]:
    """Returns the analysis of a student on the test set, as plain data; what is of no teacher is None.

    Keys: accuracy, teacher_accuracy, agreement (top-1), in %; kl, the mean KL(teacher || student) in nats;
    calibration_error, calibration_error_scaled (ECE of 15 bins before and after temperature scaling, %),
    temperature, temperature_split; per_class; images_per_second and parameters of both; embedding, the first
    two principal components of up to 500 images, [x, y, class]. `bf16`: in bfloat16, as in evaluation.
    """
    nets = {"student": student} | ({"teacher": teacher} if teacher is not None else {})
    labels, outputs = _run_nets(nets, dataset, source, bf16)
    logits = outputs["student"].logits
    teacher_logits = outputs["teacher"].logits if teacher is not None else None
    fitted, calibrated = slice(0, None, 2), slice(1, None, 2)
    temperature = fit_temperature(logits[fitted], labels[fitted])
    names = ("student", "teacher")
    return {
        "teacher_accuracy": None if teacher_logits is None else _accuracy(teacher_logits, labels),
        "accuracy": _accuracy(logits, labels),
        "agreement": None if teacher_logits is None else agreement(logits, teacher_logits),
        "kl": None if teacher_logits is None else kl_divergence(teacher_logits, logits),
        "calibration_error": calibration_error(logits[calibrated], labels[calibrated]),
        "calibration_error_scaled": calibration_error(logits[calibrated] / temperature, labels[calibrated]),
        "temperature": temperature,
        "temperature_split": TEMPERATURE_SPLIT,
        "per_class": _per_class(dataset.classes, labels, logits, teacher_logits),
        "images_per_second": {name: _measure_speed(nets.get(name), dataset, source, bf16) for name in names},
        "parameters": {name: _count_parameters(nets.get(name)) for name in names},
        "embedding": {
            name: _project_embeddings(outputs.get(name), labels, dataset.classes) for name in names
        },
    }


@torch.no_grad()
def _run_nets(
    nets: dict[str, nn.Module], dataset: Dataset[Any], source: Source[Any], bf16: bool
) -> tuple[Tensor, dict[str, NetOutputs]]:
    """Labels [n] and each net's outputs, from one pass over the test set."""
    for net in nets.values():
        net.eval()
    embedded = set(_embedded_positions(len(dataset.test.labels)).tolist())
    all_labels: list[Tensor] = []
    logits: dict[str, list[Tensor]] = {name: [] for name in nets}
    embedding: dict[str, list[Tensor]] = {name: [] for name in nets}
    position = 0
    for images, labels in source.evaluation_batches(dataset.test, 0, 1):
        picked = [i for i in range(len(labels)) if position + i in embedded]
        for name, net in nets.items():
            with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
                net_outputs = net(images)
            logits[name].append(net_outputs.logits.float().cpu())
            embedding[name].append(net_outputs.embedding[picked].float().cpu())
        all_labels.append(labels.cpu())
        position += len(labels)
    outputs = {name: NetOutputs(torch.cat(logits[name]), torch.cat(embedding[name])) for name in nets}
    return torch.cat(all_labels), outputs


def _embedded_positions(images: int) -> Tensor:
    """The positions of the images whose embeddings are plotted, evenly over the test set."""
    return torch.arange(min(images, NUM_EMBEDDED)) * images // min(images, NUM_EMBEDDED)


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return 100 * (logits.argmax(1) == labels).double().mean().item()


def agreement(student: Tensor, teacher: Tensor) -> float:
    """Returns on how many images two nets' logits [n, c] predict the same class, %."""
    return _accuracy(student, teacher.argmax(1))


def kl_divergence(teacher: Tensor, student: Tensor) -> float:
    """Returns the mean over n images of KL(softmax(teacher) || softmax(student)), nats; logits [n, c]."""
    return F.kl_div(
        student.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True
    ).item()


def calibration_error(logits: Tensor, labels: Tensor) -> float:
    """Returns the expected calibration error of logits [n, c], %, with 15 bins of equal width.

    Guo et al. 2017, arXiv:1706.04599, Eq. 5. A bin (low, high] holds the images whose greatest probability
    lies in it.
    """
    confidence, predicted = logits.softmax(1).max(1)
    bins = (confidence * NUM_BINS).ceil().clamp(1, NUM_BINS).long() - 1
    gap = (predicted == labels).double() - confidence
    sums = torch.zeros(NUM_BINS, dtype=gap.dtype).index_add_(0, bins, gap)
    return 100 * sums.abs().sum().item() / len(labels)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Returns the temperature in 0.05 .. 20 that divides logits [n, c] for the least cross-entropy.

    Temperature scaling: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    from scipy.optimize import minimize_scalar  # here: it takes a while, and most trials need it not

    def loss(inverse: float) -> float:  # convex in it
        return F.cross_entropy(logits * inverse, labels).item()

    return 1 / float(minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-5}).x)


def _per_class(
    classes: tuple[str, ...], labels: Tensor, student: Tensor, teacher: Tensor | None
) -> list[dict[str, Any]]:
    """Accuracy by class, %. Every class has test images: the data sets see to that."""
    student_accuracies = _accuracy_by_class(student, labels, len(classes))
    teacher_accuracies = (
        [None] * len(classes) if teacher is None else _accuracy_by_class(teacher, labels, len(classes))
    )
    return [
        {"class": name, "accuracy": student_accuracy, "teacher": teacher_accuracy}
        for name, student_accuracy, teacher_accuracy in zip(
            classes, student_accuracies, teacher_accuracies, strict=True
        )
    ]


def _accuracy_by_class(logits: Tensor, labels: Tensor, classes: int) -> list[float]:
    correct = labels[logits.argmax(1) == labels].bincount(minlength=classes)
    return [100 * part for part in (correct / labels.bincount(minlength=classes)).tolist()]


def _count_parameters(net: nn.Module | None) -> int | None:
    return None if net is None else sum(p.numel() for p in net.parameters())


@torch.no_grad()
def _measure_speed(
    net: nn.Module | None, dataset: Dataset[Any], source: Source[Any], bf16: bool
) -> float | None:
    """Images per second of a forward pass on batches of 64 that lie on the device: the median pass."""
    if net is None:
        return None
    some_images = dataset.test.take(torch.arange(min(SPEED_BATCH, len(dataset.test.labels))))
    images = next(source.evaluation_batches(some_images, 0, 1))[0]

    def time_pass() -> float:
        began = time.perf_counter()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            net(images).logits.sum().item()  # waits for the device
        return time.perf_counter() - began

    return len(images) / _median_seconds(time_pass)


def _median_seconds(run: Callable[[], float]) -> float:
    run()
    seconds = [run()]
    while sum(seconds) < SPEED_SECONDS:
        seconds.append(run())
    return sorted(seconds)[len(seconds) // 2]


def _project_embeddings(
    outputs: NetOutputs | None, labels: Tensor, classes: tuple[str, ...]
) -> list[tuple[float, float, str]] | None:
    """The embeddings' first two principal components, each with its class."""
    if outputs is None:
        return None
    from sklearn.decomposition import PCA  # here: it takes seconds, and most trials need it not

    points = PCA(n_components=2).fit_transform(outputs.embedding.numpy())
    names = [classes[label] for label in labels[_embedded_positions(len(labels))].tolist()]
    return [
        (round(float(x), 4), round(float(y), 4), name) for (x, y), name in zip(points, names, strict=True)
    ]

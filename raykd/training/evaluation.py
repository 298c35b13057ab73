"""How well a net does, and in which precision it runs."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from raykd.data import Source
from raykd.metric import Metric
from raykd.store.processors import has_bf16
from raykd.study.recipe import Recipe


def measure_accuracy(
    net: nn.Module, source: Source[Any], part: Any, bf16: bool, rank: int = 0, world: int = 1
) -> float:
    """Returns the top-1 accuracy on a part of the data, %; each rank takes its share, all get the whole."""
    return measure_metrics(net, source, part, bf16, "accuracy", 0, rank, world)["accuracy"]


@torch.no_grad()
def measure_metrics(
    net: nn.Module,
    source: Source[Any],
    part: Any,
    bf16: bool,
    metric: Metric,
    num_classes: int,
    rank: int = 0,
    world: int = 1,
) -> dict[str, float]:
    """Returns the accuracy and the metric on a part of the data, %, of one pass over it.

    Each rank counts its share of the images, and all get the whole: what is counted are sums over images.
    The host waits for the device once, at the end.
    """
    net.eval()
    device = next(net.parameters()).device
    num_counted = num_classes if metric in PER_CLASS else 0
    counts = torch.zeros(2 + 3 * num_counted, dtype=torch.int64, device=device)
    per_class = counts[2:].view(3, num_counted)  # images answered rightly, of the class, answered with it
    for images, labels in source.evaluation_batches(part, rank, world):
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            logits = net(images).logits
        answers = logits.argmax(1)
        is_correct = answers == labels
        counts[0] += is_correct.sum()
        if metric == "top5":
            top = logits.topk(min(5, logits.shape[1]), 1).indices
            counts[1] += (top == labels[:, None]).sum()
        elif num_counted:
            per_class[0].index_add_(0, labels, is_correct.long())
            per_class[1].index_add_(0, labels, torch.ones_like(labels))
            per_class[2].index_add_(0, answers, torch.ones_like(labels))
    if world > 1:
        dist.all_reduce(counts)
    correct, in_top5 = counts[:2].tolist()
    metrics = {"accuracy": 100 * correct / len(part.labels)}
    if metric == "top5":
        metrics[metric] = 100 * in_top5 / len(part.labels)
    elif num_counted:
        metrics[metric] = PER_CLASS[metric](*per_class.cpu().double())
    return metrics


def compute_balanced_accuracy(correct: Tensor, images: Tensor, answers: Tensor) -> float:
    """Returns the mean recall of the classes that have images, %; counts [classes] as above."""
    return 100 * float((correct / images)[images > 0].mean())


def compute_macro_f1(correct: Tensor, images: Tensor, answers: Tensor) -> float:
    """Returns the mean F1 of the classes that are there or answered, %; counts as above."""
    sums = images + answers
    return 100 * float((2 * correct / sums)[sums > 0].mean())


PER_CLASS: dict[str, Callable[..., float]] = {
    "balanced_accuracy": compute_balanced_accuracy,
    "macro_f1": compute_macro_f1,
}


def set_numerics(device: torch.device, bf16: bool) -> None:
    """Sets how torch computes on a GPU: the same each time; float32 as float32 where nets run in it.

    With nets in bfloat16, convolutions of methods in float32 keep cuDNN's default, TF32, which is finer.
    """
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.conv.fp32_precision = "tf32" if bf16 else "ieee"  # type: ignore[attr-defined]


def uses_bf16(recipe: Recipe, device: torch.device) -> bool:
    """Returns whether the nets run in bfloat16: as the recipe says; "auto": where the device has it."""
    if recipe.precision != "auto":
        return recipe.precision == "bfloat16"
    return has_bf16(device)

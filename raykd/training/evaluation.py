"""How well a net does, and in which precision it runs."""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from raykd.data import Source
from raykd.store.processors import has_bf16
from raykd.study.recipe import Recipe


@torch.no_grad()
def measure_accuracy(
    net: nn.Module, source: Source[Any], part: Any, bf16: bool, rank: int = 0, world: int = 1
) -> float:
    """Returns the top-1 accuracy on a part of the data, %; each rank takes its share, all get the whole."""
    net.eval()
    correct = torch.zeros((), dtype=torch.int64, device=next(net.parameters()).device)
    for images, labels in source.evaluation_batches(part, rank, world):
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            logits = net(images).logits
        correct += (logits.argmax(1) == labels).sum()
    if world > 1:
        dist.all_reduce(correct)
    return 100 * correct.item() / len(part.labels)


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

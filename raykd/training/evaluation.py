"""How well a net does, and in which precision it runs."""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from raykd.data import Source
from raykd.study.recipe import Recipe


@torch.no_grad()
def accuracy(
    net: nn.Module, source: Source[Any], part: Any, half: bool, rank: int = 0, world: int = 1
) -> float:
    """Top-1 accuracy on a part of the data, %; each rank looks at its share and all get the exact whole."""
    net.eval()
    right = torch.zeros((), dtype=torch.int64, device=next(net.parameters()).device)
    for images, labels in source.plain(part, rank, world):
        with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
            logits = net(images).logits
        right += (logits.argmax(1) == labels).sum()
    if world > 1:
        dist.all_reduce(right)
    return 100 * right.item() / len(part.labels)


def autocast(recipe: Recipe, device: torch.device) -> bool:
    """Whether the nets run in bfloat16: as the recipe says, and for "auto" where the device has it in
    hardware.
    """
    if recipe.precision != "auto":
        return recipe.precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(
        torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    )

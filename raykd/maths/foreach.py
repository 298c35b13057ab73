"""One operation on many tensors, in a launch or a few.

torch's optimisers call these functions, whose names are private; the public way is a launch for each tensor.
"""

import torch
from torch import Tensor


def add_to_each(targets: list[Tensor], values: list[Tensor] | float) -> None:
    """Adds to each target its value, or the one number, in place."""
    torch._foreach_add_(targets, values)


def copy_to_each(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Writes each source into its target, which may lie on another device or have another type."""
    torch._foreach_copy_(targets, sources)


def clone_each(tensors: list[Tensor]) -> list[Tensor]:
    """Returns copies; of no tensors none."""
    return list(torch._foreach_clone(tensors)) if tensors else []

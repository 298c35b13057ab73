"""The stages of a net by themselves: run one by one, or as a branch with weights of its own."""

import torch
from torch import Tensor, nn

from raykd.batch import Outputs
from raykd.models._base import StagedNet
from raykd.models.foreign import Options
from raykd.models.registry import make


class NetStages:
    """Runs the stages of a net, in bfloat16 or float32; the net's weights move where they may."""

    def __init__(self, net: StagedNet, bf16: bool) -> None:
        self._net, self._bf16 = net, bf16

    def run_stage(self, index: int, x: Tensor) -> Tensor:
        """Returns the map of a stage from the map before it."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self._bf16):
            return self._net.run_stage(index, x)

    def run_from(self, first: int, x: Tensor) -> Outputs:
        """Returns the Outputs of the stages from `first` on, which reads x."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self._bf16):
            return self._net.run_from(first, x)


class Branch(nn.Module):
    """Runs a net's stages from `first` on; those before it are gone."""

    def __init__(self, net: StagedNet, first: int) -> None:
        super().__init__()
        for names in net.stage_modules[:first]:
            for name in names:
                setattr(net, name, None)
        self.net, self.first = net, first

    def forward(self, x: Tensor) -> Outputs:
        """Returns the Outputs for a map [n, channels, h, w] of the stage before, in the map's precision."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.dtype == torch.bfloat16):
            return self.net.run_from(self.first, x)


def make_branch(name: str, classes: int, options: Options | None, first: int) -> Branch:
    """Returns a branch with fresh weights of a net by its name; the other arguments are as for `make`.

    Raises:
        ValueError: The net's stages cannot be run by themselves, or it has no such stage.
    """
    net = make(name, classes, options)
    if not isinstance(net, StagedNet):
        raise ValueError(
            f"the stages of {name} cannot be run by themselves, as those of ResNets, wide ResNets, VGGs and "
            "ShuffleV1 can"
        )
    if not 0 < first < len(net.stage_modules):
        raise ValueError(f"{name} has stages 0 to {len(net.stage_modules) - 1}: none begins at {first}")
    return Branch(net, first)

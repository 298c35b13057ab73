"""Wide residual nets of pre-activation blocks (Zagoruyko, Komodakis 2016, arXiv:1605.07146).

Names and structure as read in HobbitLong/RepDistiller, models/wrn.py, without dropout (its default).
wrn_40_2 has 40 layers and twice the channels.
"""

from collections import OrderedDict
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from raykd.batch import Outputs, OutputShapes
from raykd.models._base import StagedNet
from raykd.models.layers import conv, init_convs, make_output_shapes, make_outputs


class PreActivationBlock(nn.Module):
    """x [n, channels_in, h, w] -> [n, channels, h / stride, w / stride], a sum without a ReLU after it.

    Where the width changes, the shortcut is a bare 1x1 convolution of the activated input; else it is x.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = conv(channels_in, channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = conv(channels, channels, 3)
        self.convShortcut = None if channels_in == channels else conv(channels_in, channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the sum."""
        return self.add_branch(x, self.bn1(x))

    def add_branch(self, x: Tensor, normed: Tensor) -> Tensor:
        """Returns the sum, where `normed` is the first batch norm of x."""
        active = F.relu(normed)
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        skip: Tensor = x if self.convShortcut is None else self.convShortcut(active)
        return skip + out


class WideResNet(StagedNet):
    """Maps: the stem's convolution and each stage's sum, as in the source. At 32 pixels: sizes 32, 32, 16, 8.

    They are raw: the batch norm and the ReLU that follow belong to the next stage, the last to the embedding.
    The preacts are after that batch norm, as in megvii-research/mdistiller, models/cifar/wrn.py.
    """

    head = "fc"
    stage_modules = (("conv1",), ("block1",), ("block2",), ("block3",))

    def __init__(self, depth: int, widen: int, classes: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        assert depth == 6 * blocks + 4, f"the depth must be 6 * blocks + 4, but got {depth=}"
        first, second, third = 16 * widen, 32 * widen, 64 * widen
        self.stages = ((16, 1), (first, 1), (second, 2), (third, 2))
        self.conv1 = conv(3, 16, 3)
        self.block1 = _make_stage(blocks, 16, first, 1)
        self.block2 = _make_stage(blocks, first, second, 2)
        self.block3 = _make_stage(blocks, second, third, 2)
        self.bn1 = nn.BatchNorm2d(third)
        self.fc = nn.Linear(third, classes)
        init_convs(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Outputs:
        """Returns the Outputs of images [n, 3, h, w]."""
        stem = self.conv1(images)
        _, first = _run_stage(self.block1, stem)
        first_normed, second = _run_stage(self.block2, first)
        second_normed, third = _run_stage(self.block3, second)
        normed = first_normed, second_normed, self.bn1(third)
        return make_outputs((stem, first, second, third), F.relu(normed[-1]), self.fc, normed)

    def run_stage(self, index: int, x: Tensor) -> Tensor:
        """Returns the map of a stage."""
        map_: Tensor = self.get_submodule(self.stage_modules[index][0] + (".layer" if index else ""))(x)
        return map_

    def finish(self, maps: tuple[Tensor, ...]) -> Outputs:
        """Returns the Outputs of the last stages' maps."""
        return make_outputs(maps, F.relu(self.bn1(maps[-1])), self.fc)

    def shapes(self, image_size: int) -> OutputShapes:
        """Returns the shapes of the outputs for square images."""
        return make_output_shapes(image_size, self.stages, self.fc)


def _run_stage(stage: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor]:
    """The batch norm that the stage's first block begins with, of x, and the sum of its last."""
    first, *rest = cast(list[PreActivationBlock], list(cast(nn.Sequential, stage.layer)))
    normed: Tensor = first.bn1(x)
    x = first.add_branch(x, normed)
    for block in rest:
        x = block(x)
    return normed, x


def _make_stage(blocks: int, channels_in: int, channels: int, stride: int) -> nn.Sequential:
    rest = [PreActivationBlock(channels, channels, 1) for _ in range(blocks - 1)]
    layer = nn.Sequential(PreActivationBlock(channels_in, channels, stride), *rest)
    return nn.Sequential(OrderedDict(layer=layer))

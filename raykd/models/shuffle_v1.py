"""ShuffleNet for CIFAR, three groups (Zhang et al. 2017, arXiv:1707.01083), with a 1x1 stem of stride 1.

Names and structure as read in HobbitLong/RepDistiller, models/ShuffleNetv1.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raykd.batch import Outputs, OutputShapes
from raykd.models._base import StagedNet
from raykd.models.layers import channel_shuffle, conv, make_output_shapes, make_outputs, run_stage

STEM, GROUPS = 24, 3


class Unit(nn.Module):
    """x [n, channels_in, h, w] -> [n, channels, h, w], a sum; or, of half the size, a concatenation with x.

    A ReLU follows both.
    The stem is too thin to be cut into groups: the unit that reads it does not group its first convolution.
    """

    def __init__(self, channels_in: int, channels: int, downsample: bool) -> None:
        super().__init__()
        out = channels - channels_in if downsample else channels
        mid = out // 4
        self.downsample = downsample
        self.groups = 1 if channels_in == STEM else GROUPS
        self.conv1 = conv(channels_in, mid, 1, groups=self.groups)
        self.bn1 = nn.BatchNorm2d(mid)
        self.conv2 = conv(mid, mid, 3, 2 if downsample else 1, groups=mid)
        self.bn2 = nn.BatchNorm2d(mid)
        self.conv3 = conv(mid, out, 1, groups=GROUPS)
        self.bn3 = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what the block puts out of x."""
        out = channel_shuffle(F.relu(self.bn1(self.conv1(x))), self.groups)
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample:
            return torch.cat((out, F.avg_pool2d(x, 3, stride=2, padding=1)), dim=1)
        total: Tensor = out + x
        return total


class ShuffleV1(StagedNet):
    """Maps: the stem and each stage, each after its last ReLU. At 32 pixels: sizes 32, 16, 8, 4."""

    head = "linear"
    stage_modules = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",))

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stages = ((STEM, 1), (240, 2), (480, 2), (960, 2))
        self.conv1 = conv(3, STEM, 1)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1 = _make_stage(4, STEM, 240)
        self.layer2 = _make_stage(8, 240, 480)
        self.layer3 = _make_stage(4, 480, 960)
        self.linear = nn.Linear(960, classes)

    def forward(self, images: Tensor) -> Outputs:
        """Returns the Outputs of images [n, 3, h, w]."""
        stem = F.relu(self.bn1(self.conv1(images)))
        first_sum, first = run_stage(self.layer1, stem)
        second_sum, second = run_stage(self.layer2, first)
        third_sum, third = run_stage(self.layer3, second)
        sums = first_sum, second_sum, third_sum
        return make_outputs((stem, first, second, third), third, self.linear, sums)

    def run_stage(self, index: int, x: Tensor) -> Tensor:
        """Returns the map of a stage."""
        if index == 0:
            return F.relu(self.bn1(self.conv1(x)))
        return run_stage((self.layer1, self.layer2, self.layer3)[index - 1], x)[1]

    def finish(self, maps: tuple[Tensor, ...]) -> Outputs:
        """Returns the Outputs of the last stages' maps."""
        return make_outputs(maps, maps[-1], self.linear)

    def shapes(self, image_size: int) -> OutputShapes:
        """Returns the shapes of the outputs for square images."""
        return make_output_shapes(image_size, self.stages, self.linear)


def _make_stage(units: int, channels_in: int, channels: int) -> nn.Sequential:
    rest = [Unit(channels, channels, downsample=False) for _ in range(units - 1)]
    return nn.Sequential(Unit(channels_in, channels, downsample=True), *rest)

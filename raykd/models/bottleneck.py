"""ResNet-50 for CIFAR (He et al. 2015, arXiv:1512.03385): ImageNet's, with a 3x3 stem and no max pooling.

Names and structure as read in HobbitLong/RepDistiller, models/resnetv2.py.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from raykd.batch import Outputs, OutputShapes
from raykd.models._base import StagedNet
from raykd.models.layers import conv, init_convs, make_output_shapes, make_outputs, run_stage, shortcut


class Bottleneck(nn.Module):
    """x [n, channels_in, h, w] -> [n, 4 * width, h / stride, w / stride]: 1x1, 3x3, 1x1, no last ReLU."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(channels_in, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut = shortcut(channels_in, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what the block puts out of x."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        total: Tensor = self.bn3(self.conv3(out)) + self.shortcut(x)
        return total


class ResNet50(StagedNet):
    """Maps: the stem and each stage, each after its last ReLU. At 32 pixels: sizes 32, 32, 16, 8, 4."""

    head = "linear"
    stage_modules = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stages = ((64, 1), (256, 1), (512, 2), (1024, 2), (2048, 2))
        self.conv1 = conv(3, 64, 3)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _make_stage(3, 64, 64, 1)
        self.layer2 = _make_stage(4, 256, 128, 2)
        self.layer3 = _make_stage(6, 512, 256, 2)
        self.layer4 = _make_stage(3, 1024, 512, 2)
        self.linear = nn.Linear(2048, classes)
        init_convs(self)

    def forward(self, images: Tensor) -> Outputs:
        """Returns the Outputs of images [n, 3, h, w]."""
        stem = F.relu(self.bn1(self.conv1(images)))
        first_sum, first = run_stage(self.layer1, stem)
        second_sum, second = run_stage(self.layer2, first)
        third_sum, third = run_stage(self.layer3, second)
        fourth_sum, fourth = run_stage(self.layer4, third)
        sums = first_sum, second_sum, third_sum, fourth_sum
        return make_outputs((stem, first, second, third, fourth), fourth, self.linear, sums)

    def run_stage(self, index: int, x: Tensor) -> Tensor:
        """Returns the map of a stage."""
        if index == 0:
            return F.relu(self.bn1(self.conv1(x)))
        return run_stage((self.layer1, self.layer2, self.layer3, self.layer4)[index - 1], x)[1]

    def finish(self, maps: tuple[Tensor, ...]) -> Outputs:
        """Returns the Outputs of the last stages' maps."""
        return make_outputs(maps, maps[-1], self.linear)

    def shapes(self, image_size: int) -> OutputShapes:
        """Returns the shapes of the outputs for square images."""
        return make_output_shapes(image_size, self.stages, self.linear)


def _make_stage(blocks: int, channels_in: int, width: int, stride: int) -> nn.Sequential:
    rest = [Bottleneck(4 * width, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Bottleneck(channels_in, width, stride), *rest)

"""ResNet for CIFAR: a stem and three stages of basic blocks (He et al. 2015, arXiv:1512.03385, section 4.2).

Names and structure as read in HobbitLong/RepDistiller, models/resnet.py. The plain nets (resnet20)
have widths 16, 16, 32, 64; the wide ones (resnet8x4) 32, 64, 128, 256, the stem doubled only.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from raykd.batch import Outputs, OutputShapes
from raykd.models._base import StagedNet
from raykd.models.layers import conv, init_convs, make_output_shapes, make_outputs, run_stage, shortcut

Widths = tuple[int, int, int, int]  # channels of the stem and of the three stages


class BasicBlock(nn.Module):
    """x [n, channels_in, h, w] -> [n, channels, h / stride, w / stride]: two 3x3 ones, no last ReLU."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(channels_in, channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = shortcut(channels_in, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what the block puts out of x."""
        out = F.relu(self.bn1(self.conv1(x)))
        total: Tensor = self.bn2(self.conv2(out)) + self.downsample(x)
        return total


class ResNet(StagedNet):
    """Maps: the stem and each stage, each after its last ReLU. At 32 pixels: sizes 32, 32, 16, 8."""

    head = "fc"
    stage_modules = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",))

    def __init__(self, depth: int, widths: Widths, classes: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        assert depth == 6 * blocks + 2, f"the depth must be 6 * blocks + 2, but got {depth=}"
        stem, first, second, third = widths
        self.stages = ((stem, 1), (first, 1), (second, 2), (third, 2))
        self.conv1 = conv(3, stem, 3)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = _make_stage(blocks, stem, first, 1)
        self.layer2 = _make_stage(blocks, first, second, 2)
        self.layer3 = _make_stage(blocks, second, third, 2)
        self.fc = nn.Linear(third, classes)
        init_convs(self)

    def forward(self, images: Tensor) -> Outputs:
        """Returns the Outputs of images [n, 3, h, w]."""
        stem = F.relu(self.bn1(self.conv1(images)))
        first_sum, first = run_stage(self.layer1, stem)
        second_sum, second = run_stage(self.layer2, first)
        third_sum, third = run_stage(self.layer3, second)
        sums = first_sum, second_sum, third_sum
        return make_outputs((stem, first, second, third), third, self.fc, sums)

    def run_stage(self, index: int, x: Tensor) -> Tensor:
        """Returns the map of a stage."""
        if index == 0:
            return F.relu(self.bn1(self.conv1(x)))
        return run_stage((self.layer1, self.layer2, self.layer3)[index - 1], x)[1]

    def finish(self, maps: tuple[Tensor, ...]) -> Outputs:
        """Returns the Outputs of the last stages' maps."""
        return make_outputs(maps, maps[-1], self.fc)

    def shapes(self, image_size: int) -> OutputShapes:
        """Returns the shapes of the outputs for square images."""
        return make_output_shapes(image_size, self.stages, self.fc)


def _make_stage(blocks: int, channels_in: int, channels: int, stride: int) -> nn.Sequential:
    rest = [BasicBlock(channels, channels, 1) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(channels_in, channels, stride), *rest)

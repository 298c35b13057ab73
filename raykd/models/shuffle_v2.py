"""ShuffleNetV2 of width 1 for CIFAR (Ma et al. 2018, arXiv:1807.11164), with a 1x1 stem and no max pooling.

Names and structure as read in HobbitLong/RepDistiller, models/ShuffleNetv2.py, net_size 1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raykd.batch import Outputs, OutputShapes
from raykd.models._base import Net
from raykd.models.layers import channel_shuffle, conv, make_output_shapes, make_outputs


class BasicUnit(nn.Module):
    """x [n, channels, h, w] -> the same shape: half of the channels pass, half are convolved; shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = conv(half, half, 1)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = conv(half, half, 3, groups=half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv(half, half, 1)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what the block puts out of x."""
        identity, branch = x.chunk(2, dim=1)
        branch = F.relu(self.bn1(self.conv1(branch)))
        branch = self.bn2(self.conv2(branch))
        branch = F.relu(self.bn3(self.conv3(branch)))
        return channel_shuffle(torch.cat((identity, branch), dim=1), 2)


class DownUnit(nn.Module):
    """x [n, channels_in, h, w] -> [n, channels, h / 2, w / 2]: two branches, concatenated and shuffled."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = conv(channels_in, channels_in, 3, 2, groups=channels_in)
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv2 = conv(channels_in, half, 1)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv(channels_in, half, 1)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = conv(half, half, 3, 2, groups=half)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = conv(half, half, 1)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what the block puts out of x."""
        left = self.bn1(self.conv1(x))
        left = F.relu(self.bn2(self.conv2(left)))
        right = F.relu(self.bn3(self.conv3(x)))
        right = self.bn4(self.conv4(right))
        right = F.relu(self.bn5(self.conv5(right)))
        return channel_shuffle(torch.cat((left, right), dim=1), 2)


class ShuffleV2(Net):
    """Maps: the stem after its ReLU, then each stage after its last shuffle. At 32 pixels: 32, 16, 8, 4.

    The embedding is pooled after one more convolution, which is no map.
    """

    head = "linear"

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stages = ((24, 1), (116, 2), (232, 2), (464, 2))
        self.conv1 = conv(3, 24, 1)
        self.bn1 = nn.BatchNorm2d(24)
        self.layer1 = _make_stage(3, 24, 116)
        self.layer2 = _make_stage(7, 116, 232)
        self.layer3 = _make_stage(3, 232, 464)
        self.conv2 = conv(464, 1024, 1)
        self.bn2 = nn.BatchNorm2d(1024)
        self.linear = nn.Linear(1024, classes)

    def forward(self, images: Tensor) -> Outputs:
        """Returns the Outputs of images [n, 3, h, w]."""
        stem = F.relu(self.bn1(self.conv1(images)))
        first = self.layer1(stem)
        second = self.layer2(first)
        third = self.layer3(second)
        last = F.relu(self.bn2(self.conv2(third)))
        return make_outputs((stem, first, second, third), last, self.linear)

    def shapes(self, image_size: int) -> OutputShapes:
        """Returns the shapes of the outputs for square images."""
        return make_output_shapes(image_size, self.stages, self.linear)._replace(missing=("stages",))


def _make_stage(basic: int, channels_in: int, channels: int) -> nn.Sequential:
    """One unit that halves the map, then `basic` units that keep it."""
    return nn.Sequential(DownUnit(channels_in, channels), *[BasicUnit(channels) for _ in range(basic)])

"""MobileNetV2 of half width for CIFAR: inverted residuals (Sandler et al. 2018, arXiv:1801.04381).

Names and structure as read in HobbitLong/RepDistiller, models/mobilenetv2.py, mobile_half (T = 6, width 0.5):
ImageNet's, with ReLU for ReLU6 and stride 1 in its second stage.
"""

from typing import cast

from torch import Tensor, nn

from raykd.batch import Outputs, OutputShapes
from raykd.models._base import Net
from raykd.models.layers import conv, init_convs, init_head, make_output_shapes, make_outputs

# expansion, channels, number of blocks, stride of the first one
STAGES = (
    (1, 8, 1, 1),
    (6, 12, 2, 1),
    (6, 16, 3, 2),
    (6, 32, 4, 2),
    (6, 48, 3, 1),
    (6, 80, 3, 2),
    (6, 160, 1, 1),
)
MAP_STAGES = (1, 2, 4, 6)  # the stages whose output is a map


class InvertedResidual(nn.Module):
    """x [n, channels_in, h, w] -> [n, channels, h / stride, w / stride]: widen, filter, narrow."""

    def __init__(self, channels_in: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.residual = stride == 1 and channels_in == channels
        self.conv = nn.Sequential(
            *_conv_bn_relu(channels_in, wide, 1),
            *_conv_bn_relu(wide, wide, 3, stride, groups=wide),
            conv(wide, channels, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns what the block puts out of x."""
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


class MobileNetV2(Net):
    """Maps: the stem after its ReLU, then stages 1, 2, 4 and 6 of 0 ... 6. At 32 pixels: 16, 16, 8, 4, 2.

    A stage ends in a linear layer, so its map has no ReLU. The embedding is pooled from one more layer.
    """

    head = "classifier.0"

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stages = ((16, 2), (12, 1), (16, 2), (48, 2), (160, 2))
        self.conv1 = _conv_bn_relu(3, 16, 3, 2)
        self.blocks = nn.ModuleList()
        channels_in = 16
        for expansion, channels, count, stride in STAGES:
            first = InvertedResidual(channels_in, channels, stride, expansion)
            rest = [InvertedResidual(channels, channels, 1, expansion) for _ in range(count - 1)]
            self.blocks.append(nn.Sequential(first, *rest))
            channels_in = channels
        self.conv2 = _conv_bn_relu(channels_in, 1280, 1)
        self.classifier = nn.Sequential(nn.Linear(1280, classes))
        init_convs(self)
        init_head(self._linear)

    @property
    def _linear(self) -> nn.Linear:
        return cast(nn.Linear, self.classifier[0])

    def forward(self, images: Tensor) -> Outputs:
        """Returns the Outputs of images [n, 3, h, w]."""
        x = self.conv1(images)
        maps = [x]
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in MAP_STAGES:
                maps.append(x)
        return make_outputs(tuple(maps), self.conv2(x), self._linear)

    def shapes(self, image_size: int) -> OutputShapes:
        """Returns the shapes of the outputs for square images."""
        return make_output_shapes(image_size, self.stages, self._linear)._replace(missing=("stages",))


def _conv_bn_relu(
    channels_in: int, channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        conv(channels_in, channels, kernel, stride, groups), nn.BatchNorm2d(channels), nn.ReLU()
    )

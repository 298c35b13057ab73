"""VGG with batch norm for CIFAR, one linear layer as its head (Simonyan, Zisserman 2014, arXiv:1409.1556).

Names and structure as read in HobbitLong/RepDistiller, models/vgg.py: vgg8 is its vgg8_bn, and so on.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from raykd.batch import Outputs, OutputShapes
from raykd.models._base import StagedNet
from raykd.models.layers import init_convs, init_head, make_output_shapes, make_outputs

WIDTHS = (64, 128, 256, 512, 512)


class VGG(StagedNet):
    """Maps: the five blocks, each after its last ReLU, before pooling. At 32 pixels: sizes 32, 16, 8, 4, 4.

    `convs` is the number of 3x3 convolutions in each block. Max pooling halves the maps between blocks,
    before the last one only for images of 64 pixels or more. An odd size rounds up (the source meets none).
    """

    head = "classifier"
    stage_modules = tuple((f"block{index}",) for index in range(5))

    def __init__(self, convs: tuple[int, int, int, int, int], classes: int) -> None:
        super().__init__()
        self.block0 = _make_block(convs[0], 3, WIDTHS[0])
        self.block1 = _make_block(convs[1], WIDTHS[0], WIDTHS[1])
        self.block2 = _make_block(convs[2], WIDTHS[1], WIDTHS[2])
        self.block3 = _make_block(convs[3], WIDTHS[2], WIDTHS[3])
        self.block4 = _make_block(convs[4], WIDTHS[3], WIDTHS[4])
        self.classifier = nn.Linear(WIDTHS[4], classes)
        init_convs(self)
        init_head(self.classifier)

    def forward(self, images: Tensor) -> Outputs:
        """Returns the Outputs of images [n, 3, h, w]."""
        x, maps, preacts = images, [], []
        for index, block in enumerate((self.block0, self.block1, self.block2, self.block3, self.block4)):
            if index in (1, 2, 3) or (index == 4 and _is_large(images.shape[2])):
                x = _max_pool(x)
            preacts.append(block[:-1](x))
            x = F.relu(preacts[-1])
            maps.append(x)
        return make_outputs(tuple(maps), x, self.classifier, tuple(preacts[1:]))

    def run_stage(self, index: int, x: Tensor) -> Tensor:
        """Returns the map of a stage; the last one takes the image's size to be 8 times its map's."""
        if index in (1, 2, 3) or (index == 4 and _is_large(8 * x.shape[2])):
            x = _max_pool(x)
        map_: Tensor = self.get_submodule(f"block{index}")(x)
        return map_

    def finish(self, maps: tuple[Tensor, ...]) -> Outputs:
        """Returns the Outputs of the last stages' maps."""
        return make_outputs(maps, maps[-1], self.classifier)

    def shapes(self, image_size: int) -> OutputShapes:
        """Returns the shapes of the outputs for square images."""
        strides = (1, 2, 2, 2, 2 if _is_large(image_size) else 1)
        return make_output_shapes(image_size, tuple(zip(WIDTHS, strides, strict=True)), self.classifier)


def _make_block(convs: int, channels_in: int, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for source in (channels_in, *[channels] * (convs - 1)):
        layers += [nn.Conv2d(source, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers)


def _max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, ceil_mode=True)


def _is_large(image_size: int) -> bool:
    return image_size >= 64

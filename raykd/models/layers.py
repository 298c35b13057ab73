"""Layers, initialisation and outputs that families of nets share."""

import torch.nn.functional as F
from torch import Tensor, nn

from raykd.batch import Head, Outputs, OutputShapes

StageShape = tuple[int, int]  # (channels, stride) of a map; the stride is taken against the map before it


def conv(channels_in: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias, padded so that only its stride shrinks a map: s -> ceil(s / stride)."""
    return nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, groups=groups, bias=False)


def shortcut(channels_in: int, channels: int, stride: int) -> nn.Sequential:
    """What a block adds to its branch: its input, projected (1x1, batch norm) where the shape changes."""
    if stride == 1 and channels_in == channels:
        return nn.Sequential()
    return nn.Sequential(conv(channels_in, channels, 1, stride), nn.BatchNorm2d(channels))


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Reorder the channels of x [n, groups * k, h, w]: channel g * k + i becomes i * groups + g.

    The channels are the last axis of what is copied, so a channels_last map stays one.
    """
    last = x.permute(0, 2, 3, 1)
    shuffled = last.reshape(*last.shape[:3], groups, -1).transpose(3, 4).flatten(3)
    return shuffled.permute(0, 3, 1, 2)


def run_stage(blocks: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor]:
    """Runs blocks that leave their last ReLU out: what the last one puts out, before and after its ReLU."""
    preact = x
    for block in blocks:
        preact = block(x)
        x = F.relu(preact)
    return preact, x


def make_outputs(
    maps: tuple[Tensor, ...], last: Tensor, head: nn.Linear, preacts: tuple[Tensor, ...] = ()
) -> Outputs:
    """Returns the Outputs of a net whose head reads the spatial mean of its last features [n, d, h, w].

    `preacts` are those of the stages, without the stem; none: those of a net whose maps have no ReLU.
    """
    embedding = F.adaptive_avg_pool2d(last, 1).flatten(1)
    preacts = (maps[0], *(preacts or maps[1:]))
    return Outputs(head(embedding), embedding, maps, Head(head.weight, head.bias), last, preacts)


def make_output_shapes(image_size: int, stages: tuple[StageShape, ...], head: nn.Linear) -> OutputShapes:
    """The shapes of Outputs whose maps have these channels and strides."""
    maps = []
    size = image_size
    for channels, stride in stages:
        size = -(-size // stride)
        maps.append((channels, size, size))
    return OutputShapes(head.out_features, head.in_features, tuple(maps))


def init_convs(net: nn.Module) -> None:
    """Draw each convolution from N(0, 2 / (kernel area * output channels)) and set its bias to zero."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def init_head(head: nn.Linear) -> None:
    """Draw the head's weight from N(0, 0.01^2) and set its bias to zero."""
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)

"""MobileNetV1 for ImageNet: depthwise separable convolutions (Howard et al. 2017, arXiv:1704.04861).

Names and structure as read in megvii-research/mdistiller, models/imagenet/mobilenetv1.py, which is
dvlab-research/ReviewKD's; weights start as PyTorch's layers do, as there.
"""

from torch import Tensor, nn

from raykd.batch import Outputs, OutputShapes
from raykd.models._base import Net
from raykd.models.layers import conv, make_output_shapes, make_outputs

# channels and stride of each separable block; the stem has 32 channels and stride 2
BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1),
    (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip
MAP_BLOCKS = (0, 3, 5, 11, 13)  # the stem, and the last block of each size below: their outputs are the maps


class MobileNetV1(Net):
    """Maps: the stem, then blocks 3, 5, 11 and 13, each after its ReLU: the stages of a ResNet-50 in size.

    At 224 pixels: sizes 112, 56, 28, 14, 7.
    """

    head = "fc"

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stages = ((32, 2), (128, 2), (256, 2), (512, 2), (1024, 2))
        parts = [nn.Sequential(*_conv_bn_relu(3, 32, 3, 2))]
        channels_in = 32
        for channels, stride in BLOCKS:
            deep = _conv_bn_relu(channels_in, channels_in, 3, stride, groups=channels_in)
            parts.append(nn.Sequential(*deep, *_conv_bn_relu(channels_in, channels, 1)))
            channels_in = channels
        self.model = nn.Sequential(*parts)
        self.fc = nn.Linear(channels_in, classes)

    def forward(self, images: Tensor) -> Outputs:
        """Returns the Outputs of images [n, 3, h, w]."""
        x, maps = images, []
        for index, part in enumerate(self.model):
            x = part(x)
            if index in MAP_BLOCKS:
                maps.append(x)
        return make_outputs(tuple(maps), x, self.fc)

    def shapes(self, image_size: int) -> OutputShapes:
        """Returns the shapes of the outputs for square images."""
        return make_output_shapes(image_size, self.stages, self.fc)._replace(missing=("stages",))


def _conv_bn_relu(
    channels_in: int, channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    return [conv(channels_in, channels, kernel, stride, groups), nn.BatchNorm2d(channels), nn.ReLU()]

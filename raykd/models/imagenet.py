"""ResNet-18, -34 and -50 for ImageNet (He et al. 2015, arXiv:1512.03385), under torchvision's names.

The layers are torchvision's own, so its published weights load unchanged; only the forward pass is
ours, which keeps the maps and the sums before their ReLU.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from raykd.batch import Outputs, OutputShapes
from raykd.models._base import StagedNet
from raykd.models.layers import make_output_shapes, make_outputs


class ImageNetResNet(StagedNet):
    """Maps: the stem before its max pooling and each stage, each after its last ReLU.

    At 224 pixels: sizes 112, 56, 28, 14, 7; as in mdistiller, models/imagenet/resnet.py.
    """

    head = "fc"
    stage_modules = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))

    def __init__(self, depth: int, classes: int) -> None:
        from torchvision import models  # here: it takes seconds, and other nets need it not

        super().__init__()
        source = getattr(models, f"resnet{depth}")(num_classes=classes)
        self.conv1, self.bn1, self.relu, self.maxpool = source.conv1, source.bn1, source.relu, source.maxpool
        self.layer1, self.layer2 = source.layer1, source.layer2
        self.layer3, self.layer4 = source.layer3, source.layer4
        self.fc: nn.Linear = source.fc
        self.is_deep = depth >= 50  # its blocks are bottlenecks
        wide = self.fc.in_features // 8  # of the first stage; a stage doubles it
        self.stages = ((64, 2), (wide, 2), (2 * wide, 2), (4 * wide, 2), (8 * wide, 2))

    def forward(self, images: Tensor) -> Outputs:
        """Returns the Outputs of images [n, 3, h, w]."""
        stem = self.relu(self.bn1(self.conv1(images)))
        x, maps, sums = self.maxpool(stem), [stem], []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in layer:
                total = self._run_block(block, x)
                x = F.relu(total)
            maps.append(x)
            sums.append(total)
        return make_outputs(tuple(maps), x, self.fc, tuple(sums))

    def run_stage(self, index: int, x: Tensor) -> Tensor:
        """Returns the map of a stage; the first one begins with the max pooling."""
        if index == 0:
            stem: Tensor = self.relu(self.bn1(self.conv1(x)))
            return stem
        x = self.maxpool(x) if index == 1 else x
        for block in self.get_submodule(f"layer{index}").children():
            x = F.relu(self._run_block(block, x))
        return x

    def finish(self, maps: tuple[Tensor, ...]) -> Outputs:
        """Returns the Outputs of the last stages' maps."""
        return make_outputs(maps, maps[-1], self.fc)

    def _run_block(self, block: Any, x: Tensor) -> Tensor:
        """What torchvision's BasicBlock or Bottleneck puts out, less its last ReLU."""
        out = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(x)))))
        if self.is_deep:
            out = block.bn3(block.conv3(block.relu(out)))
        total: Tensor = out + (x if block.downsample is None else block.downsample(x))
        return total

    def shapes(self, image_size: int) -> OutputShapes:
        """Returns the shapes of the outputs for square images."""
        return make_output_shapes(image_size, self.stages, self.fc)

"""What every net is: a module that answers images with a View and announces the shapes of its answer."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from raykd.batch import Shapes, View


class Net(nn.Module, ABC):
    """One net. Its parameters carry the names of the source given in its file, so published weights load."""

    head: ClassVar[
        str
    ]  # the classifier's name: "fc" when its parameters are fc.weight [c, d] and fc.bias [c]

    @abstractmethod
    def forward(self, images: Tensor) -> View:
        """Images [n, 3, h, w] -> View; its maps are the stem's and each stage's outputs, shallow to deep."""

    @abstractmethod
    def shapes(self, image_size: int) -> Shapes:
        """The shapes of the answer to images [n, 3, image_size, image_size], without a forward pass."""

"""What every net is: a module, images -> Outputs, that knows the shapes of its outputs."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from raykd.batch import Head, Outputs, OutputShapes, Triple


class Net(nn.Module, ABC):
    """One net. Its parameters carry the names of the source given in its file, so published weights load."""

    key = ""  # what decides the outputs beside the weights and the class
    head: str  # the classifier's name: "fc" when its parameters are fc.weight [c, d] and fc.bias [c]

    @abstractmethod
    def forward(self, images: Tensor) -> Outputs:
        """Images [n, 3, h, w] -> Outputs, with the maps of the stem and of each stage, shallow to deep."""

    @abstractmethod
    def shapes(self, image_size: int) -> OutputShapes:
        """The shapes of the outputs for images [n, 3, image_size, image_size], without a forward pass."""

    def get_head(self) -> Head:
        """Returns the classifier's tensors: weight [c, d], bias [c]."""
        classifier = self.get_submodule(self.head)
        return Head(*(getattr(classifier, name) for name in ("weight", "bias")))

    def set_input_statistics(self, mean: Triple, std: Triple) -> None:
        """Says how the images that come are normalised: a net that was made for others changes them."""


class StagedNet(Net):
    """A net whose stages can be run by themselves: each reads the map before it, and nothing else.

    Stage 0 is the stem, which reads images. Batch norms of stages that are run move as in a forward pass.
    """

    stage_modules: ClassVar[tuple[tuple[str, ...], ...]]  # the names of each stage's modules

    @abstractmethod
    def run_stage(self, index: int, x: Tensor) -> Tensor:
        """Returns the map of a stage from the map before it."""

    @abstractmethod
    def finish(self, maps: tuple[Tensor, ...]) -> Outputs:
        """Returns the Outputs of maps of which the last one is the last stage's; no preacts of their own."""

    def run_from(self, first: int, x: Tensor) -> Outputs:
        """Returns the Outputs of the stages from `first` on, which reads x; x is the map if none is left."""
        maps = []
        for index in range(first, len(self.stage_modules)):
            x = self.run_stage(index, x)
            maps.append(x)
        return self.finish(tuple(maps) or (x,))

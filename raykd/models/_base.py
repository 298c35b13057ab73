"""What every net is: a module, images -> Outputs, that knows the shapes of its outputs."""

from abc import ABC, abstractmethod

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
        return Head(*(self.get_parameter(f"{self.head}.{name}") for name in ("weight", "bias")))

    def set_input_statistics(self, mean: Triple, std: Triple) -> None:
        """Says how the images that come are normalised: a net that was made for others changes them."""

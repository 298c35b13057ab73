"""The nets, under the names of their sources, so that published weights load unchanged.

The sources are RepDistiller for CIFAR, torchvision and mdistiller for ImageNet.
"""

from raykd.models._base import Net
from raykd.models._weights import load_weights
from raykd.models.registry import make, names, num_parameters

__all__ = ["Net", "load_weights", "make", "names", "num_parameters"]

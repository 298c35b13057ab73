"""The nets, under the names of their sources, so that published weights load unchanged.

The sources are RepDistiller for CIFAR, torchvision and mdistiller for ImageNet.
"""

from raykd.models._base import Net
from raykd.models._weights import check_weights, load_weights
from raykd.models.foreign import Options
from raykd.models.pretrained import has_pretrained
from raykd.models.registry import check_name, make, names, num_parameters

__all__ = [
    "Net", "Options", "check_name", "check_weights", "has_pretrained", "load_weights", "make",
    "names", "num_parameters",
]  # fmt: skip

"""The nets, under the names of their sources, so that published weights load unchanged.

The sources are RepDistiller for CIFAR, torchvision and mdistiller for ImageNet.
"""

from raykd.models._base import Net, StagedNet
from raykd.models._weights import check_weights, load_weights
from raykd.models.branch import Branch, NetStages, make_branch
from raykd.models.foreign import Options
from raykd.models.members import add_members, merge_members, run_members
from raykd.models.pretrained import has_pretrained
from raykd.models.registry import check_name, make, names, num_parameters

__all__ = [
    "Branch", "Net", "NetStages", "Options", "StagedNet", "add_members", "check_name", "check_weights",
    "has_pretrained", "load_weights", "make", "make_branch", "merge_members", "names", "num_parameters",
    "run_members",
]  # fmt: skip

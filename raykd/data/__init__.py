"""Data sets, a file each.

CIFAR, STL-10, Tiny-ImageNet, digits and small folders are kept in memory, ImageNet and its like are streamed.
"""

from raykd.data._base import (
    Dataset,
    DatasetInfo,
    DataSpec,
    Source,
    ViewIndex,
    draw_view_ids,
    epoch_permutation,
    stratified_split,
)
from raykd.data.cifar10 import CIFAR10
from raykd.data.cifar100 import CIFAR100
from raykd.data.digits import Digits
from raykd.data.folder import ImageFolder
from raykd.data.imagenet import ImageNet
from raykd.data.registry import AnyData, default_root, get_spec, load, names
from raykd.data.stl10 import STL10
from raykd.data.tiny_imagenet import TinyImageNet

__all__ = [
    "CIFAR10", "CIFAR100", "STL10", "AnyData", "DataSpec", "Dataset", "DatasetInfo", "Digits", "ImageFolder",
    "ImageNet", "Source", "TinyImageNet", "ViewIndex", "default_root", "draw_view_ids", "epoch_permutation",
    "get_spec", "load", "names", "stratified_split",
]  # fmt: skip

"""The nets by name: the table that a new net is added to."""

import importlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from torch import nn

from raykd import plugins
from raykd.errors import UserError, first_line, suggest_nearest
from raykd.models._base import Net
from raykd.models.bottleneck import ResNet50
from raykd.models.foreign import Options
from raykd.models.imagenet import ImageNetResNet
from raykd.models.mobilenet import MobileNetV2
from raykd.models.mobilenet_v1 import MobileNetV1
from raykd.models.resnet import ResNet
from raykd.models.shuffle_v1 import ShuffleV1
from raykd.models.shuffle_v2 import ShuffleV2
from raykd.models.vgg import VGG
from raykd.models.wrn import WideResNet

LIBRARIES = ("timm", "torchvision")
NETS: Mapping[str, Callable[[int], Net]] = MappingProxyType(
    {f"resnet{depth}": partial(ResNet, depth, (16, 16, 32, 64)) for depth in (8, 14, 20, 32, 44, 56, 110)}
    | {f"resnet{depth}x4": partial(ResNet, depth, (32, 64, 128, 256)) for depth in (8, 32)}
    | {f"wrn_{depth}_{widen}": partial(WideResNet, depth, widen) for depth in (16, 40) for widen in (1, 2)}
    | {
        "vgg8": partial(VGG, (1, 1, 1, 1, 1)),
        "vgg11": partial(VGG, (1, 1, 2, 2, 2)),
        "vgg13": partial(VGG, (2, 2, 2, 2, 2)),
        "vgg16": partial(VGG, (2, 2, 3, 3, 3)),
        "vgg19": partial(VGG, (2, 2, 4, 4, 4)),
        "MobileNetV2": MobileNetV2,
        "ShuffleV1": ShuffleV1,
        "ShuffleV2": ShuffleV2,
        "ResNet50": ResNet50,
        "resnet18": partial(ImageNetResNet, 18),
        "resnet34": partial(ImageNetResNet, 34),
        "resnet50": partial(ImageNetResNet, 50),
        "MobileNetV1": MobileNetV1,
    }
)


def names() -> tuple[str, ...]:
    """Returns the names of all nets, a family at a time, small to large."""
    return (*NETS, *plugins.list_names("nets", NETS))


def make(name: str, classes: int = 100, options: Options | None = None) -> Net:
    """Returns a net with fresh weights.

    Args:
        name: One of `names`, timm/NAME[.TAG] or torchvision/NAME.
        classes: Of its classifier.
        options: Keyword arguments of a net of timm or torchvision, and `size`, the pixels that it sees.

    Raises:
        UserError: There is no such net; with the nearest name.
        ValueError: It takes no such option.
    """
    options = options or {}
    library, _, rest = name.partition("/")
    if rest and library in LIBRARIES:
        module = importlib.import_module(f"{__package__}.{library}_net")  # here: the library takes seconds
        net: Net = module.make(
            rest, classes, options, json.dumps([name, classes, dict(options)], sort_keys=True)
        )
        return net
    check_name(name)
    if options:
        raise ValueError(f"{name} takes no options, but got {', '.join(options)}")
    return NETS[name](classes) if name in NETS else _make_offered(name, classes)


def _make_offered(name: str, classes: int) -> Net:
    """A plugin's net. UserError when it cannot be made, or is none."""
    factory, origin = plugins.load("nets", name)
    place = f"plugin {origin}: net '{name}'"
    if not callable(factory):
        raise UserError([f"{place} should be number of classes -> raykd.models.Net, not {factory!r}"])
    try:
        net = factory(classes)
    except (TypeError, AttributeError) as error:
        raise UserError([f"{place} of {classes} classes: {first_line(error)}"]) from None
    if not isinstance(net, Net):
        raise UserError([f"{place} should be a raykd.models.Net, not {type(net).__name__}"])
    net.key = json.dumps([net.key, origin, plugins.get_sources().get(origin)])  # its code decides its outputs
    return net


def check_name(name: str) -> None:
    """Raises UserError with the nearest name when there is no such net; a library's are asked when made."""
    if name.partition("/")[0] not in LIBRARIES and name not in names():
        nets = f"{', '.join(names())}, timm/NAME, torchvision/NAME; or a plugin's (--plugin FILE.py)"
        raise UserError([f"no such net '{name}'.{suggest_nearest(name, names())} There are: {nets}"])


def num_parameters(net: nn.Module) -> int:
    """Returns how many numbers the optimiser may change; the statistics of batch norms are none of them."""
    return sum(parameter.numel() for parameter in net.parameters())

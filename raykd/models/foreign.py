"""Nets of other libraries: `timm/NAME[.TAG]` and `torchvision/NAME`, with random weights.

A wrapper gives their outputs as ours. Its state_dict has the library's own names, so published weights load,
and an export loads in the library itself.
"""

import inspect
import json
from abc import abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raykd.batch import Head, Outputs, OutputShapes, Triple
from raykd.errors import UserError, suggest_nearest
from raykd.models._base import Net

Options = Mapping[str, bool | int | float | str]
WRAPPED = "net."  # in the names of a wrapper's own modules, and in no state_dict


class InputConfig(NamedTuple):
    """The images that a net was made for."""

    size: int  # pixels of a side
    mean: Triple  # of the channels, of pixels in [0, 1]
    std: Triple
    interpolation: str


class ForeignNet(Net):
    """A net of another library. Images that come in another size or normalisation are changed into its own.

    Args:
        net: The library's module.
        settings: Its name, classes and options, as JSON: what makes it anew. With its images and the
            library's version they decide its outputs beside its weights.
        head: The name of its classifier in the library; "" when that is no linear layer.
        config: Of its images.
    """

    def __init__(self, net: nn.Module, settings: str, head: str, config: InputConfig) -> None:
        super().__init__()
        self.net, self.head, self.config, self._settings = net, head, config, settings
        self.key = json.dumps([settings, config, version(json.loads(settings)[0].partition("/")[0])])
        self._scale: tuple[tuple[float, ...], tuple[float, ...]] | None = None
        self.register_state_dict_post_hook(_drop_prefix)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_add_prefix)  # type: ignore[no-untyped-call]

    def set_input_statistics(self, mean: Triple, std: Triple) -> None:
        """Says how the images that come are normalised."""
        self._scale = None
        if (mean, std) != (self.config.mean, self.config.std):
            pairs = list(zip(mean, std, self.config.mean, self.config.std, strict=True))
            self._scale = (
                tuple((m - own_m) / own_s for m, _, own_m, own_s in pairs),
                tuple(s / own_s for _, s, _, own_s in pairs),
            )

    def forward(self, images: Tensor) -> Outputs:
        """Returns the Outputs of images [n, 3, h, w]; what the net cannot give is empty."""
        if self._scale is not None:
            shift, scale = (images.new_tensor(values)[:, None, None] for values in self._scale)
            images = torch.addcmul(shift, images, scale)
        size = self.config.size
        if images.shape[-2:] != (size, size):
            mode = self.config.interpolation
            images = F.interpolate(images, (size, size), mode=mode, antialias=True, align_corners=False)
        return self.extract(images)

    @abstractmethod
    def extract(self, images: Tensor) -> Outputs:
        """Returns the Outputs of images as the net was made for."""

    def get_head(self) -> Head:
        """Returns the classifier's tensors: weight [c, d], bias [c]; empty ones where it has none."""
        if not self.head:
            return Head(torch.empty(0), torch.empty(0))
        linear = self.net.get_submodule(self.head)
        assert isinstance(linear, nn.Linear)
        bias = linear.bias if linear.bias is not None else linear.weight.new_zeros(len(linear.weight))
        return Head(linear.weight, bias)

    def shapes(self, image_size: int) -> OutputShapes:
        """Returns the shapes of the outputs, by a pass without numbers."""
        return _measure_shapes(self._settings, image_size)


@lru_cache(maxsize=128)
def _measure_shapes(settings: str, image_size: int) -> OutputShapes:
    from raykd.models.registry import make

    name, classes, options = json.loads(settings)
    with torch.device("meta"), torch.no_grad():
        outputs = make(name, classes, options).eval()(torch.empty(2, 3, image_size, image_size))
    maps = tuple((x.shape[1], x.shape[2], x.shape[3]) for x in outputs.maps)
    parts = {"maps": len(maps), "pooled": outputs.pooled.numel(), "head": outputs.head.weight.numel()}
    missing = tuple(part for part, size in ({"preacts": 0, "stages": 0} | parts).items() if not size)
    return OutputShapes(outputs.logits.shape[1], outputs.embedding.shape[1], maps, missing)


def _drop_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in [name for name in state if name.startswith(prefix + WRAPPED)]:
        state[prefix + name.removeprefix(prefix + WRAPPED)] = state.pop(name)


def _add_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[prefix + WRAPPED + name.removeprefix(prefix)] = state.pop(name)


def reject_options(options: Options, names: list[str], net: str) -> None:
    """Raises ValueError, with the nearest word, when a net takes no such option."""
    for option in options:
        if option not in names:
            raise ValueError(f"{net} takes no option '{option}'.{suggest_nearest(option, names)}")


def list_parameters(net_class: type[nn.Module]) -> list[str]:
    """Returns what a class and those that it passes arguments on to take by name."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    classes = [base for base in net_class.__mro__ if base not in nn.Module.__mro__]
    parameters = [p for base in classes for p in inspect.signature(base).parameters.values()]
    return list(dict.fromkeys(p.name for p in parameters if p.kind in kinds))


def reject_name(name: str, names: list[str], library: str) -> None:
    """Raises UserError with the nearest name when a library has no such net."""
    if name not in names:
        raise UserError([f"no net '{library}/{name}'.{suggest_nearest(name, names)}"])

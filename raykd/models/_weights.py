"""Published weights into a net, in the forms in which RepDistiller, mdistiller and torchvision save them."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from raykd.models._base import Net

COUNTER = ".num_batches_tracked"  # of a batch norm: old files lack it, and no net here reads it


def load_weights(net: Net, state: Mapping[str, Any], source: str) -> None:
    """Copy a loaded checkpoint into the net. `source`, the file or URL it came from, opens every error.

    `state` is a state_dict (torchvision), or holds one as "model" (RepDistiller, mdistiller) or "state_dict";
    its names may carry the prefix "module." of a parallel wrapper. ValueError, the net untouched, when they
    do not fit.
    """
    given = _state_dict(state)
    own = net.state_dict()
    _check_names(own, given, source)
    _check_classes(net, own, given, source)
    _check_shapes(own, given, source)
    net.load_state_dict(given)


def _state_dict(state: Mapping[str, Any]) -> dict[str, Any]:
    for key in ("model", "state_dict"):
        if isinstance(state.get(key), Mapping):
            state = state[key]
    return {name.removeprefix("module."): value for name, value in state.items()}


def _check_names(own: Mapping[str, Tensor], given: Mapping[str, Any], source: str) -> None:
    missing = [name for name in own if name not in given and not name.endswith(COUNTER)]
    unexpected = [name for name in given if name not in own]
    if missing or unexpected:
        raise ValueError(
            f"{source}: not the weights of this net: "
            f"{_some(missing)} of its names are missing, {_some(unexpected)} are unexpected"
        )


def _check_classes(net: Net, own: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str) -> None:
    name = f"{net.head}.bias"
    if given[name].shape != own[name].shape:
        raise ValueError(f"{source}: its head has {len(given[name])} classes, the data has {len(own[name])}")


def _check_shapes(own: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str) -> None:
    wrong = [
        f"{name} is {list(value.shape)}, not {list(own[name].shape)}"
        for name, value in given.items()
        if value.shape != own[name].shape
    ]
    if wrong:
        raise ValueError(f"{source}: not the weights of this net: {_some(wrong)} have another shape")


def _some(names: list[str]) -> str:
    """How many, and the first three."""
    if not names:
        return "0"
    return f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"

"""Weights into a net, or in words why they are not its weights."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from raykd.models._base import Net

BATCH_COUNTER = ".num_batches_tracked"  # of a batch norm: old files lack it, and no net here reads it


def load_weights(net: Net, weights: Mapping[str, Any], new_head: bool = False) -> None:
    """Copies a state_dict into the net. ValueError, the net untouched, when `check_weights` refuses it."""
    check_weights(net, weights, new_head)
    net.load_state_dict(weights, strict=False)


def check_weights(net: Net, weights: Mapping[str, Any], new_head: bool = False) -> None:
    """Checks that a state_dict is of the net: names, shapes, classes.

    Args:
        net: Where it belongs.
        weights: All of the net's, where `new_head` less those of its classifier.
        new_head: Whether the classifier stays as it was drawn.

    Raises:
        ValueError: It is not; says in words why.
    """
    net_state = net.state_dict()
    if new_head:
        net_state = leave_out(net.head, net_state)
    _check_names(net_state, weights)
    if not new_head:
        _check_classes(net, net_state, weights)
    _check_shapes(net_state, weights)


def leave_out(module: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights less those of a module of the net, as "fc"."""
    return {name: value for name, value in weights.items() if not name.startswith(f"{module}.")}


def _check_names(net_state: Mapping[str, Tensor], weights: Mapping[str, Any]) -> None:
    missing = [name for name in net_state if name not in weights and not name.endswith(BATCH_COUNTER)]
    unexpected = [name for name in weights if name not in net_state]
    if missing or unexpected:
        raise ValueError(
            f"not the weights of this net: "
            f"{_abbreviate(missing)} of its names are missing, {_abbreviate(unexpected)} are unexpected"
        )


def _check_classes(net: Net, net_state: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    name = f"{net.head}.bias"
    if name in net_state and weights[name].shape != net_state[name].shape:
        raise ValueError(
            f"its head has {len(weights[name])} classes, the data has {len(net_state[name])}; "
            "head = new draws another, where the net is trained"
        )


def _check_shapes(net_state: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    wrong = [
        f"{name} is {list(value.shape)}, not {list(net_state[name].shape)}"
        for name, value in weights.items()
        if value.shape != net_state[name].shape
    ]
    if wrong:
        raise ValueError(f"not the weights of this net: {_abbreviate(wrong)} have another shape")


def _abbreviate(names: list[str]) -> str:
    """How many, and the first three."""
    if not names:
        return "0"
    return f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"

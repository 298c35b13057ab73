"""The weights that a net's own library publishes, trained on ImageNet or more, under the net's names."""

from collections.abc import Callable

from torch import Tensor

TORCHVISION_NETS = ("resnet18", "resnet34", "resnet50")  # built-in nets whose source is torchvision
Weights = dict[str, Tensor]


def has_pretrained(net: str) -> bool:
    """Returns whether a net comes from a library that publishes weights (perhaps not of this net)."""
    return _find_source(net) is not None


def download_pretrained(net: str) -> Weights:
    """Returns the weights of a net from its library, which reads its own cache first (TORCH_HOME, HF_HOME).

    Raises:
        ValueError: The library has none of this net.
        OSError, RuntimeError: They could not be fetched, or are damaged.
    """
    download = _find_source(net)
    if download is None:
        raise ValueError("no library publishes weights of this net")
    return download(net.rpartition("/")[2])


def _find_source(net: str) -> Callable[[str], Weights] | None:
    if net.startswith("torchvision/") or net in TORCHVISION_NETS:
        return _download_from_torchvision
    return _download_from_timm if net.startswith("timm/") else None


def _download_from_torchvision(name: str) -> Weights:
    """Those that torchvision calls DEFAULT, its best, less auxiliary classifiers, which no net has here."""
    from torchvision.models import get_model_weights  # here: it takes seconds

    weights: Weights = get_model_weights(name).DEFAULT.get_state_dict(
        progress=False, check_hash=True, weights_only=True
    )
    return {name: value for name, value in weights.items() if not name.lower().startswith("aux")}


def _download_from_timm(name: str) -> Weights:
    """Those of the name's tag, or timm's default for the name."""
    import timm  # here: it takes seconds, and it is an extra

    weights: Weights = timm.create_model(name, pretrained=True).state_dict()
    return weights

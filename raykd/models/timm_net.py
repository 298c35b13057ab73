"""Nets of timm: `timm/NAME[.TAG]`, for which the extra raykd[timm] is installed."""

from typing import Any

import torch
from torch import Tensor, nn

from raykd.batch import Outputs
from raykd.errors import UserError, first_line
from raykd.models.foreign import (
    ForeignNet,
    InputConfig,
    Options,
    list_parameters,
    reject_name,
    reject_options,
)

PARTS_OF_A_COLUMN = 4  # maps of a net whose blocks all have one size (ViT): after each quarter of them


class TimmNet(ForeignNet):
    """A net of timm.

    Maps: one a stage, by timm's forward_intermediates, tokens as a grid; where it gives none of a stem, the
    first stage's stands for it. Pooled: where the embedding is the plain mean of the last features.
    """

    def __init__(self, net: nn.Module, settings: str, config: InputConfig) -> None:
        classifier = net.get_classifier()  # type: ignore[operator]
        names = [name for name, module in net.named_modules() if module is classifier]
        super().__init__(net, settings, names[0] if isinstance(classifier, nn.Linear) else "", config)
        self._indices, self._repeats_first = _choose_stages(net)
        self._is_pooled = _pools_plainly(net, self.head)

    def extract(self, images: Tensor) -> Outputs:
        """Returns the Outputs of images [n, 3, size, size] in timm's normalisation."""
        net: Any = self.net
        if self._indices:
            last, maps = net.forward_intermediates(images, indices=self._indices, output_fmt="NCHW")
            maps = (maps[0], *maps) if self._repeats_first else tuple(maps)
        else:
            last, maps = net.forward_features(images), ()
        if not self.head:
            embedding = net.forward_head(last, pre_logits=True)
            return Outputs(net.forward_head(last), embedding, maps, self.get_head(), images.new_empty(0))
        inputs: list[Tensor] = []  # of the classifier: some norm them after what timm calls pre_logits
        handle = net.get_classifier().register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        logits = net.forward_head(last)
        handle.remove()
        pooled = _to_nchw(last, inputs[0].shape[1]) if self._is_pooled else images.new_empty(0)
        return Outputs(logits, inputs[0], maps, self.get_head(), pooled)


def _to_nchw(features: Tensor, channels: int) -> Tensor:
    return features if features.shape[1] == channels else features.permute(0, 3, 1, 2)


def _choose_stages(net: nn.Module) -> tuple[list[int], bool]:
    """The indices of the maps, and whether the first stands for the stem's too."""
    if not hasattr(net, "forward_intermediates"):
        return [], False
    reductions = [info["reduction"] for info in net.feature_info]  # type: ignore[union-attr]
    count = len(reductions)
    if len(set(reductions)) > 1 or count < PARTS_OF_A_COLUMN:
        return list(range(count)), reductions[0] > 2
    return [count * (k + 1) // PARTS_OF_A_COLUMN - 1 for k in range(PARTS_OF_A_COLUMN)], True


def _pools_plainly(net: nn.Module, classifier: str) -> bool:
    """Whether the classifier reads the spatial mean of the last features, and nothing lies between."""
    from timm.layers import ClassifierHead, SelectAdaptivePool2d

    head: Any = getattr(net, "head", None)
    pool = head.global_pool if type(head) is ClassifierHead else getattr(net, "global_pool", None)
    if not isinstance(pool, SelectAdaptivePool2d) or pool.pool_type != "avg":
        return False
    is_bare = "." not in classifier and net.num_features == getattr(net, "head_hidden_size", None)
    return type(head) is ClassifierHead or is_bare


def make(name: str, classes: int, options: Options, settings: str) -> TimmNet:
    """Returns a net of timm with random weights.

    Args:
        name: timm's, with or without a tag.
        classes: Of its classifier.
        options: Arguments of its class, and `size`: the pixels of a side that it sees.
        settings: All of these, as JSON.

    Raises:
        UserError: timm is not installed, or has no such net.
        ValueError: The net takes no such option.
    """
    try:
        import timm
    except ImportError:
        raise UserError([f"timm/{name} needs timm: pip install 'raykd[timm]'"]) from None
    architecture, _, tag = name.partition(".")
    reject_name(architecture, timm.list_models(), "timm")
    if tag:
        reject_name(name, timm.list_pretrained(f"{architecture}.*"), "timm")
    with torch.device("meta"):
        plain = timm.create_model(name)
    own = list_parameters(type(plain))
    reject_options(options, ["size", *own], f"timm/{name}")
    arguments = {option: value for option, value in options.items() if option != "size"}
    if "size" in options and "img_size" in own:
        arguments["img_size"] = options["size"]
    try:
        net = timm.create_model(name, num_classes=classes, **arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ValueError(f"timm/{name} with {dict(options)}: {first_line(error)}") from None
    cfg = net.pretrained_cfg
    size = int(options.get("size", cfg["input_size"][-1]))
    return TimmNet(
        net, settings, InputConfig(size, tuple(cfg["mean"]), tuple(cfg["std"]), cfg["interpolation"])
    )

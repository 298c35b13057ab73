"""Nets of torchvision.models: `torchvision/NAME`."""

import copy
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from raykd.batch import Outputs
from raykd.errors import first_line
from raykd.models.foreign import ForeignNet, InputConfig, Options, reject_name

MIN_MAPS = 3
OWN_DEFAULTS = {  # without the classifiers that help their training only, and with no warning
    name: {"aux_logits": False, "init_weights": True, "transform_input": True}
    for name in ("googlenet", "inception_v3")
}
TRACED_SIZE = 128  # pixels of a side at least, so that the last map is larger than what is pooled


class TorchvisionNet(ForeignNet):
    """A net of torchvision, traced.

    Maps: the last feature map at each size, where there are some; the first stands for the stem's. Pooled:
    none is given, since what lies between the last map and the classifier differs.
    """

    def __init__(self, net: nn.Module, settings: str, config: InputConfig) -> None:
        linear = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)]
        head = linear[-1] if linear else ""
        super().__init__(_trace(net, head, config.size), settings, head, config)

    def extract(self, images: Tensor) -> Outputs:
        """Returns the Outputs of images [n, 3, size, size] in torchvision's normalisation."""
        logits, embedding, *maps = self.net(images)
        return Outputs(logits, embedding, tuple(maps), self.get_head(), images.new_empty(0))


class _Tracer(fx.Tracer):
    """Keeps as one call whatever asks whether it is trained, which a trace would fix."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return super().is_leaf_module(m, module_qualified_name) or type(m).__name__ == "StochasticDepth"


def _trace(net: nn.Module, head: str, size: int) -> fx.GraphModule:
    """The net, with (logits, what the classifier reads, maps ...) as its outputs."""
    graph = _Tracer().trace(net)
    (output,) = (node for node in graph.nodes if node.op == "output")
    # SqueezeNet has no linear layer: its last convolution classifies each place
    name = head or [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)][-1]
    (classifier,) = (node for node in graph.nodes if node.op == "call_module" and node.target == name)
    logits, embedding = classifier, classifier.args[0]
    if not head:
        with graph.inserting_before(output):
            logits, embedding = output.args[0], graph.call_method("mean", (embedding, (2, 3)))
    output.args = ((logits, embedding, *_find_maps(net, graph, size, classifier.name)),)
    traced = fx.GraphModule(net, graph)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def _find_maps(net: nn.Module, graph: fx.Graph, size: int, classifier: str) -> list[fx.Node]:
    """The last node [n, c, h, w] at each size h, large to small; none when they are too few."""
    size = max(size, TRACED_SIZE)
    meta = fx.GraphModule(copy.deepcopy(net).to("meta"), copy.deepcopy(graph))
    try:
        ShapeProp(meta).propagate(torch.empty(2, 3, size, size, device="meta"))
    except (AssertionError, RuntimeError):  # it takes images of one size, and has no maps
        return []
    last_names: dict[int, str] = {}
    for node in takewhile(lambda node: node.name != classifier, meta.graph.nodes):
        shape: tuple[int, ...] = tuple(getattr(node.meta.get("tensor_meta"), "shape", ()))
        is_map = len(shape) == 4 and shape[0] == 2 and shape[2] == shape[3] and 1 < shape[2] < size
        if is_map and (shape[2] in last_names or shape[2] < min(last_names, default=size)):  # else attention
            last_names[shape[2]] = node.name
    by_name = {node.name: node for node in graph.nodes}
    maps = [by_name[name] for name in last_names.values()]
    has_stem = bool(last_names) and 2 * max(last_names) >= size
    return (maps if has_stem else [*maps[:1], *maps]) if len(maps) >= MIN_MAPS else []


def make(name: str, classes: int, options: Options, settings: str) -> TorchvisionNet:
    """Returns a net of torchvision with random weights.

    Args:
        name: torchvision's.
        classes: Of its classifier.
        options: Arguments of its builder, and `size`: the pixels of a side that it sees.
        settings: All of these, as JSON.

    Raises:
        UserError: torchvision has no such net of image classification.
        ValueError: It takes no such option.
    """
    from torchvision import models  # here: it takes a second

    reject_name(name, models.list_models(models), "torchvision")
    arguments = OWN_DEFAULTS.get(name, {}) | {k: value for k, value in options.items() if k != "size"}
    try:
        net = _build(models.get_model_builder(name), classes, arguments)
        preset = models.get_model_weights(name).DEFAULT.transforms()
        size = int(options.get("size", preset.crop_size[0]))
        config = InputConfig(size, tuple(preset.mean), tuple(preset.std), preset.interpolation.value)
        return TorchvisionNet(net, settings, config)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"torchvision/{name} with {dict(options)}: {first_line(error)}") from None


def _build(builder: Any, classes: int, arguments: dict[str, Any]) -> nn.Module:
    try:
        net: nn.Module = builder(weights=None, num_classes=classes, **arguments)
    except NotImplementedError:  # some draw their weights in a way that needs numbers
        with torch.device("cpu"):
            net = builder(weights=None, num_classes=classes, **arguments).to("meta")
    return net

"""Nets of timm and torchvision: outputs are the library's, every method serves those that it can."""

import copy
import re
from functools import lru_cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from raykd import methods, models
from raykd.batch import MethodBatch, MethodContext, Outputs
from raykd.contract.synthetic_batch import require_gradients
from raykd.errors import UserError
from raykd.models.foreign import ForeignNet

SMALL = {"size": 32}
NETS: dict[str, dict[str, Any]] = {  # a small net of each family
    "timm/resnet10t": SMALL,
    "timm/convnext_atto": SMALL,
    "timm/efficientnet_b0": SMALL | {"drop_path_rate": 0.1},
    "timm/mobilenetv3_small_050": SMALL,
    "timm/regnetx_002": SMALL,
    "timm/vit_tiny_patch16_224": {"size": 32, "patch_size": 8, "depth": 4},
    "timm/deit_tiny_distilled_patch16_224": {"size": 32, "patch_size": 8, "depth": 4},
    "timm/swin_tiny_patch4_window7_224": {"size": 64, "window_size": 2, "embed_dim": 24},
    "torchvision/resnet18": SMALL,
    "torchvision/mobilenet_v3_small": SMALL,
    "torchvision/swin_t": {"size": 64},
    "torchvision/googlenet": {"size": 64},
    "torchvision/squeezenet1_1": {"size": 33},
}
QUICK = ("timm/resnet10t",)
MISSING = {  # beside preacts, which none gives
    "timm/convnext_atto": {"pooled"},
    "timm/mobilenetv3_small_050": {"pooled"},
    "timm/vit_tiny_patch16_224": {"pooled"},
    "timm/deit_tiny_distilled_patch16_224": {"pooled", "head"},
    "torchvision/resnet18": {"pooled"},
    "torchvision/mobilenet_v3_small": {"pooled"},
    "torchvision/swin_t": {"pooled", "maps"},
    "torchvision/googlenet": {"pooled"},
    "torchvision/squeezenet1_1": {"pooled", "head"},
}
REFUSED_AS_TEACHER = {
    "preacts": {"reviewkd"},
    "stages": {"blockkd", "iakd"},
    "pooled": {"msdcrd", "sdd", "simkd"},
    "head": {"crcd", "msdcrd", "pckd", "sdd", "simkd"},
    "maps": {"at", "fitnet", "sp", "vid"},
}
REFUSED_AS_STUDENT = {
    "preacts": set(),
    "stages": {"iakd", "lmcl", "mcl_okd"},
    "pooled": {"beed", "eed", "msdcrd", "sdd"},
    "head": {"crcd", "msdcrd", "pckd", "sdd"},
    "maps": {"at", "beed", "blockkd", "eed", "fitnet", "reviewkd", "simkd", "sp", "vid"},
}
CLASSES, IMAGES, ROTATIONS = 4, 16, 4
LABELS = torch.arange(IMAGES // ROTATIONS).repeat_interleave(ROTATIONS) % CLASSES
PARTNER = "resnet18"  # of our own nets: a stem and four stages
each_net = pytest.mark.parametrize("name", NETS)
slow_ones = pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NETS]
)


def make_net(name: str) -> models.Net:
    torch.manual_seed(0)
    return models.make(name, CLASSES, NETS.get(name)).eval()


keep_net = lru_cache(maxsize=2)(make_net)


@lru_cache(maxsize=2)
def run_net(name: str) -> Outputs:
    torch.manual_seed(0)
    with torch.no_grad():
        return keep_net(name)(torch.randn(IMAGES, 3, 32, 32))


@lru_cache(maxsize=8)
def keep_branch(name: str, first: int) -> models.Branch:
    return models.make_branch(name, CLASSES, NETS.get(name), first)


@lru_cache(maxsize=2)
def make_stages(name: str) -> models.NetStages | None:
    net = keep_net(name)
    return models.NetStages(net, False) if isinstance(net, models.StagedNet) else None


@slow_ones
def test_outputs_are_the_librarys_and_as_announced(name: str) -> None:
    net = make_net(name)
    assert isinstance(net, ForeignNet)
    images = torch.randn(2, 3, net.config.size, net.config.size)
    with torch.no_grad():
        outputs, plain = net(images), net.net(images)
    assert_close(outputs.logits, plain if isinstance(plain, torch.Tensor) else plain[0])
    shapes = net.shapes(32)
    assert set(shapes.missing) == {"preacts", "stages"} | MISSING.get(name, set())
    assert outputs.logits.shape[1:] == (CLASSES,) and outputs.embedding.shape[1:] == (shapes.embedding,)
    assert [tuple(x.shape[1:]) for x in outputs.maps] == list(shapes.maps) and len(shapes.maps) in (0, 5)
    if "head" not in shapes.missing:
        assert_close(outputs.embedding @ outputs.head.weight.T + outputs.head.bias, outputs.logits)
    if "pooled" not in shapes.missing:
        assert_close(outputs.pooled.mean((2, 3)), outputs.embedding)
        assert tuple(outputs.pooled.shape[1:]) == shapes.pooled
    assert set(net.state_dict()) == set(net.net.state_dict())
    copied = copy.deepcopy(net)
    copied.load_state_dict({key: torch.zeros_like(value) for key, value in net.state_dict().items()})
    assert not any(value.any() for value in copied.state_dict().values())


def test_a_norm_before_the_classifier_is_not_left_out() -> None:
    """timm gives its pre_logits before that."""
    torch.manual_seed(0)
    net = models.make("timm/efficientvit_m0", CLASSES, {"size": 64}).eval()
    assert isinstance(net, ForeignNet)
    for name, buffer in net.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        outputs, plain = net(images), net.net(images)
    assert_close(outputs.logits, plain)
    assert_close(outputs.embedding @ outputs.head.weight.T + outputs.head.bias, plain)
    assert "pooled" in net.shapes(32).missing


def serves(method: str, student: str, teacher: str) -> bool:
    """Whether a method serves the pair; if so, its terms and gradients are finite."""
    context = MethodContext(*(make_shapes(net) for net in (student, teacher)), LABELS[::ROTATIONS])
    config = methods.get_config_class(method)()
    has_peers = methods.get_class(method).students != "one"
    context = context._replace(
        peers=(context.student,) * has_peers,
        make_branch=lambda _, first: copy.deepcopy(keep_branch(student, first)),
    )
    if method == "pckd" and context.student.embedding != context.teacher.embedding:
        config = config.model_copy(update={"weights": config.weights.model_copy(update={"centre": 0.0})})
    try:
        module = methods.make(method, context, config)
    except ValueError as error:
        if "the stages' maps differ in size" in str(error):
            return True  # with another teacher it would
        assert re.fullmatch(
            rf"{method} reads the (student|teacher)'s .*, which its net does not give"
            rf"|the stages of {student} cannot be run by themselves, .*",
            str(error),
        )
        return False
    rotations = module.rotations or 1
    outputs = [Outputs(*run_net(net)) for net in (student, teacher)]
    index = torch.arange(IMAGES) // rotations % (IMAGES // ROTATIONS)
    outputs[1] = outputs[1]._replace(each_logits=(outputs[1].logits,) * 2)  # as if of two
    peers = tuple(outputs[:1]) if has_peers else ()
    stages = map(make_stages, (student, teacher))
    half = torch.tensor(0.5)
    batch = require_gradients(MethodBatch(LABELS, index, half, *outputs, rotations, peers, *stages))
    total = sum(module(batch).values(), torch.zeros(()))
    assert total.isfinite()
    if total.requires_grad:
        total.backward()
    return True


@lru_cache(maxsize=32)
def make_shapes(name: str) -> Any:
    with torch.device("meta"):
        return models.make(name, CLASSES, NETS.get(name)).shapes(32)


@slow_ones
def test_every_method_serves_it_or_says_what_it_lacks(name: str) -> None:
    missing = {"preacts", "stages"} | MISSING.get(name, set())
    for refused, pair in (
        (REFUSED_AS_TEACHER, (PARTNER, name)),
        (REFUSED_AS_STUDENT, (name, PARTNER)),
    ):
        refusing = {method for method in methods.names() if not serves(method, *pair)}
        assert refusing == set.union(*(refused[part] for part in missing))


def test_each_net_sees_what_it_was_made_for() -> None:
    """Images of other statistics and another size are changed into its own, within the net."""
    net = make_net("timm/resnet10t")
    assert isinstance(net, ForeignNet)
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    own_mean, own_std = (torch.tensor(values)[:, None, None] for values in (net.config.mean, net.config.std))
    expected = net.net((pixels - own_mean) / own_std)
    net.set_input_statistics(mean, std)
    images = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert_close(net(images).logits, expected)
    large = models.make("timm/resnet10t", CLASSES, {"size": 48})
    assert large.shapes(32).maps[0][1:] == (24, 24)


def test_a_teacher_at_224_and_a_student_at_160_get_theirs_from_the_same_view() -> None:
    """Of a view of 192 pixels in a data set's statistics: resized as each net says, and normalised anew."""
    pixels, mean, std = torch.rand(2, 3, 192, 192), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    images = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    for name, options, size in (
        ("timm/resnet10t", {"size": 160}, 160),
        ("timm/vit_tiny_patch16_224", {"depth": 1}, 224),
    ):
        net = models.make(name, CLASSES, options).eval()
        assert isinstance(net, ForeignNet)
        net.set_input_statistics(mean, std)
        seen: list[torch.Tensor] = []
        first = next(module for module in net.modules() if isinstance(module, torch.nn.Conv2d))
        first.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        net(images)
        own_mean, own_std = (torch.tensor(values)[:, None, None] for values in net.config[1:3])
        resized = F.interpolate(pixels, (size, size), mode=net.config.interpolation, antialias=True)
        assert_close(seen[0], (resized - own_mean) / own_std, rtol=1e-4, atol=1e-4)


def test_what_there_is_not_is_named_with_the_nearest() -> None:
    for name, options, reason in (
        ("timm/resnt18", {}, "no net 'timm/resnt18'. Did you mean 'resnet18'?"),
        ("timm/resnet18.none", {}, "no net 'timm/resnet18.none'. Did you mean"),
        ("torchvision/resnet19", {}, "no net 'torchvision/resnet19'. Did you mean 'resnet18'?"),
        ("tim/resnet18", {}, "no such net 'tim/resnet18'."),
        (
            "timm/resnet18",
            {"drop_pth_rate": 0.1},
            "takes no option 'drop_pth_rate'. Did you mean 'drop_path_rate'?",
        ),
        ("torchvision/resnet18", {"depth": 1}, "unexpected keyword argument 'depth'"),
        ("resnet8", {"size": 32}, "resnet8 takes no options, but got size"),
    ):
        with pytest.raises((UserError, ValueError), match=re.escape(reason)), torch.device("meta"):
            models.make(name, CLASSES, options)

"""The nets have RepDistiller's sizes and names, know their outputs' shapes, load weights or say why not."""

import hashlib
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from raykd import models
from raykd.errors import UserError
from raykd.models.layers import channel_shuffle

# At 100 classes: the number of parameters, and a hash of the names and shapes of the state, in order. Both
# are those of a transcript of RepDistiller's nets, with which every map and logit was compared too (2026-11).
STATE = {
    "resnet8": (83_892, "5449ecb61c0b"),
    "resnet14": (181_108, "e206008031b5"),
    "resnet20": (278_324, "6f54e389c35c"),
    "resnet32": (472_756, "9a7e2a11fa94"),
    "resnet44": (667_188, "caefd48710fe"),
    "resnet56": (861_620, "470885c26e17"),
    "resnet110": (1_736_564, "7e524b233505"),
    "resnet8x4": (1_233_540, "6a4fa0192e11"),
    "resnet32x4": (7_433_860, "250044a29347"),
    "wrn_16_1": (180_916, "72def0ef8fdf"),
    "wrn_16_2": (703_284, "264bf5a37859"),
    "wrn_40_1": (569_780, "0aa607a5c1b6"),
    "wrn_40_2": (2_255_156, "adf0a10c7ead"),
    "vgg8": (3_965_028, "bff82c0f138a"),
    "vgg11": (9_277_284, "64b2552e8868"),
    "vgg13": (9_462_180, "af06ff07f75e"),
    "vgg16": (14_774_436, "510623fbedb9"),
    "vgg19": (20_086_692, "46f8e0c0e44e"),
    "MobileNetV2": (812_836, "cf2fc083e7ae"),
    "ShuffleV1": (949_258, "b19c4d818f21"),
    "ShuffleV2": (1_355_528, "8f44a58a43a9"),
    "ResNet50": (23_705_252, "699fe537c132"),
    "resnet18": (11_227_812, "a036b03c0663"),  # from here on those of torchvision and mdistiller
    "resnet34": (21_335_972, "a42dd4baef1b"),
    "resnet50": (23_712_932, "0133a28b9938"),
    "MobileNetV1": (3_309_476, "b84d836f84cd"),
}
FAMILIES = {
    "resnet8x4": ("layer1.0.conv1.weight", "layer1.0.downsample.1.running_var", "fc.weight"),
    "wrn_16_2": ("block1.layer.0.bn1.weight", "block2.layer.0.convShortcut.weight", "fc.bias"),
    "vgg8": ("block0.0.weight", "block0.0.bias", "block4.1.num_batches_tracked", "classifier.weight"),
    "MobileNetV2": ("conv1.0.weight", "blocks.1.0.conv.3.weight", "conv2.1.bias", "classifier.0.weight"),
    "ShuffleV1": ("layer1.0.conv2.weight", "layer3.3.bn3.bias", "linear.weight"),
    "ShuffleV2": ("layer1.0.conv5.weight", "layer2.7.conv3.weight", "conv2.weight", "linear.bias"),
    "ResNet50": ("layer1.0.shortcut.0.weight", "layer4.2.bn3.weight", "linear.weight"),
    "resnet18": ("conv1.weight", "layer2.0.downsample.1.running_var", "layer4.1.bn2.weight", "fc.bias"),
    "MobileNetV1": ("model.0.0.weight", "model.1.3.weight", "model.13.4.running_mean", "fc.weight"),
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def make_used_net(name: str, classes: int = 100) -> models.Net:
    """A net whose batch norms are not the identity, evaluating."""
    net = models.make(name, classes).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return net


@pytest.fixture(scope="module", params=FAMILIES)
def net(request: pytest.FixtureRequest) -> models.Net:
    """One net of each family, not to be changed."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return make_used_net(request.param)


def test_the_names_are_these() -> None:
    assert models.names() == tuple(STATE)


@pytest.mark.slow
@pytest.mark.parametrize("name", STATE)
def test_sizes_and_names_of_the_state(name: str) -> None:
    net = models.make(name)
    lines = "\n".join(f"{key} {list(value.shape)}" for key, value in net.state_dict().items())
    assert (models.num_parameters(net), hashlib.sha256(lines.encode()).hexdigest()[:12]) == STATE[name]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_few_names_in_full(name: str) -> None:
    assert set(FAMILIES[name]) <= set(models.make(name).state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("name", STATE)
def test_a_net_knows_the_shapes_of_its_outputs(name: str) -> None:
    net = models.make(name, classes=7).eval()
    for image_size in (9, 32, 64):
        with torch.inference_mode():
            outputs = net(torch.randn(1, 3, image_size, image_size))
        shapes = net.shapes(image_size)
        assert outputs.logits.shape == (1, shapes.classes) == (1, 7)
        assert outputs.embedding.shape == (1, shapes.embedding)
        assert tuple(tuple(one.shape[1:]) for one in outputs.maps) == shapes.maps
        assert tuple(tuple(one.shape[1:]) for one in outputs.preacts) == shapes.maps


def test_published_widths_of_the_embedding(net: models.Net) -> None:
    widths = {"ResNet": 256, "WideResNet": 128, "VGG": 512, "MobileNetV2": 1280, "ShuffleV1": 960}
    widths |= {"ShuffleV2": 1024, "ResNet50": 2048, "ImageNetResNet": 512, "MobileNetV1": 1024}
    assert net.shapes(32).embedding == widths[type(net).__name__]


def test_published_sizes_of_the_maps() -> None:
    assert models.make("resnet20").shapes(32).maps == ((16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8))
    assert [size for _, size, _ in models.make("vgg8").shapes(32).maps] == [32, 16, 8, 4, 4]
    assert [size for _, size, _ in models.make("vgg8").shapes(64).maps] == [64, 32, 16, 8, 4]
    assert [size for _, size, _ in models.make("MobileNetV2").shapes(32).maps] == [16, 16, 8, 4, 2]


def test_the_head_reads_the_embedding(net: models.Net) -> None:
    with torch.inference_mode():
        outputs = net(torch.randn(2, 3, 32, 32))
        expected = outputs.embedding @ outputs.head.weight.T + outputs.head.bias
    torch.testing.assert_close(outputs.logits, expected)


@pytest.mark.parametrize("name", ["resnet20", "vgg8"])
def test_the_embedding_is_the_mean_of_the_last_map(name: str) -> None:
    with torch.inference_mode():
        outputs = make_used_net(name)(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(outputs.embedding, outputs.maps[-1].mean((2, 3)))
    assert all((one >= 0).all() for one in outputs.maps)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet8x4", "vgg8", "ShuffleV1", "ResNet50", "resnet18", "resnet50"])
def test_a_map_is_the_relu_of_what_lies_before_it(name: str) -> None:
    with torch.inference_mode():
        outputs = make_used_net(name)(torch.randn(2, 3, 32, 32))
    for preact, one in zip(outputs.preacts[1:], outputs.maps[1:], strict=True):
        assert torch.equal(one, preact.clamp(min=0)) and (preact < 0).any()


def apply_batch_norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    """By the definition, in evaluation."""
    mean, var, weight, bias = (
        state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


@pytest.mark.parametrize("name", ["wrn_16_1", "wrn_40_2"])
def test_what_lies_before_the_relu_of_a_wrn_is_batch_normed(name: str) -> None:
    """As megvii-research/mdistiller, models/cifar/wrn.py:141-143; and training counts each batch once."""
    net = make_used_net(name)
    images, state = torch.randn(2, 3, 32, 32), net.state_dict()
    with torch.inference_mode():
        outputs = net(images)
    norms = ("block2.layer.0.bn1", "block3.layer.0.bn1", "bn1")
    for one, preact, norm in zip(outputs.maps[1:], outputs.preacts[1:], norms, strict=True):
        torch.testing.assert_close(preact, apply_batch_norm(one, state, norm), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(outputs.pooled, outputs.preacts[-1].clamp(min=0), rtol=0, atol=0)
    net.train()(images)
    assert {int(net.state_dict()[f"{norm}.num_batches_tracked"]) for norm in norms} == {1}


@pytest.mark.slow
def test_torchvisions_blocks_are_run_as_torchvision_runs_them() -> None:
    import torchvision

    for name in ("resnet18", "resnet50"):
        net, source = make_used_net(name, 7), getattr(torchvision.models, name)(num_classes=7).eval()
        source.load_state_dict(net.state_dict())
        images = torch.randn(2, 3, 32, 32)
        with torch.inference_mode():
            torch.testing.assert_close(net(images).logits, source(images), rtol=1e-5, atol=1e-4)


@pytest.mark.slow
def test_the_gradient_reaches_every_parameter(net: models.Net) -> None:
    names, parameters = zip(*net.named_parameters(), strict=True)
    gradients = torch.autograd.grad(net(torch.randn(2, 3, 32, 32)).logits.sum(), parameters)
    assert [name for name, gradient in zip(names, gradients, strict=True) if not gradient.any()] == []


@pytest.mark.slow
def test_channels_last_changes_the_layout_only(net: models.Net) -> None:
    other = deepcopy(net).to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        plain = net(images)
        last = other(images.to(memory_format=torch.channels_last))
    for actual, expected in zip((*last.maps, last.logits), (*plain.maps, plain.logits), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert all(one.is_contiguous(memory_format=torch.channels_last) for one in last.maps)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_shuffle_deals_the_channels(groups: int) -> None:
    x = torch.randn(2, 12, 3, 5)
    each = 12 // groups
    expected = torch.empty_like(x)
    for group in range(groups):
        for i in range(each):
            expected[:, i * groups + group] = x[:, group * each + i]
    assert torch.equal(channel_shuffle(x, groups), expected)
    assert torch.equal(channel_shuffle(x.to(memory_format=torch.channels_last), groups), expected)


def test_weights_start_as_the_source_starts_them() -> None:
    vgg, wrn = models.make("vgg13"), models.make("wrn_40_2")
    state = vgg.state_dict()
    assert float(state["block3.3.weight"].std()) == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.01)
    assert float(state["classifier.weight"].std()) == pytest.approx(0.01, rel=0.02)
    assert not any(state[key].any() for key in ("block0.0.bias", "classifier.bias"))
    assert not wrn.state_dict()["fc.bias"].any()
    assert float(wrn.state_dict()["fc.weight"].abs().max()) <= 128**-0.5


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(
        UserError, match=r"^no such net 'resnet_20'\. Did you mean 'resnet20'\? There are: resnet8, "
    ):
        models.make("resnet_20")
    with pytest.raises(UserError, match=r"^no such net '\?'\. There are: resnet8, "):
        models.make("?")


State = dict[str, Any]
FORMS: dict[str, Callable[[State], State]] = {
    "new": lambda state: state,
    "old": lambda state: {key: value for key, value in state.items() if "num_batches" not in key},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["resnet8", "MobileNetV2"])
def test_weights_load_with_and_without_counters_of_batches(name: str, form: str) -> None:
    teacher, net = make_used_net(name), models.make(name).eval()
    models.load_weights(net, FORMS[form](dict(teacher.state_dict())))
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(net(images).logits, teacher(images).logits)


def load_error(net: models.Net, state: State) -> str:
    """The error of loading; the net must be as before."""
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        models.load_weights(net, state)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    return str(caught.value)


def test_another_nets_weights_are_named() -> None:
    state = models.make("resnet14").state_dict()
    assert load_error(models.make("resnet8"), state) == (
        "not the weights of this net: 0 of its names are missing, 36 (layer1.1.conv1.weight, "
        "layer1.1.bn1.weight, layer1.1.bn1.bias, ...) are unexpected"
    )
    message = load_error(models.make("vgg8"), state)
    assert "32 (block0.0.weight, block0.0.bias, block0.1.weight, ...) of its names are missing" in message
    assert "\n" not in message


def test_a_wrong_number_of_classes_is_named() -> None:
    for name, net in (("resnet8", models.make("resnet8")), ("MobileNetV2", models.make("MobileNetV2"))):
        message = load_error(net, models.make(name, classes=10).state_dict())
        assert message.startswith("its head has 10 classes, the data has 100; head = new")


def test_a_wrong_shape_is_named() -> None:
    state: dict[str, Tensor] = models.make("resnet8").state_dict()
    state["conv1.weight"] = torch.zeros(16, 1, 3, 3)
    assert load_error(models.make("resnet8"), state) == (
        "not the weights of this net: 1 (conv1.weight is [16, 1, 3, 3], not [16, 3, 3, 3]) have another shape"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "vgg8", "ShuffleV1", "ResNet50", "resnet18"])
def test_the_stages_by_themselves_are_the_forward_pass(name: str) -> None:
    """From any stage on, also as a branch that has these stages alone."""
    torch.manual_seed(0)
    net = models.make(name, 5).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        outputs = net(images)
        for first in range(len(outputs.maps)):
            x = outputs.maps[first - 1] if first else images
            again = net.run_from(first, x)
            assert_close(again.logits, outputs.logits)
            assert_close(again.maps, outputs.maps[first:])
            assert_close(again.pooled, outputs.pooled)
        branch = models.make_branch(name, 5, None, 2)
        branch.net.load_state_dict(net.state_dict(), strict=False)
        assert_close(branch.eval()(outputs.maps[1]).logits, outputs.logits)
        assert sum(p.numel() for p in branch.parameters()) < sum(p.numel() for p in net.parameters())


def test_a_branch_begins_inside_its_net() -> None:
    with pytest.raises(ValueError, match="resnet8 has stages 0 to 3: none begins at 4"):
        models.make_branch("resnet8", 5, None, 4)

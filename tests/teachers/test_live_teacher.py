"""The live teacher: its outputs are those of its net as autocast would run it."""

import torch

from raykd.models import make
from raykd.teachers.teacher import LiveTeacher


def test_weights_kept_in_bfloat16_give_the_outputs_of_autocast() -> None:
    torch.manual_seed(0)
    net, images = make("resnet8", 10).eval(), torch.randn(4, 3, 32, 32)
    head = net.get_parameter("fc.weight").detach().clone()
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = net.to(memory_format=torch.channels_last)(images)
    live = LiveTeacher(net, 32, torch.device("cpu"), bf16=True).forward(images)
    assert torch.equal(live.logits, expected.logits) and torch.equal(live.pooled, expected.pooled)
    assert torch.equal(live.head.weight, head)

"""Block-KD and IAKD: mixed nets by hand, on real nets (tests/methods/test_methods.py holds the contract)."""

import pytest
import torch
import torch.nn.functional as F
from support.oracles import kl_divergence
from support.small_trainer import CPU, make_trainer, recipe
from torch import Tensor
from torch.testing import assert_close

from raykd.methods import iakd
from raykd.models import make
from raykd.study.recipe import Recipe
from raykd.teachers.teacher import LiveTeacher
from raykd.training.distiller import build_on_meta
from raykd.training.trainer import Trainer


def make_mixed(settings: Recipe) -> Trainer:
    """A student whose teacher is wide: resnet8x4's stages behind resnet8's."""
    whole = make_trainer(recipe(method={"name": "ce"}))
    torch.manual_seed(5)
    trainer = Trainer(settings, whole.dataset, LiveTeacher(make("resnet8x4", 10), 32, CPU, False), CPU)
    trainer.distiller.eval()  # batch norms of the connectors by their running statistics, 0 and 1
    return trainer


def run_teacher(net: torch.nn.Module, first: int, x: Tensor) -> Tensor:
    """The logits of resnet8x4's stages from `first` on, block by block."""
    for layer in (net.layer1, net.layer2, net.layer3)[first - 1 :]:
        for block in layer:
            x = F.relu(block(x))
    return net.fc(x.mean(dim=(2, 3)))


@torch.no_grad()
def test_block_kds_mixed_nets_end_in_the_teachers_stages() -> None:
    trainer = make_mixed(
        recipe(method={"name": "blockkd"}, teacher={"net": "resnet8x4", "weights": "unused"})
    )
    batch = next(trainer.get_batches(1))
    teacher, student = trainer.teacher.get_outputs(batch), trainer.student(batch.images)
    torch.manual_seed(5)
    net = make("resnet8x4", 10).eval()
    assert_close(net(batch.images).logits, teacher.logits)
    mixed = []
    for k, (conv, norm) in enumerate(trainer.distiller.method.connectors, start=1):
        mixed.append(run_teacher(net, k + 1, F.relu(norm(conv(student.maps[k])))))
    assert len(mixed) == 2
    terms = trainer.distiller(batch, teacher, torch.tensor(0.0))
    task = sum(F.cross_entropy(z, batch.labels) for z in mixed) / 2
    assert terms["mixed_task"].item() == pytest.approx(task.item(), rel=1e-4)
    rows = [kl_divergence(s, t, 4.0) for z in mixed for s, t in zip(z, teacher.logits, strict=True)]
    assert terms["mixed_kd"].item() == pytest.approx(sum(rows) / len(rows), rel=1e-3)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_iakd_is_the_student_or_the_teachers_stages_between_connectors(probability: float) -> None:
    method = {"name": "iakd", "schedule": {"kind": "constant", "p": probability}}
    trainer = make_mixed(recipe(method=method, teacher={"net": "resnet8x4", "weights": "unused"}))
    batch = next(trainer.get_batches(1))
    teacher, student = trainer.teacher.get_outputs(batch), trainer.student(batch.images)
    torch.manual_seed(5)
    net, own = make("resnet8x4", 10).eval(), trainer.distiller.method
    x = student.maps[0]
    for enter, leave, layer in zip(own.enter, own.leave, (net.layer1, net.layer2, net.layer3), strict=True):
        x = F.relu(enter(x))
        for block in layer:
            x = F.relu(block(x))
        x = leave(x)
    logits = student.logits if probability else trainer.student.fc(x.mean(dim=(2, 3)))
    terms = trainer.distiller(batch, teacher, torch.tensor(0.0))
    expected = F.cross_entropy(logits, batch.labels)
    assert terms["mixed"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_students_share_grows_to_the_end() -> None:
    linear = iakd.Linear(start=0.2)
    assert [linear.compute(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([0.2, 0.6, 1.0])


@pytest.mark.parametrize(
    ("name", "teacher", "student", "message"),
    [
        (
            "blockkd",
            "MobileNetV2",
            "resnet8",
            "blockkd reads the teacher's stages, which its net does not give",
        ),
        ("iakd", "resnet14", "ShuffleV2", "iakd reads the student's stages, which its net does not give"),
        (
            "blockkd",
            "vgg8",
            "resnet8",
            "blockkd: the stages' maps differ in size: student 32 x 32, .* teacher",
        ),
    ],
)
def test_nets_whose_stages_cannot_be_mixed_are_refused(
    name: str, teacher: str, student: str, message: str
) -> None:
    settings = recipe(
        method={"name": name}, teacher={"net": teacher, "weights": "unused"}, student={"net": student}
    )
    with pytest.raises(ValueError, match=message):
        build_on_meta(settings, 10, 32, 40)


@pytest.mark.slow
def test_a_step_moves_no_weight_of_the_teacher() -> None:
    trainer = make_mixed(recipe(method={"name": "iakd"}, teacher={"net": "resnet8x4", "weights": "unused"}))
    torch.manual_seed(5)
    before = make("resnet8x4", 10)
    trainer.distiller.train()
    trainer.train_step(1, 0, trainer.get_batches(1))
    batch = next(trainer.get_batches(1))
    assert_close(trainer.teacher.get_outputs(batch).logits, before.eval()(batch.images).logits.detach())

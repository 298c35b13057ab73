"""LatentBE: its term in loops, its members by hand, the plain net that is left of them, images that move."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.oracles import kl_divergence
from support.small_trainer import CPU, LATENTBE, comparable_metrics, make_trainer, recipe
from torch import Tensor, nn
from torch.testing import assert_close

from raykd import models
from raykd.batch import Outputs, OutputShapes, Triple, empty_outputs
from raykd.contract.synthetic_batch import PEERS_CONTEXT, make_batch
from raykd.errors import UserError
from raykd.methods import latentbe
from raykd.study.study import Study
from raykd.teachers.cached import add_cache
from raykd.teachers.ensemble import EnsembleTeacher
from raykd.teachers.teacher import LiveTeacher
from raykd.training import student, trial
from raykd.training.perturbation import Perturbation
from raykd.training.trainer import Trainer


def test_each_member_learns_from_its_own_teacher() -> None:
    batch = make_batch(context=PEERS_CONTEXT)
    pairs = zip(batch.students, batch.teacher.each_logits, strict=True)
    rows = [
        kl_divergence(z, t, 2.0)
        for member, teacher in pairs
        for z, t in zip(member.logits, teacher, strict=True)
    ]
    method = latentbe.Method(latentbe.Config(temperature=2.0), PEERS_CONTEXT)
    assert method(batch)["kd"].item() == pytest.approx(sum(rows) / len(rows), rel=1e-4)


@torch.no_grad()
def test_a_member_has_its_rows_and_columns_scaled_and_the_plain_net_the_means() -> None:
    torch.manual_seed(0)
    plain, images = models.make("resnet8", 10).eval(), torch.rand(2, 3, 32, 32)
    net = copy.deepcopy(plain)
    models.add_members(net, 2)
    for outputs in models.run_members(net, range(2), images):
        assert_close(outputs.logits, plain(images).logits)  # factors of 1
    factors = net.conv1.parametrizations.weight[0]
    for own in factors.parameters():
        own.copy_(torch.rand_like(own) + 0.5)
    expected = []
    r_of_members, s_of_members = (torch.cat([*own]) for own in (factors.r, factors.s))
    means = r_of_members.mean(0), s_of_members.mean(0)
    for r, s in [*zip(r_of_members, s_of_members, strict=True), means]:
        x = images * s[None, :, None, None]
        x = F.conv2d(x, plain.conv1.weight, padding=1) * r[None, :, None, None]
        own = copy.deepcopy(plain)
        own.conv1 = torch.nn.Identity()
        expected.append(own(x).logits)
    members = [outputs.logits for outputs in models.run_members(net, range(2), images)]
    for actual, logits in zip([*members, net(images).logits], expected, strict=True):
        assert_close(actual, logits, rtol=1e-4, atol=1e-5)
    merged = models.merge_members(net)
    assert merged.state_dict().keys() == plain.state_dict().keys()
    assert_close(merged(images).logits, expected[-1], rtol=1e-4, atol=1e-5)
    assert models.merge_members(plain) is plain


MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


class LinearNet(models.Net):
    """A linear classifier of 2 x 2 pixels; it may normalise images in its own way."""

    head = "fc"

    def __init__(self, own: bool = False) -> None:
        super().__init__()
        self.fc, self._own, self.scale, self.shift = (
            nn.Linear(12, 5),
            own,
            torch.ones(3, 1, 1),
            torch.zeros(3, 1, 1),
        )

    def forward(self, images: Tensor) -> Outputs:
        logits = self.fc((images * self.scale + self.shift).flatten(1))
        return empty_outputs(len(images), images.device)._replace(logits=logits)

    def shapes(self, image_size: int) -> OutputShapes:
        return OutputShapes(5, 12, ((3, 2, 2),))

    def set_input_statistics(self, mean: Triple, std: Triple) -> None:
        if self._own:  # pixels, 0 to 1
            self.scale, self.shift = (torch.tensor(x).view(3, 1, 1) for x in (std, mean))


@torch.no_grad()
def test_an_image_moves_along_the_gradient_that_algebra_gives() -> None:
    """Of H(a, b), a = W x + c, it is W^T (softmax(a) - softmax(b)): one image after another, no autograd."""
    torch.manual_seed(0)
    teachers, net = [LinearNet(), LinearNet(own=True)], LinearNet()
    models.add_members(net, 2)
    factors = net.fc.parametrizations.weight[0]
    for x in (*factors.r, *factors.s):
        x.uniform_(0.5, 1.5)
    for teacher in teachers:
        teacher.set_input_statistics(MEAN, STD)
    live = EnsembleTeacher([LiveTeacher(one, 2, CPU, False) for one in teachers], [1.0, 1.0])
    settings = recipe(**LATENTBE | {"method": {"name": "latentbe", "perturbation": 1.5}})
    images = torch.randn(6, 3, 2, 2)
    moved = Perturbation(settings, net, live, (MEAN, STD)).move(images, (1, 0), bf16=False)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (MEAN, STD))
    weights = [
        net.fc.parametrizations.weight.original * torch.outer(factors.r[k].flatten(), factors.s[k].flatten())
        for k in (1, 0)
    ]
    for image, actual in zip(images, moved, strict=True):
        pixels = image * std + mean
        a, b = teachers[1].fc(pixels.flatten()), teachers[0].fc(image.flatten())
        gradient = (teachers[1].fc.weight.T @ (a.softmax(0) - b.softmax(0))).view(3, 2, 2)
        a, b = (w @ image.flatten() + net.fc.bias for w in weights)
        gradient -= (weights[0].T @ (a.softmax(0) - b.softmax(0))).view(3, 2, 2) / std
        step = 1.5 * 12**0.5 / 255 * gradient / gradient.square().sum().sqrt()
        assert_close(actual, ((pixels + step).clip(0, 1) - mean) / std, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bf16", [False, True])
def test_images_move_by_a_255th_and_nothing_else_does(bf16: bool) -> None:
    trainer = make_trainer(recipe(**LATENTBE | {"precision": "bfloat16" if bf16 else "float32"}))
    plain = make_trainer(recipe(**LATENTBE | {"method": {"name": "latentbe", "perturbation": 0}}))
    trainer.distiller.train()
    before = copy.deepcopy(trainer.distiller.state_dict())
    batch, unmoved = next(trainer.get_batches(1)), next(plain.get_batches(1))
    assert_close(trainer.distiller.state_dict(), before, rtol=0, atol=0)
    assert all(module.training for module in trainer.student.modules())
    assert (
        all(weight.grad is None for weight in trainer.distiller.parameters())
        and not batch.images.requires_grad
    )
    std = torch.tensor(trainer.dataset.std).view(3, 1, 1)
    change = ((batch.images - unmoved.images) * std * 255).square().mean(dim=(1, 2, 3)).sqrt()
    assert (change > 0.1).all() and (change <= 1.001).all()  # what is black or white already stays so


def test_pairs_are_drawn_by_seed_epoch_and_step() -> None:
    trainer = make_trainer(recipe(**LATENTBE))
    perturbation = Perturbation(trainer.recipe, trainer.student, trainer.teacher, (MEAN, STD))
    pairs = [perturbation.draw_pair(1, step) for step in range(60)]
    assert len(set(pairs)) == 6 and all(first != second for first, second in pairs)
    assert pairs != [perturbation.draw_pair(2, step) for step in range(60)]


def test_teachers_that_move_images_keep_no_cache(tmp_path: Path) -> None:
    plain, moving = (recipe(**LATENTBE | {"method": {"name": "latentbe", "perturbation": k}}) for k in (0, 1))
    assert plain.reads_cacheable and not moving.reads_cacheable
    trainer = make_trainer(plain)
    live = LiveTeacher(models.make("resnet8", 10), 32, CPU, False)
    cached = add_cache(live, plain.data.index_views(trainer.dataset), 1.0, CPU, tmp_path)
    teacher = EnsembleTeacher([cached, live, live], [1.0] * 3)
    with pytest.raises(ValueError, match="two or more teachers, all without a cache"):
        Trainer(moving, trainer.dataset, teacher, CPU)


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    teachers = []
    for seed in range(2):
        torch.manual_seed(seed)
        torch.save(models.make("resnet8", 10).state_dict(), tmp_path / f"{seed}.pth")
        teachers.append({"net": "resnet8", "weights": str(tmp_path / f"{seed}.pth")})
    data = {"name": "digits", "images": 80, "holdout": 0.2}
    return {"data": data, "teacher": None, "teachers": teachers, "method": {"name": "latentbe"}, "epochs": 2}


@pytest.mark.slow
def test_a_trial_goes_on_exactly_and_leaves_one_plain_net(tmp_path: Path, settings: dict[str, Any]) -> None:
    trained = recipe(**settings)
    places = tuple(str(teacher.weights) for teacher in trained.teachers)
    ends = []
    for name, stop in (("whole", 0), ("stopped", 1)):
        job = trial.Job(trained.to_dict(), str(tmp_path / name), places, "unused", False, 1, test=True)
        rows: list[dict[str, Any]] = []

        def report(row: dict[str, Any], rows: list[dict[str, Any]] = rows, stop: int = stop) -> None:
            rows.append(comparable_metrics(row))
            if len(rows) == stop:
                raise KeyboardInterrupt

        if stop:
            with pytest.raises(KeyboardInterrupt):
                trial.run(job, report, CPU)
        trial.run(job, rows.append, CPU)
        ends.append(comparable_metrics(rows[-1]))
    assert ends[0] == ends[1] and ends[0]["parameters"] == models.num_parameters(models.make("resnet8", 10))
    net = student.load(str(tmp_path / "whole")).net
    assert net.state_dict().keys() == models.make("resnet8", 10).state_dict().keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teachers": []}, "method 'latentbe' needs a teacher"),
        (
            {"student": {"net": "resnet8", "copies": 2}},
            "student/copies = 2: method 'latentbe' needs a teacher and",
        ),
        (
            {"teachers": 1},
            "method 'latentbe' has a member of the student for each teacher: say teachers (2 or",
        ),
        (
            {"teachers": "top"},
            "teachers/0/cache: no form keeps outputs of images that method/perturbation moves",
        ),
    ],
)
def test_what_it_cannot_serve_is_one_line(
    settings: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    if change.get("teachers") == 1:
        change = {"teachers": settings["teachers"][:1]}
    if change.get("teachers") == "top":
        form = {"cache": {"top_logits": 3, "embedding": "none"}}
        change = {"teachers": [teacher | form for teacher in settings["teachers"]]}
    with pytest.raises(UserError) as error:
        Study.parse({"name": "s", "recipe": recipe().to_dict() | settings | change}, "study.yaml")
    (line,) = error.value.lines
    assert message in line

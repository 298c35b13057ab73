"""LatentBE: its term in loops, its members by hand, and the plain net that is left of them."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.oracles import kl_divergence
from support.small_trainer import CPU, comparable_metrics, recipe
from torch.testing import assert_close

from raykd import models
from raykd.contract.synthetic_batch import PEERS_CONTEXT, make_batch
from raykd.errors import UserError
from raykd.methods import latentbe
from raykd.study.study import Study
from raykd.training import student, trial


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
    for outputs in models.run_members(net, 2, images):
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
    members = [outputs.logits for outputs in models.run_members(net, 2, images)]
    for actual, logits in zip([*members, net(images).logits], expected, strict=True):
        assert_close(actual, logits, rtol=1e-4, atol=1e-5)
    merged = models.merge_members(net)
    assert merged.state_dict().keys() == plain.state_dict().keys()
    assert_close(merged(images).logits, expected[-1], rtol=1e-4, atol=1e-5)
    assert models.merge_members(plain) is plain


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
    ],
)
def test_what_it_cannot_serve_is_one_line(
    settings: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    if change.get("teachers") == 1:
        change = {"teachers": settings["teachers"][:1]}
    with pytest.raises(UserError) as error:
        Study.parse({"name": "s", "recipe": recipe().to_dict() | settings | change}, "study.yaml")
    (line,) = error.value.lines
    assert message in line

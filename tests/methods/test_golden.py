"""The numbers of the methods' official code (tests/methods/golden/README.md), in float64, to 1e-6."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from raykd import methods
from raykd.batch import MethodBatch, MethodContext, OutputShapes, empty_outputs
from raykd.maths.bank import AnchorNegatives, MemoryBank
from raykd.maths.contrast import consistency_loss, info_nce
from raykd.maths.nce import Negatives
from raykd.methods import crd, dcd, dkd
from raykd.methods.dcd import similarities
from raykd.methods.dkd import non_target_loss, target_loss
from raykd.methods.kd import kd_loss

CONTEXT = MethodContext(OutputShapes(10, 32, ()), OutputShapes(10, 48, ()), torch.arange(200))


class Golden(dict[str, Tensor]):
    """The tensors of one file; those that have a gradient there are leaves here."""

    def __init__(self, name: str) -> None:
        with np.load(Path(__file__).parent / "golden" / f"{name}.npz") as file:
            super().__init__({key: torch.from_numpy(file[key]) for key in file})
        for key in self:
            if key.startswith("grad_"):
                self[key.removeprefix("grad_")].requires_grad_()

    def unit(self, key: str, head: str) -> Tensor:
        """The embedding behind its head, normalised."""
        return F.normalize(F.linear(self[key], self[f"{head}_weight"], self[f"{head}_bias"]), dim=1)

    def check(self, loss: Tensor) -> None:
        """The loss and every gradient."""
        assert_matches(loss, self["loss"])
        loss.backward()
        for key in self:
            if key.startswith("grad_"):
                assert_matches(self[key.removeprefix("grad_")].grad, self[key])


def assert_matches(actual: Tensor | None, expected: Tensor) -> None:
    assert actual is not None
    assert_close(actual.detach(), expected, rtol=1e-6, atol=1e-12)


def test_kd() -> None:
    g = Golden("kd")
    g.check(kd_loss(g["student_logits"], g["teacher_logits"], g["temperature"].item()))


def test_dkd() -> None:
    g = Golden("dkd")
    args = g["student_logits"], g["teacher_logits"], g["labels"], g["temperature"].item()
    g.check(g["alpha"] * target_loss(*args) + g["beta"] * non_target_loss(*args))


def test_dcd() -> None:
    g = Golden("dcd")
    student = g.unit("student_embedding", "student_head")
    teacher = g.unit("teacher_embedding", "teacher_head")
    scale = g["tau"].exp().clamp(max=g["max_scale"].item())
    rows, columns = similarities(student, teacher, scale, g["bias"])
    g.check(info_nce(rows) + g["alpha"] * consistency_loss(rows, columns))


def released_negatives(rows: Tensor) -> list[AnchorNegatives]:
    """Every anchor's own negatives [n, num], none left out."""
    none = torch.tensor([-1])
    return [
        AnchorNegatives(slice(k, k + 1), Negatives(rows, torch.zeros_like(rows), none))
        for k, rows in enumerate(rows)
    ]


def test_crd_two_steps() -> None:
    g = Golden("crd")
    images, num = int(g["num_data"]), int(g["num_negatives"])
    dim = len(g["student_head_bias"])
    memory = MemoryBank(
        torch.arange(images), dim, num, "per_sample", g["temperature"].item(), g["momentum"].item()
    ).double()
    memory.student.copy_(g["student_bank_before"])
    memory.teacher.copy_(g["teacher_bank_before"])
    memory.list_negatives = lambda index, rows: released_negatives(rows)  # type: ignore[method-assign]
    for step in (1, 2):
        rows = g[f"negatives_{step}"]
        memory.draw(g[f"index_{step}"])  # the released draw takes its place
        embedding = g[f"student_embedding_{step}"].requires_grad_()
        student = g.unit(f"student_embedding_{step}", "student_head")
        teacher = g.unit(f"teacher_embedding_{step}", "teacher_head")
        loss = cast(Tensor, memory(student, teacher, g[f"index_{step}"], rows))
        loss.backward()
        assert_matches(loss, g[f"loss_{step}"])
        assert_matches(embedding.grad, g[f"grad_student_embedding_{step}"])
        assert_matches(memory.student, g[f"student_bank_after_{step}"])
        assert_matches(memory.teacher, g[f"teacher_bank_after_{step}"])
    assert_matches(memory.z_student, g["z_student"])
    assert_matches(memory.z_teacher, g["z_teacher"])


def loss_of_method(
    g: Golden,
    method: methods.Method,
    weights: methods.Weights,
    progress: float = 0.5,
    prepared: tuple[Tensor, ...] | None = None,
) -> Tensor:
    """The weighted terms of a whole method, in float32, with the golden heads; what a file lacks is empty."""
    for key, weight in method.named_parameters():
        weight.data.copy_(g[key.replace(".", "_")])
    rows, nothing = torch.arange(16), empty_outputs(16, torch.device("cpu"))
    student, teacher = (
        nothing._replace(
            logits=g.get(f"{net}_logits", nothing.logits),
            embedding=g.get(f"{net}_embedding", nothing.embedding),
        )
        for net in ("student", "teacher")
    )
    labels, index, done = g.get("labels", rows), g.get("index", rows), torch.tensor(progress)
    batch = MethodBatch(labels, index, done, student, teacher, prepared=prepared)
    terms = [getattr(weights, name) * term for name, term in method(batch).items()]
    return torch.stack(terms).sum().detach()


@pytest.mark.parametrize(("progress", "part"), [(0.5, 1.0), (10 / 240, 0.5), (0.0, 0.0)])
def test_the_dkd_method_warms_up(progress: float, part: float) -> None:
    g, config = Golden("dkd"), dkd.Config()
    loss = loss_of_method(g, dkd.Method(config, CONTEXT), config.weights, progress)
    assert_close(loss, (part * g["loss"]).float())


def test_the_dcd_method() -> None:
    g, config = Golden("dcd"), dcd.Config()
    method = dcd.Method(config, CONTEXT)
    assert method.tau.item() == g["tau"] and method.bias.item() == g["bias"]
    assert_close(loss_of_method(g, method, config.weights), g["loss"].float())


def test_the_crd_method() -> None:
    g, config = Golden("crd"), crd.Config(dim=16, negatives=50, weights=crd.Weights(contrast=1.0))
    g |= {key.removesuffix("_1"): value for key, value in g.items() if key.endswith("_1")}
    method = crd.Method(config, CONTEXT)
    method.memory.student.copy_(g["student_bank_before"])
    method.memory.teacher.copy_(g["teacher_bank_before"])
    method.memory.list_negatives = lambda index, rows: released_negatives(rows)  # type: ignore[method-assign]
    method.prepare(g["index"], 1)  # the released draw takes its place
    loss = loss_of_method(g, method, config.weights, prepared=(g["negatives"],))
    assert_close(loss, g["loss"].float())
    assert_close(method.memory.teacher, g["teacher_bank_after"].float())

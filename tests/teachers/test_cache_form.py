"""Compact forms of a teacher's outputs: what is given back, in how many bytes, and whom they serve."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_trainer import CPU, recipe

from raykd import data
from raykd.batch import OutputShapes
from raykd.data import DatasetInfo
from raykd.errors import UserError
from raykd.models import make
from raykd.study import space_check
from raykd.study.study import Study
from raykd.teachers.cache_form import EXACT, CacheForm
from raykd.teachers.cached import CachedTeacher, add_cache
from raykd.teachers.teacher import LiveTeacher

FORMS = [
    EXACT,
    CacheForm(embedding="int8"),
    CacheForm(top_logits=3, embedding="int8"),
    CacheForm(top_logits=3, embedding="none"),
]
each_form = pytest.mark.parametrize("form", FORMS, ids=CacheForm.describe)


def pass_through(form: CacheForm, logits: torch.Tensor, embedding: torch.Tensor) -> Any:
    shapes = OutputShapes(logits.shape[1], embedding.shape[1], ())
    rows = form.encode(logits, embedding)
    assert rows.dtype == torch.uint8 and rows.shape == (len(logits), form.count_bytes(shapes))
    return form.decode(rows, shapes)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [7, 40_000])
def test_the_top_logits_and_the_mass_of_the_others_are_given_back(classes: int) -> None:
    torch.manual_seed(0)
    logits, k = 4 * torch.randn(5, classes), 3
    kept, embedding = pass_through(CacheForm(top_logits=k, embedding="none"), logits, torch.randn(5, 6))
    assert embedding.shape == (5, 0)
    for row, original in zip(kept, logits, strict=True):
        order = sorted(range(classes), key=lambda c: -original[c].item())
        torch.testing.assert_close(row[order[:k]], original[order[:k]].half().float(), rtol=0, atol=0)
        assert len(set(row[order[k:]].tolist())) == 1
        mass = sum(math.exp(original[c].item() / 4) for c in order[k:])
        assert torch.exp(row[order[k:]] / 4).sum().item() == pytest.approx(mass, rel=2e-3)


def test_an_embedding_is_kept_in_eight_bits_of_its_range() -> None:
    torch.manual_seed(0)
    embedding = torch.cat([torch.randn(4, 30).relu(), 1e5 * torch.randn(1, 30), torch.zeros(1, 30)])
    logits, kept = pass_through(CacheForm(embedding="int8"), torch.randn(6, 4), embedding)
    step = (embedding.amax(1, keepdim=True) - embedding.amin(1, keepdim=True)) / 255
    assert bool(((kept - embedding).abs() <= 0.51 * step).all()) and logits.shape == (6, 4)


@each_form
def test_what_a_form_cannot_hold_is_given_as_it_is(form: CacheForm) -> None:
    logits, embedding = torch.randn(2, 10), torch.randn(2, 6)
    logits[1, 4] = 1e6
    kept = form.apply(logits, embedding, OutputShapes(10, 6, ()))
    assert kept.is_lost.flatten().tolist() == [False, True] and torch.equal(kept.logits[1], logits[1])


@each_form
def test_a_trial_learns_the_same_from_every_place_of_a_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: CacheForm
) -> None:
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path))
    spec = data.Digits(images=40)
    dataset = data.load(spec, Path("unused"), False)
    torch.manual_seed(5)
    net, positions = make("resnet8", 10), torch.arange(24)
    live, exact = LiveTeacher(net, 32, CPU, False, form), LiveTeacher(net, 32, CPU, False)
    source = spec.make_source(dataset, CPU)
    (batch,) = source.batches(positions[None], data.draw_view_ids(1, 0, 24, source)[None])
    outputs = [live.get_outputs(batch)]
    for hits in (0, 24):
        cached = add_cache(live, spec.index_views(dataset), 1.0, CPU)
        assert isinstance(cached, CachedTeacher)
        outputs.append(cached.get_outputs(batch))
        assert cached.cache_stats.hits == hits
    limits = {"rtol": 1e-3, "atol": 1e-3} if form.is_exact else {"rtol": 0, "atol": 0}  # live: not rounded
    for one in outputs[1:]:
        torch.testing.assert_close(one.logits, outputs[0].logits, **limits)
        torch.testing.assert_close(one.embedding, outputs[0].embedding, **limits)
    assert torch.equal(outputs[0].logits.argmax(1), exact.get_outputs(batch).logits.argmax(1))


@pytest.mark.parametrize(
    ("method", "cache", "message"),
    [
        ("fitnet", {"embedding": "int8"}, "teacher/cache: method 'fitnet' reads its teacher's maps"),
        (
            "dcd",
            {"embedding": "none"},
            "teacher/cache/embedding = none: method 'dcd' reads its teacher's emb",
        ),
        ("dist", {"top_logits": 3}, "teacher/cache/top_logits = 3: method 'dist' compares classes"),
        ("kd", {"top_logits": 0}, "teacher/cache/top_logits = 0: should be greater than or equal to 1"),
        ("kd", {"top": 3}, "no such field"),
    ],
)
def test_a_form_that_cannot_serve_is_one_line(method: str, cache: dict[str, Any], message: str) -> None:
    teacher = {"net": "resnet14", "weights": "t.pth", "cache": cache}
    plain = recipe(method={"name": method}).to_dict() | {"teacher": teacher}
    with pytest.raises(UserError) as error:
        Study.parse({"name": "s", "recipe": plain}, "study.yaml")
    (line,) = error.value.lines
    assert message in line


def test_as_many_logits_as_there_are_is_no_form() -> None:
    teacher = {"net": "resnet14", "weights": "t.pth", "cache": {"top_logits": 10}}
    plain = recipe(method={"name": "kd"}).to_dict() | {"teacher": teacher}
    study = Study.parse({"name": "s", "recipe": plain}, "study.yaml")
    with pytest.raises(UserError, match="recipe/teacher/cache/top_logits = 10: the teacher has 10 logits"):
        space_check.check(study, DatasetInfo(10, 32, 100))
    assert space_check.check(study, DatasetInfo(11, 32, 100)) > 0

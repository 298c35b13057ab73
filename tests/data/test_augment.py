"""RandAugment and TrivialAugment on batches: torchvision's operations, functions of (image, view id)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.photographs import make_source, photograph_settings
from support.small_trainer import comparable_metrics, make_trainer, recipe
from torch import Tensor
from torchvision.transforms import v2

from raykd import data
from raykd.data.augment import NUM_BINS, OPERATIONS, augment
from raykd.study import space_check
from raykd.study.recipe import Recipe
from raykd.study.study import Study

SIDE = 24
RAND, TRIVIAL = {"kind": "randaugment"}, {"kind": "trivialaugment"}


def make_images(count: int) -> Tensor:
    """Images of soft shapes, uint8: pure noise would hide what an operation does to neighbours."""
    noise = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return (torch.nn.functional.interpolate(noise, SIDE, mode="bilinear") * 255).byte()


def list_outcomes(image: Tensor, is_wide: bool, bins: list[int]) -> set[bytes]:
    """What each operation, sign and magnitude makes of an image; all of them in one batch."""
    choices = [(k, sign, b) for k in range(len(OPERATIONS)) for sign in (False, True) for b in bins]
    which, sign, magnitude = (np.array(column) for column in zip(*choices, strict=True))
    pixels = image.permute(1, 2, 0).expand(len(choices), -1, -1, -1)
    return {one.contiguous().numpy().tobytes() for one in augment(pixels, is_wide, which, sign, magnitude)}


@pytest.mark.parametrize("magnitude", [4, 9, 30])
def test_operations_are_rand_augments(magnitude: int) -> None:
    (image,) = make_images(1)
    transform, ours = v2.RandAugment(num_ops=1, magnitude=magnitude), list_outcomes(image, False, [magnitude])
    torch.manual_seed(0)
    theirs = {transform(image).permute(1, 2, 0).contiguous().numpy().tobytes() for _ in range(300)}
    assert theirs == ours and len(ours) > 15


def test_operations_are_trivial_augments() -> None:
    (image,) = make_images(1)
    transform, ours = v2.TrivialAugmentWide(), list_outcomes(image, True, list(range(NUM_BINS)))
    torch.manual_seed(0)
    theirs = {transform(image).permute(1, 2, 0).contiguous().numpy().tobytes() for _ in range(400)}
    assert theirs <= ours and len(theirs) > 150


def test_a_batch_is_its_images_one_by_one() -> None:
    images, random = make_images(64).permute(0, 2, 3, 1), np.random.default_rng(0)
    which, bins = random.integers(len(OPERATIONS), size=64), random.integers(NUM_BINS, size=64)
    sign = random.random(64) < 0.5
    batch = augment(images, True, which, sign, bins)
    for k in range(64):
        one = augment(images[k : k + 1], True, which[k : k + 1], sign[k : k + 1], bins[k : k + 1])
        assert torch.equal(one[0], batch[k]), OPERATIONS[which[k]]


def make_batch(spec: Any, positions: list[int], view_ids: list[list[int]]) -> Any:
    source = spec.make_source(data.load(spec, Path("unused"), False), torch.device("cpu"))
    (batch,) = source.batches(torch.tensor([positions]), torch.tensor([view_ids]))
    return batch


@pytest.mark.slow
@pytest.mark.parametrize("kind", [RAND, TRIVIAL])
@pytest.mark.parametrize("other", [{}, {"rotations": 4}, {"mixup": 0.8, "views": 6}])
def test_a_view_is_a_function_of_image_and_id(kind: dict[str, str], other: dict[str, Any]) -> None:
    spec = data.Digits.model_validate({"holdout": 0, "augment": kind} | other)
    ids = [[k % 6] * spec.rotations for k in range(8)]
    batch, plain = (
        make_batch(spec, list(range(8)), ids),
        make_batch(data.Digits(holdout=0), [0, 1], [[0], [1]]),
    )
    again = make_batch(spec, [5, 2], [ids[5], ids[2]])
    rows = torch.arange(8 * spec.rotations).view(8, -1)[[5, 2]].flatten()
    assert torch.equal(batch.images[rows], again.images) and torch.equal(batch.labels[rows], again.labels)
    assert not torch.equal(make_batch(spec, [0, 1], [[1] * spec.rotations] * 2).images[:2], plain.images)


def test_views_of_streams_too(data_root: Path) -> None:
    positions, views = torch.tensor([[5, 40, 7]]), torch.tensor([[[1], [2], [3]]])
    batches = {}
    for name, settings in {"none": {}, "rand": RAND, "device": RAND}.items():
        more = {"decoder": "device"} if name == "device" else {}
        own = {"augment": settings} if settings else {}
        (batches[name],) = make_source(photograph_settings(**own, **more), data_root)[1].batches(
            positions, views
        )
    assert (batches["rand"].images - batches["device"].images).abs().mean() < 0.1
    assert not torch.equal(batches["rand"].images, batches["none"].images)


@pytest.mark.slow
def test_training_with_them_resumes_and_a_table_answers() -> None:
    settings = {"name": "digits", "images": 160, "holdout": 0.2, "augment": RAND, "views": 4}
    whole = recipe(epochs=2, method={"name": "kd"}, data=settings)
    trainer = make_trainer(whole)
    index = whole.data.index_views(trainer.dataset)
    assert index is not None and index.views == 4
    other = whole.data.model_copy(update={"augment": type(whole.data.augment)(magnitude=10)})
    assert other.index_views(trainer.dataset).key != index.key
    rows = [comparable_metrics(row) for row in trainer.run()]
    first, second = make_trainer(whole), make_trainer(whole)
    next(first.run())
    second.load_state_dict(first.state_dict(), {})
    assert [comparable_metrics(row) for row in second.run()] == rows[1:]


@pytest.mark.slow
def test_they_are_searched() -> None:
    """The magnitude is drawn where the kind has one; and stochastic depth is a dimension, too."""
    plain = {
        "name": "augment",
        "recipe": {
            "data": {"name": "digits"}, "teacher": {"net": "resnet14", "weights": "teacher.pth"},
            "student": {"net": "timm/convnext_atto", "options": {"drop_path_rate": 0.1}},
            "method": {"name": "kd"},
        },
        "space": {
            "data/augment/kind": "open", "data/augment/magnitude": "open", "data/augment/num_ops": "open",
            "student/options/drop_path_rate": {"low": 0.0, "high": 0.3},
        },
    }  # fmt: skip
    study = Study.parse(plain, "augment")
    space = study.search_space()
    assert space["data/augment/magnitude"].conditions == (("data/augment/kind", "randaugment"),)
    assert space_check.check(study, data.DatasetInfo(10, 32, 1437)) > 0
    params = {
        "data/augment/kind": "randaugment",
        "data/augment/magnitude": 5,
        "student/options/drop_path_rate": 0.2,
    }
    found: Recipe = study.recipe_with(params)
    assert json.loads(json.dumps(found.to_dict()["data"]["augment"])) == {
        **RAND,
        "num_ops": 2,
        "magnitude": 5,
    }
    assert found.student.options["drop_path_rate"] == 0.2

"""Views that are more than a crop: mixed as torchvision mixes, functions of (image, view id), kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from support.photographs import photograph_settings
from support.small_trainer import comparable_metrics, make_trainer, recipe
from torchvision.transforms import v2

from raykd import data
from raykd.data.views import draw_uniform, fill_boxes
from raykd.errors import UserError
from raykd.models import make
from raykd.study import space_check
from raykd.study.study import Study
from raykd.teachers.cached import add_cache
from raykd.teachers.teacher import LiveTeacher

CPU = torch.device("cpu")
ALL = {"views": 6, "mixup": 0.8, "cutmix": 1.0, "erasing": 0.5}
DIGITS = {"name": "digits", "images": 160, "holdout": 0.2}


def make_batch(spec: Any, positions: list[int], view_ids: list[int]) -> Any:
    source = spec.make_source(data.load(spec, Path("unused"), False), CPU)
    steps = torch.tensor([positions]), torch.tensor([view_ids])[..., None]
    (batch,) = source.batches(*steps)
    return batch


def test_numbers_are_uniform_and_of_image_view_and_stream() -> None:
    images, views = torch.arange(200).repeat(100), torch.arange(100).repeat_interleave(200)
    numbers = [draw_uniform(images, views, stream) for stream in (0, 1)]
    for values in numbers:
        counts = torch.histc(torch.from_numpy(values), 10, 0, 1)
        assert len(set(values.tolist())) == 20_000 and (counts / 2000 - 1).abs().max() < 0.1
    assert abs(np.corrcoef(numbers)[0, 1]) < 0.03


def test_boxes_are_cutmixs() -> None:
    """torchvision's CutMix draws a share, a column and a row, and pastes the neighbour's box there."""
    torch.manual_seed(0)
    images = torch.rand(4, 3, 16, 16)
    cutmix = v2.CutMix(num_classes=4)
    for _ in range(20):
        state = torch.get_rng_state()
        params = cutmix.make_params([images])
        mixed = cutmix.transform(images, params | {"labels": torch.arange(4), "batch_size": 4})
        torch.set_rng_state(state)
        share = torch.distributions.Beta(torch.ones(1), torch.ones(1)).sample(()).double().numpy()
        x, y = (torch.randint(16, (1,)).double().numpy() for _ in range(2))
        half = np.sqrt(1 - share) * 16 / 2
        box = fill_boxes(x, y, half, half, 16)
        torch.testing.assert_close(torch.lerp(images, images.roll(1, 0), box.float()), mixed)
        assert 1 - box.float().mean().item() == pytest.approx(params["lam_adjusted"])


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_mixed_view_is_two_crops_by_their_shares(kind: str) -> None:
    plain, mixing = data.Digits(holdout=0), data.Digits(holdout=0, **{kind: 1.0})
    batch = make_batch(mixing, list(range(64)), list(range(64)))
    own = make_batch(plain, list(range(64)), [i % plain.num_crops for i in range(64)])
    assert torch.equal(batch.labels, own.labels) and bool((batch.share >= 0.5).all())
    assert batch.partner_labels.bincount(minlength=10).count_nonzero() > 5
    if kind == "cutmix":
        kept = (batch.images == own.images).all(1).float().mean((1, 2))
        assert bool((kept >= batch.share - 1e-6).all())
    else:
        share = batch.share[:, None, None, None]
        partner = (batch.images - share * own.images) / (1 - share)
        clear = batch.share < 0.9
        assert bool((partner[clear] >= own.images.min() - 1e-3).all())
        assert bool((partner[clear] <= own.images.max() + 1e-3).all())


def test_a_view_is_the_same_in_any_batch() -> None:
    spec = data.Digits(**ALL)
    whole = make_batch(spec, [5, 9, 2, 7], [0, 3, 5, 1])
    part = make_batch(spec, [2, 5], [5, 0])
    for name in ("images", "labels", "row", "partner_labels", "share"):
        torch.testing.assert_close(getattr(part, name), getattr(whole, name)[[2, 0]], rtol=0, atol=0)
    other = make_batch(spec, [5, 9], [1, 2])
    assert not torch.equal(other.images, whole.images[:2])


def test_erasing_blanks_a_box_of_so_many_views() -> None:
    views = [v % 81 for v in range(1000)]
    erased = make_batch(data.Digits(holdout=0, erasing=0.25), list(range(1000)), views)
    plain = make_batch(data.Digits(holdout=0), list(range(1000)), views)
    is_changed = (erased.images != plain.images).flatten(1).any(1)
    assert 0.18 < is_changed.float().mean() < 0.32
    assert bool((erased.images[erased.images != plain.images] == 0).all())


def test_mixed_cross_entropy_is_that_of_soft_labels() -> None:
    trainer = make_trainer(recipe(data=DIGITS | {"mixup": 1.0}, label_smoothing=0.1))
    batch = next(trainer.get_batches(1))
    logits = trainer.student(batch.images).logits
    own, partner = (F.one_hot(y, 10) for y in (batch.labels, batch.partner_labels))
    soft = batch.share[:, None] * own + (1 - batch.share[:, None]) * partner
    term = trainer.distiller(batch, trainer.teacher.get_outputs(batch), torch.tensor(0.0))["task"]
    torch.testing.assert_close(term, F.cross_entropy(logits, soft, label_smoothing=0.1))


@pytest.mark.slow
def test_mixed_views_resume_exactly() -> None:
    settings = recipe(
        data=DIGITS | ALL | {"images": 40}, method={"name": "kd"}, epochs=2, optimizer={"batch_size": 8}
    )
    rows = [comparable_metrics(row) for row in make_trainer(settings).run()]
    first, second = make_trainer(settings), make_trainer(settings)
    next(first.run())
    second.load_state_dict(first.state_dict(), {})
    assert [comparable_metrics(row) for row in second.run()] == rows[1:]


def test_a_table_serves_mixed_and_streamed_views(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path / "cache"))
    streamed = photograph_settings(size=32, loaders=0, holdout=0.0, views=2, mixup=1.0, erasing=0.5)
    for spec in (recipe(data=DIGITS | ALL).data, streamed):
        dataset = data.load(spec, data_root, False)
        live = LiveTeacher(make("resnet8", len(dataset.classes)), 32, CPU, False)
        index = spec.index_views(dataset)
        assert index is not None and index.views == spec.views
        cached = add_cache(live, index, 1.0, CPU)
        count = len(dataset.train.labels)
        rows = []
        for epoch in (1, 2, 3):
            source = spec.make_source(dataset, CPU)
            view_ids = data.draw_view_ids(epoch, 0, count, source)
            for batch in source.batches(torch.arange(count)[None], view_ids[None]):
                expected, outputs = live.get_outputs(batch), cached.get_outputs(batch)
                torch.testing.assert_close(outputs.logits, expected.logits, rtol=2e-3, atol=2e-3)
                rows += batch.row.tolist()
        assert (
            cached.cache_stats.misses == len(set(rows)) < len(rows) and max(rows) < index.views * index.images
        )


def test_bad_settings_are_one_line() -> None:
    with pytest.raises(ValidationError, match="mixup and cutmix mix upright views"):
        data.Digits(mixup=1.0, rotations=4)
    with pytest.raises(ValidationError, match="views = 3 is odd"):
        data.Digits(views=3, rotations=4, flip=True)
    plain = {
        "name": "big",
        "recipe": recipe(data={"name": "imagenet", "views": 400}, method={"name": "kd"}).to_dict(),
    }
    study = Study.parse(plain, "big.yaml")
    with pytest.raises(UserError, match=r"views = 400: .* GiB of a node's disk, \d+ views fit") as error:
        space_check.check(study, data.DatasetInfo(1000, 224, 1_281_167))
    assert len(error.value.lines) == 1
    few = study.model_copy(update={"cluster": study.cluster.model_copy(update={"teacher_cache_gib": 2000.0})})
    assert "views fit; of 400, the first trial's" in space_check.describe_views(
        few, data.DatasetInfo(1000, 224, 1_281_167)
    )

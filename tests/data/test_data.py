"""Data sets, their split and their views: real images, and torchvision's own operations as the oracle."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torchvision.transforms.v2 import functional as T

from raykd import data
from raykd.data.in_memory import InMemorySource, Pixels
from raykd.data.normalizer import Normalizer
from raykd.errors import UserError

CPU = torch.device("cpu")


def make_source(spec: data.DataSpec, pixels: torch.Tensor) -> InMemorySource:
    return InMemorySource(
        Pixels(pixels, torch.zeros(len(pixels))),
        spec,
        Normalizer(torch.zeros(len(pixels)), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), CPU),
    )


def make_views(source: InMemorySource, positions: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The images of a batch of one step."""
    (batch,) = source.batches(positions[None], ids.view(1, len(positions), -1))
    assert torch.equal(batch.index, positions.repeat_interleave(source.rotations))
    assert torch.equal(batch.view, ids.flatten())
    return batch.images


def make_evaluation_images(source: InMemorySource, pixels: torch.Tensor) -> torch.Tensor:
    return torch.cat(
        [images for images, _ in source.evaluation_batches(Pixels(pixels, torch.zeros(len(pixels))), 0, 1)]
    )


def make_pixels(count: int = 3, size: int = 8) -> torch.Tensor:
    return torch.randint(256, (count, size, size, 3), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )


def test_split_is_stratified_disjoint_and_fixed() -> None:
    labels = torch.arange(1000) % 7
    train, heldout = data.stratified_split(labels, 0.1, seed=3)
    assert sorted([*train, *heldout]) == list(range(1000)) and len(heldout) == 100
    assert set(np.bincount(labels.numpy()[heldout])) <= {14, 15}
    assert hashlib.sha256(heldout.tobytes()).hexdigest()[:16] == "baf67406b026d214"
    assert not np.array_equal(heldout, data.stratified_split(labels, 0.1, seed=4)[1])
    assert len(data.stratified_split(labels, 0.0, seed=3)[1]) == 0
    # what scikit-learn's train_test_split refuses: a class of one image, fewer held out than classes
    train, heldout = data.stratified_split(torch.tensor([0, 0, 0, 0, 1, 2, 2]), 0.2, seed=0)
    assert len(train) == 6 and heldout.tolist() in ([0], [1], [2], [3])


def test_digits() -> None:
    whole = data.load(data.Digits(), Path("unused"), False)
    assert whole.train.pixels.shape[1:] == (32, 32, 3) and whole.train.pixels.dtype == torch.uint8
    assert (len(whole.train.labels), len(whole.heldout.labels), len(whole.test.labels)) == (1293, 144, 360)
    small = data.load(data.Digits(images=200, holdout=0.25), Path("unused"), False)
    assert (len(small.train.labels), len(small.heldout.labels), len(small.test.labels)) == (150, 50, 360)
    full = data.load(data.Digits(holdout=0), Path("unused"), False)
    assert len(full.train.labels) == 1437 and len(full.heldout.labels) == 0
    assert torch.equal(full.test.pixels, whole.test.pixels)
    published = load_digits()  # the same images, in scikit-learn's own order
    large = F.interpolate(torch.tensor(published.images)[:, None] * 255 / 16, size=32, mode="bilinear")
    expected = zip(large[:, 0].round().byte().numpy(), published.target, strict=True)
    parts = (full.train, full.test)
    pixels, labels = (torch.cat([getattr(part, name) for part in parts]) for name in ("pixels", "labels"))
    read = zip(pixels[..., 0].numpy(), labels, strict=True)
    ours, theirs = (sorted((i.tobytes(), int(n)) for i, n in pairs) for pairs in (read, expected))
    assert ours == theirs
    with pytest.raises(ValueError, match="there are 1437"):
        data.load(data.Digits(images=2000), Path("unused"), False)


@pytest.mark.parametrize(("flip", "padding"), [(True, 2), (False, 1), (True, 0)])
def test_every_view_is_what_torchvision_makes_of_the_image(flip: bool, padding: int) -> None:
    pixels = make_pixels()
    source = make_source(data.Digits(flip=flip, padding=padding), pixels)
    assert source.num_views == (2 * padding + 1) ** 2 * (2 if flip else 1)
    plain = make_evaluation_images(source, pixels)
    for view in range(source.num_views):
        mirrored, crop = (view % 2, view // 2) if flip else (0, view)
        top, left = divmod(crop, 2 * padding + 1)
        padded = T.pad(pixels.permute(0, 3, 1, 2), [padding])
        expected = T.crop(padded, top, left, 8, 8)
        expected = T.horizontal_flip(expected) if mirrored else expected
        expected = T.normalize(expected.float() / 255, [0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
        views = make_views(source, torch.arange(3), torch.full((3,), view))
        torch.testing.assert_close(views, expected, rtol=1e-5, atol=1e-5)
        assert views.is_contiguous(memory_format=torch.channels_last)
    still = padding * (2 * padding + 1) + padding
    torch.testing.assert_close(
        make_views(source, torch.arange(3), torch.full((3,), still * (2 if flip else 1))), plain
    )


def test_rotated_views_are_adjacent_turned_and_cropped_on_their_own() -> None:
    pixels = make_pixels()
    rotating = make_source(data.Digits(rotations=4, padding=1), pixels)
    upright = make_source(data.Digits(padding=1), pixels)
    ids = torch.randint(rotating.num_views, (12,), generator=torch.Generator().manual_seed(1))
    rotated = make_views(rotating, torch.arange(3), ids)
    for row in range(12):
        alone = make_views(upright, torch.tensor([row // 4]), ids[row : row + 1])
        torch.testing.assert_close(rotated[row], torch.rot90(alone[0], row % 4, (1, 2)))


@pytest.mark.parametrize("flip", [True, False])
def test_the_rotated_views_of_an_image_share_one_flip_and_no_crop(flip: bool) -> None:
    """As in xuguodong03/SSKD, cifar.py:143-145; every view is still drawn as often as the others."""
    source = make_source(data.Digits(rotations=4, padding=1, flip=flip), make_pixels())
    ids = data.draw_view_ids(1, 0, 4000, source)
    assert ids.shape == (4000, 4) and set(ids.unique().tolist()) == set(range(source.num_views))
    together = (ids % 2 == ids[:, :1] % 2).all(dim=1)
    assert together.all() if flip else together.float().mean() < 0.3
    assert (ids // 2 == ids[:, :1] // 2).all(dim=1).float().mean() < 0.05
    shares = ids.flatten().bincount() / ids.numel()
    assert (shares * source.num_views - 1).abs().max() < 0.15


def test_draws_depend_on_seed_and_epoch_alone() -> None:
    source = make_source(data.Digits(), make_pixels())
    assert torch.equal(data.draw_view_ids(1, 0, 500, source), data.draw_view_ids(1, 0, 500, source))
    assert not torch.equal(data.draw_view_ids(1, 0, 500, source), data.draw_view_ids(2, 0, 500, source))
    assert not torch.equal(data.epoch_permutation(1, 0, 500), data.epoch_permutation(1, 1, 500))
    assert sorted(data.epoch_permutation(1, 0, 500).tolist()) == list(range(500))
    assert set(data.draw_view_ids(1, 0, 5000, source).flatten().tolist()) == set(range(81))


def test_cifar100(data_root: Path) -> None:
    full = data.load(data.CIFAR100(), data_root, False)
    assert (len(full.train.labels), len(full.heldout.labels), len(full.test.labels)) == (45000, 5000, 10000)
    assert set(full.heldout.labels.bincount().tolist()) == {50} and full.classes[0] == "apple"
    small = data.load(data.CIFAR100(images=1000, holdout=0.2), data_root, False)
    assert (len(small.train.labels), len(small.heldout.labels)) == (800, 200)


def test_missing_and_damaged_cifar100_are_one_line(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file\. Expected under .*cifar-100-python/train"):
        data.load(data.CIFAR100(), tmp_path, False)
    shutil.copytree(data_root / "cifar-100-python", tmp_path / "cifar-100-python")
    whole = (tmp_path / "cifar-100-python/test").read_bytes()
    (tmp_path / "cifar-100-python/test").write_bytes(whole[:10_000_000])
    with pytest.raises(UserError, match=r"test: damaged \(10,000,000 bytes") as error:
        data.load(data.CIFAR100(), tmp_path, False)
    assert len(error.value.lines) == 1


def test_folders_of_photographs(data_root: Path, tmp_path: Path) -> None:
    photographs = data.load(
        data.ImageFolder(path="clothing", test="test", images=200, size=32), data_root, False
    )
    assert len(photographs.classes) == 10 and photographs.train.pixels.shape[1:] == (32, 32, 3)
    assert photographs.train.pixels.float().std() > 20
    shutil.copytree(data_root / "clothing/validation", tmp_path / "own/train")
    shutil.copytree(data_root / "clothing/validation", tmp_path / "own/val")
    broken = sorted((tmp_path / "own/train/hat").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(UserError, match=f"{broken.name}: not a readable image"):
        data.load(data.ImageFolder(path="own", size=32), tmp_path, False)
    (tmp_path / "own/val/hat").rename(tmp_path / "own/val/hats")
    with pytest.raises(UserError, match=r"class folders differ .*'hat', 'hats'"):
        data.load(data.ImageFolder(path="own"), tmp_path, False)
    with pytest.raises(UserError, match=r"no such folder\. Expected"):
        data.load(data.ImageFolder(path="none"), tmp_path, False)


@pytest.mark.slow
def test_the_memory_of_a_folder_is_counted_before_it_is_read(data_root: Path) -> None:
    """The padded copy too, and only the images that are used; they are the ones that all would give."""
    spec = data.ImageFolder(path="clothing", test="test", images=50, size=32, padding=4)
    dataset = data.load(spec, data_root, False)
    padded = spec.make_source(dataset, CPU).pixel_rows.nbytes
    unpadded = sum(part.pixels.nbytes for part in (dataset.train, dataset.heldout, dataset.test))
    tests = len(dataset.test.labels)
    assert 0.9 * spec.count_bytes(50, tests) < unpadded + padded <= spec.count_bytes(50, tests)
    spec.check_memory("clothing", 50, tests)
    with pytest.raises(UserError, match=r"clothing: 90,000,050 images of 32 x 32 take \d+\.\d GiB of the"):
        spec.check_memory("clothing", 50, 90_000_000)
    whole = data.load(spec.model_copy(update={"images": None}), data_root, False)
    everything = torch.cat([whole.train.pixels, whole.heldout.pixels]).flatten(1)
    assert all((everything == image).all(1).any() for image in dataset.train.pixels.flatten(1))


@pytest.mark.parametrize("spec", [data.ImageFolder, data.ImageNet])
def test_a_standard_deviation_of_nothing_is_refused(spec: type[data.DataSpec]) -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        spec.model_validate({"path": "clothing", "std": (0.2, 0.0, 0.2)})


@pytest.mark.slow
def test_tiny_imagenet(data_root: Path) -> None:
    tiny = data.load(data.ImageFolder(path="tiny-imagenet-mini", size=64), data_root, False)
    assert len(tiny.classes) == 200 and tiny.train.pixels.shape[1:] == (64, 64, 3)

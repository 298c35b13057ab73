"""Streams of real photographs: the pixels, and whence they come."""

from pathlib import Path

import pytest
import torch
from support.photographs import CPU, SIZE, make_source, photograph_settings
from torchvision.transforms import v2

from raykd import data, models
from raykd.data import pictures
from raykd.data.in_memory import Pixels
from raykd.data.resample import resample
from raykd.errors import UserError
from raykd.training.evaluation import measure_accuracy


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_a_tree_is_listed_and_split(data_root: Path) -> None:
    whole = data.load(photograph_settings(images=None), data_root, False)
    assert len(whole.classes) == 10 and whole.info == (10, SIZE, 320)
    assert (len(whole.heldout.labels), len(whole.test.labels)) == (80, 341)
    assert set(whole.heldout.labels.bincount().tolist()) == {8}
    dataset = data.load(photograph_settings(), data_root, False)
    assert (len(dataset.train.labels), len(dataset.heldout.labels)) == (48, 12)
    for part in (dataset.train, dataset.heldout, dataset.test):
        names = [Path(part.name(position)) for position in range(len(part.labels))]
        assert all(name.is_file() for name in names)
        assert [name.parent.name for name in names] == [dataset.classes[label] for label in part.labels]
    with pytest.raises(UserError, match=r"none/train: no such folder\. Expected"):
        data.load(photograph_settings(path="none"), data_root, False)


@pytest.mark.slow
@pytest.mark.parametrize("rotations", [1, 4])
def test_a_view_depends_on_image_and_id_alone(data_root: Path, rotations: int) -> None:
    """Whatever the process, batch and order; pixels are torchvision's crop under that seed; odd ids flip."""
    spec = photograph_settings(rotations=rotations)
    dataset, source = make_source(spec, data_root)
    positions = torch.tensor([[5, 40, 17], [2, 5, 0]])
    views = data.draw_view_ids(1, 0, 6, source).view(2, 3, rotations)
    views[1, 1] = views[0, 0]
    batches = list(source.batches(positions, views))
    _, others = make_source(photograph_settings(rotations=rotations, loaders=2), data_root)
    for ours, theirs in zip(batches, others.batches(positions, views), strict=True):
        assert torch.equal(ours.images, theirs.images)
    twice = batches[0].images[:rotations], batches[1].images[rotations : 2 * rotations]
    assert torch.equal(*twice) and not torch.equal(batches[0].images[0], batches[1].images[0])
    assert batches[0].images.is_contiguous(memory_format=torch.channels_last)
    assert batches[0].index.tolist() == [p for p in (5, 40, 17) for _ in range(rotations)]
    assert torch.equal(batches[0].labels, dataset.train.labels[batches[0].index])
    assert torch.equal(batches[0].view, views[0].flatten())
    image = pictures.decode(dataset.train.read(40))
    last = rotations - 1
    torch.manual_seed(int(views[0, 1, last]))
    view = v2.RandomResizedCrop(SIZE, scale=(0.08, 1), antialias=True)(image)
    view = v2.functional.horizontal_flip(view) if views[0, 1, last] % 2 else view
    view = torch.rot90(view, last, (1, 2))
    expected = v2.functional.normalize(view.float() / 255, list(spec.mean), list(spec.std))
    torch.testing.assert_close(batches[0].images[rotations + last], expected, rtol=1e-5, atol=1e-5)


def test_the_global_random_numbers_are_left_alone(data_root: Path) -> None:
    _, source = make_source(photograph_settings(), data_root)
    before = torch.get_rng_state()
    list(source.batches(torch.tensor([[1, 2]]), torch.tensor([[[3], [4]]])))
    assert torch.equal(torch.get_rng_state(), before)


def test_streaming_evaluation_is_evaluation_in_memory(data_root: Path) -> None:
    spec = photograph_settings()
    dataset, source = make_source(spec, data_root)
    resize_and_crop = v2.Compose([v2.Resize(73, antialias=True), v2.CenterCrop(SIZE)])
    files = [dataset.heldout.read(position) for position in range(len(dataset.heldout.labels))]
    decoded = torch.stack([resize_and_crop(pictures.decode(file)) for file in files]).permute(0, 2, 3, 1)
    part = Pixels(decoded, dataset.heldout.labels)
    heldout = data.Dataset(dataset.classes, SIZE, part, part, part, spec.mean, spec.std)
    memory = data.Digits().make_source(heldout, CPU)
    ours, theirs = (
        list(source.evaluation_batches(dataset.heldout, 1, 3)),
        list(memory.evaluation_batches(part, 1, 3)),
    )
    assert len(ours) == len(theirs) == 1 and len(ours[0][0]) == 4
    assert all(torch.equal(a, b) for a, b in zip(ours[0], theirs[0], strict=True))
    torch.manual_seed(0)
    net = models.make("resnet18", 10)
    assert measure_accuracy(net, source, dataset.heldout, False) == measure_accuracy(net, memory, part, False)


def test_more_ranks_than_images_judge_nothing_twice(data_root: Path) -> None:
    dataset, source = make_source(photograph_settings(), data_root)
    two = dataset.test.take(torch.tensor([3, 4]))
    assert [[len(labels) for _, labels in source.evaluation_batches(two, rank, 3)] for rank in range(3)] == [
        [1],
        [1],
        [],
    ]


def test_the_device_decodes_as_the_loaders_do(data_root: Path) -> None:
    """By torchvision.io.decode_jpeg, on the CPU here: decoders round otherwise, views are the same."""
    positions, views = torch.tensor([[5, 40], [17, 2]]), torch.tensor([[[1], [2]], [[3], [4]]])
    for loaders in (0, 1):
        _, source = make_source(photograph_settings(loaders=loaders), data_root)
        _, other = make_source(photograph_settings(loaders=loaders, decoder="device"), data_root)
        for ours, theirs in zip(
            source.batches(positions, views), other.batches(positions, views), strict=True
        ):
            assert (ours.images - theirs.images).abs().max() < 0.15  # of pixels in standard deviations
            assert torch.equal(ours.index, theirs.index)


def test_crops_of_many_images_at_once_are_torchvisions_and_the_same_in_any_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    sides = [(50, 41), (33, 120), (90, 70)]
    images = [torch.randint(0, 256, (3, *s), generator=generator, dtype=torch.uint8) for s in sides]
    augmentation = photograph_settings().make_augmentation()
    all_ids: list[list[int]] = [[3, 8], [], [5]]
    views = [augmentation.list_windows(s, ids) for s, ids in zip(sides, all_ids, strict=True)]
    together = resample(images, views, SIZE).split([2, 1, 1])
    for image, ids, image_views, pixels in zip(images, all_ids, views, together, strict=True):
        exact = augmentation(image.double(), ids)
        assert pixels.shape == exact.shape
        assert (pixels - exact).abs().max() < 0.501  # rounded
        assert torch.equal(pixels, resample([image], [image_views], SIZE))

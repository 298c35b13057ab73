"""Streams of real photographs: the pixels, the counting of corrupt files, and studies of ImageNet's form."""

import copy
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.transforms import v2

from raykd import data, models
from raykd.data import pictures
from raykd.data.stream import Stream
from raykd.data.views import Pixels
from raykd.loop import Teaching, accuracy
from raykd.mistakes import BadInput
from raykd.plan import plan
from raykd.recipe import Recipe
from raykd.study import Study
from raykd.teachers import LiveTeacher

CPU = torch.device("cpu")
SIZE = 64


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def photographs(**settings: Any) -> data.ImageNet:
    """Settings of the clothing set, streamed."""
    base = {
        "path": "clothing",
        "size": SIZE,
        "test": "validation",
        "images": 60,
        "holdout": 0.2,
        "loaders": 0,
    }
    return data.ImageNet(**(base | settings))


def stream(spec: data.ImageNet, root: Path) -> tuple[data.Dataset[Any], Stream]:
    dataset = data.load(spec, root, False)
    return dataset, spec.source(dataset, CPU)


def test_a_tree_is_listed_and_split(data_root: Path) -> None:
    whole = data.load(photographs(images=None), data_root, False)
    assert len(whole.classes) == 10 and whole.figures == (10, SIZE, 320)
    assert (len(whole.heldout.labels), len(whole.test.labels)) == (80, 341)
    assert set(whole.heldout.labels.bincount().tolist()) == {8}
    some = data.load(photographs(), data_root, False)
    assert (len(some.train.labels), len(some.heldout.labels)) == (48, 12)
    for part in (some.train, some.heldout, some.test):
        names = [Path(part.file(position)) for position in range(len(part.labels))]
        assert all(name.is_file() for name in names)
        assert [name.parent.name for name in names] == [some.classes[label] for label in part.labels]
    with pytest.raises(BadInput, match=r"none/train: no such folder\. Expected"):
        data.load(photographs(path="none"), data_root, False)


@pytest.mark.parametrize("rotations", [1, 4])
def test_a_view_depends_on_image_and_id_alone(data_root: Path, rotations: int) -> None:
    """In whichever process, batch and order; its pixels are torchvision's under that seed."""
    spec = photographs(rotations=rotations)
    dataset, source = stream(spec, data_root)
    positions = torch.tensor([[5, 40, 17], [2, 5, 0]])
    views = data.draw(1, 0, 6, source).view(2, 3, rotations)
    views[1, 1] = views[0, 0]
    batches = list(source.batches(positions, views))
    _, others = stream(photographs(rotations=rotations, loaders=2), data_root)
    for ours, theirs in zip(batches, others.batches(positions, views), strict=True):
        assert torch.equal(ours.images, theirs.images)
    twice = batches[0].images[:rotations], batches[1].images[rotations : 2 * rotations]
    assert torch.equal(*twice) and not torch.equal(batches[0].images[0], batches[1].images[0])
    assert batches[0].images.is_contiguous(memory_format=torch.channels_last)
    assert batches[0].index.tolist() == [p for p in (5, 40, 17) for _ in range(rotations)]
    assert torch.equal(batches[0].labels, dataset.train.labels[batches[0].index])
    assert torch.equal(batches[0].view, views[0].flatten())
    image = pictures.decoded(dataset.train.file(40))
    last = rotations - 1
    torch.manual_seed(int(views[0, 1, last]))
    seen = v2.RandomHorizontalFlip()(v2.RandomResizedCrop(SIZE, scale=(0.08, 1), antialias=True)(image))
    seen = torch.rot90(seen, last, (1, 2))
    expected = v2.functional.normalize(seen.float() / 255, list(spec.mean), list(spec.std))
    torch.testing.assert_close(batches[0].images[rotations + last], expected, rtol=1e-5, atol=1e-5)


def test_the_global_random_numbers_are_left_alone(data_root: Path) -> None:
    _, source = stream(photographs(), data_root)
    before = torch.get_rng_state()
    list(source.batches(torch.tensor([[1, 2]]), torch.tensor([[[3], [4]]])))
    assert torch.equal(torch.get_rng_state(), before)


def test_streaming_evaluation_is_evaluation_in_memory(data_root: Path) -> None:
    spec = photographs()
    dataset, source = stream(spec, data_root)
    shorter = v2.Compose([v2.Resize(73, antialias=True), v2.CenterCrop(SIZE)])
    files = [dataset.heldout.file(position) for position in range(len(dataset.heldout.labels))]
    decoded = torch.stack([shorter(pictures.decoded(file)) for file in files]).permute(0, 2, 3, 1)
    part = Pixels(decoded, dataset.heldout.labels)
    held = data.Dataset(dataset.classes, SIZE, part, part, part, spec.mean, spec.std)
    memory = data.Digits().source(held, CPU)
    ours, theirs = list(source.plain(dataset.heldout, 1, 3)), list(memory.plain(part, 1, 3))
    assert len(ours) == len(theirs) == 1 and len(ours[0][0]) == 4
    assert all(torch.equal(a, b) for a, b in zip(ours[0], theirs[0], strict=True))
    torch.manual_seed(0)
    net = models.make("resnet18", 10)
    assert accuracy(net, source, dataset.heldout, False) == accuracy(net, memory, part, False)


@pytest.fixture
def damaged(data_root: Path, tmp_path: Path) -> Path:
    """A small copy with one truncated and one missing image in the class hat."""
    for part in ("train", "validation"):
        for name in ("dress", "hat"):
            (tmp_path / "clothing" / part / name).mkdir(parents=True)
            for file in sorted((data_root / "clothing" / part / name).iterdir())[:6]:
                shutil.copy(file, tmp_path / "clothing" / part / name)
    broken = sorted((tmp_path / "clothing/train/hat").iterdir())[2]
    broken.write_bytes(broken.read_bytes()[:300])
    return tmp_path


@pytest.mark.parametrize("loaders", [0, 1])
def test_a_corrupt_image_is_named(damaged: Path, loaders: int) -> None:
    dataset, source = stream(photographs(images=None, holdout=0, loaders=loaders), damaged)
    broken = Path(dataset.train.file(8))
    with pytest.raises(
        BadInput, match=rf"{broken.name}: not a readable image \(.*\); 1 such images, data/max_corrupt = 0"
    ) as error:
        list(source.batches(torch.tensor([[1, 8]]), torch.tensor([[[3], [4]]])))
    assert len(error.value.lines) == 1


def test_corrupt_and_missing_images_are_skipped_up_to_a_number(
    damaged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset, source = stream(photographs(images=None, holdout=0, max_corrupt=2), damaged)
    Path(dataset.train.file(9)).unlink()
    with caplog.at_level(logging.WARNING):
        (skipped,) = source.batches(torch.tensor([[8, 9, 8]]), torch.tensor([[[3], [3], [3]]]))
    (instead,) = source.batches(torch.tensor([[10]]), torch.tensor([[[3]]]))
    assert torch.equal(skipped.images, instead.images.expand(3, -1, -1, -1))
    assert skipped.index.tolist() == [8, 9, 8] and set(skipped.labels.tolist()) == {1}
    told_once = zip((8, 9), caplog.messages, strict=True)
    assert all(Path(dataset.train.file(i)).name in line for i, line in told_once)
    Path(dataset.train.file(0)).unlink()
    with pytest.raises(BadInput, match=r"No such file.*; 3 such images, data/max_corrupt = 2"):
        list(source.plain(dataset.train, 0, 1))


def test_a_class_without_a_readable_image_ends_the_trial(damaged: Path) -> None:
    dataset, source = stream(photographs(images=None, holdout=0, max_corrupt=9), damaged)
    for position in range(6, 12):
        Path(dataset.train.file(position)).write_bytes(b"no image")
    with pytest.raises(BadInput, match="nor is any other of its class"):
        list(source.batches(torch.tensor([[7]]), torch.tensor([[[3]]])))


def recipe(**settings: Any) -> Recipe:
    base = {
        "data": photographs().model_dump(mode="json"),
        "teacher": {"net": "resnet34", "weights": "unused.pth"},
        "student": {"net": "resnet18"},
        "method": {"name": "kd"},
        "epochs": 2,
        "optimizer": {"batch_size": 16, "lr": 0.01},
    }
    return Recipe.model_validate_json(json.dumps(base | settings))


def teaching(chosen: Recipe, root: Path) -> Teaching:
    dataset = data.load(chosen.data, root, False)
    torch.manual_seed(5)
    teacher = LiveTeacher(models.make("resnet34", 10), SIZE, CPU, False)
    return Teaching(chosen, dataset, teacher, CPU)


def told(row: Any) -> dict[str, Any]:
    return {k: v for k, v in row.items() if "seconds" not in k and "per_second" not in k}


@pytest.mark.slow
def test_resnet34_teaches_resnet18_and_resumed_is_uninterrupted(data_root: Path) -> None:
    whole = teaching(recipe(), data_root)
    rows = [told(row) for row in whole.epochs()]
    assert all(torch.tensor(list(row["terms"].values())).isfinite().all() for row in rows)
    first, second = teaching(recipe(), data_root), teaching(recipe(), data_root)
    again = [told(next(first.epochs()))]
    second.load_state_dict(copy.deepcopy(first.state_dict()), {})
    again += [told(row) for row in second.epochs()]
    assert again == rows and [row["epoch"] for row in rows] == [1, 2]
    assert 0 <= whole.test_accuracy() <= 100


def test_photographs_are_learnt_and_banks_know_their_images(data_root: Path) -> None:
    """A bank's row of an image moves when the image was seen, and only then."""
    settings: dict[str, Any] = {"method": {"name": "crd", "negatives": 16}, "epochs": 4}
    settings["data"] = photographs(images=40, holdout=0, area=0.5).model_dump(mode="json")
    lesson = teaching(recipe(**settings, optimizer={"batch_size": 16, "lr": 0.02}), data_root)
    bank = next(buffer for buffer in lesson.lesson.method.buffers() if buffer.shape == (40, 128))
    before = bank.clone()
    rows = list(lesson.epochs())
    seen = torch.cat([data.order(epoch, 0, 40)[:32] for epoch in (1, 2, 3, 4)]).unique()
    moved = (bank != before).any(1).nonzero().flatten()
    assert torch.equal(moved, seen)
    assert rows[-1]["terms"]["task"] < rows[0]["terms"]["task"]


STUDY: dict[str, Any] = {
    "name": "imagenet",
    "recipe": {
        "data": {"name": "imagenet", "holdout": 0.02},
        "teacher": {"net": "resnet50", "weights": "resnet50.pth"},
        "student": {"net": "MobileNetV1"},
        "method": {"name": "crd"},
        "epochs": 100,
        "optimizer": {"batch_size": 256, "lr": 0.1},
    },
}


def study(**of_data: Any) -> Study:
    changed = {**STUDY["recipe"], "data": STUDY["recipe"]["data"] | of_data}
    return Study.parse(STUDY | {"recipe": changed}, "study.yaml")


def test_a_plan_without_the_data(tmp_path: Path) -> None:
    made = plan(study(), tmp_path, False)
    assert made.images == 1_281_167 - 25_623 and made.student_parameters == 4_231_976
    assert made.bank_bytes == pytest.approx(2 * 4 * 128 * made.images, rel=0.1)
    assert made.step_seconds is made.trial_seconds is made.search_seconds is made.confirm_seconds is None
    assert made.not_measured is not None and "imagenet/train: no such folder. Expected: " in made.not_measured
    with pytest.raises(BadInput, match="elsewhere/train: no such folder"):
        plan(study(path="elsewhere"), tmp_path, False)
    with pytest.raises(BadInput, match="data/images = 9999999: there are 1281167 training images"):
        plan(study(images=9_999_999), tmp_path, False)


@pytest.mark.slow
def test_a_plan_with_data_is_measured(data_root: Path) -> None:
    of_data = {"path": "clothing", "size": SIZE, "test": "test", "holdout": 0.2, "loaders": 1}
    made = plan(study(**of_data), data_root, False)
    assert made.images == 320 and made.not_measured is None and made.trial_seconds > 0

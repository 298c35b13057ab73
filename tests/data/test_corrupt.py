"""Corrupt and missing images of a stream: named, counted, and replaced up to a number."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from support.photographs import make_source, photograph_settings

from raykd import data
from raykd.errors import UserError
from raykd.study.recipe import Recipe
from raykd.training import trial

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


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


@pytest.mark.parametrize(
    ("loaders", "decoder"), [(0, "loaders"), (1, "loaders"), (0, "device"), (1, "device")]
)
def test_a_corrupt_image_is_named(damaged: Path, loaders: int, decoder: str) -> None:
    settings = {"images": None, "holdout": 0, "loaders": loaders, "decoder": decoder}
    dataset, source = make_source(photograph_settings(**settings), damaged)
    broken = Path(dataset.train.name(8))
    with pytest.raises(
        UserError, match=rf"{broken.name}: not a readable image \(.*\); 1 such images, data/max_corrupt = 0"
    ) as error:
        list(source.batches(torch.tensor([[1, 8]]), torch.tensor([[[3], [4]]])))
    assert len(error.value.lines) == 1


@pytest.mark.parametrize("decoder", ["loaders", "device"])
def test_corrupt_and_missing_images_are_skipped_up_to_a_number(
    damaged: Path, decoder: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"images": None, "holdout": 0, "max_corrupt": 2, "decoder": decoder}
    dataset, source = make_source(photograph_settings(**settings), damaged)
    Path(dataset.train.name(9)).unlink()
    with caplog.at_level(logging.WARNING):
        (batch,) = source.batches(torch.tensor([[8, 9, 8]]), torch.tensor([[[3], [3], [3]]]))
    (substitute,) = source.batches(torch.tensor([[10]]), torch.tensor([[[3]]]))
    assert torch.equal(batch.images, substitute.images.expand(3, -1, -1, -1))
    assert batch.index.tolist() == [8, 9, 8] and set(batch.labels.tolist()) == {1}
    warnings = zip((8, 9), caplog.messages, strict=True)
    assert all(Path(dataset.train.name(i)).name in line for i, line in warnings)
    Path(dataset.train.name(0)).unlink()
    with pytest.raises(UserError, match=r"No such file.*; 3 such images, data/max_corrupt = 2"):
        list(source.evaluation_batches(dataset.train, 0, 1))


def test_a_trial_counts_on_after_it_resumes(damaged: Path, tmp_path: Path) -> None:
    """Named in the trial's folder; a state knows them, so that no allowance is had twice."""
    whole = data.load(photograph_settings(images=None, holdout=0, test="train"), damaged, False).train
    settings = photograph_settings(images=None, holdout=0, size=32, max_corrupt=1).model_dump(mode="json")
    plain = {"data": settings, "student": {"net": "resnet18"}, "method": {"name": "ce"}, "epochs": 2}
    recipe = Recipe.model_validate_json(json.dumps(plain | {"optimizer": {"batch_size": 12}})).to_dict()
    job = trial.Job(recipe, str(tmp_path / "trial"), (), str(damaged), False, 1)
    trial.run(job, lambda row: None, torch.device("cpu"))
    (line,) = json.loads((tmp_path / "trial/unreadable.json").read_text())
    assert line.startswith(whole.name(8))
    state = torch.load(tmp_path / "trial/checkpoint.pt", weights_only=True)
    assert state["unreadable"] == [line]
    torch.save(state | {"epoch": 1}, tmp_path / "trial/checkpoint.pt")
    Path(whole.name(2)).unlink()
    with pytest.raises(UserError, match=r"No such file.*; 2 such images, data/max_corrupt = 1"):
        trial.run(job, lambda row: None, torch.device("cpu"))


def test_a_class_without_a_readable_image_ends_the_trial(damaged: Path) -> None:
    dataset, source = make_source(photograph_settings(images=None, holdout=0, max_corrupt=9), damaged)
    for position in range(6, 12):
        Path(dataset.train.name(position)).write_bytes(b"no image")
    with pytest.raises(UserError, match="nor is any other of its class"):
        list(source.batches(torch.tensor([[7]]), torch.tensor([[[3]]])))

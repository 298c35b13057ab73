"""Linear probes against a loop in NumPy, and the data sets that they are made for, in their own layouts."""

import hashlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from raykd import data, models
from raykd.data import draw_view_ids, epoch_permutation
from raykd.errors import UserError
from raykd.study.recipe import Recipe
from raykd.training import student, trial
from raykd.transfer.probe import Features, Probe, measure_accuracy, train_head
from raykd.transfer.transfer import make_probe

CPU = torch.device("cpu")
STILL = ("--set", "data/padding=0", "--set", "data/flip=false")


@pytest.fixture(scope="module")
def trial_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trial's folder: one epoch of KD on digits."""
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    torch.save(models.make("resnet14", 10).state_dict(), folder / "teacher.pth")
    plain = {
        "data": {"name": "digits", "images": 100},
        "teacher": {"net": "resnet14", "weights": str(folder / "teacher.pth")},
        "student": {"net": "resnet8"},
        "method": {"name": "kd"},
        "epochs": 1,
        "precision": "float32",
    }
    recipe = Recipe.model_validate_json(json.dumps(plain)).to_dict()
    job = trial.Job(recipe, str(folder / "trial"), (str(folder / "teacher.pth"),), "", False, 1)
    trial.run(job, lambda row: None, CPU)
    return folder / "trial"


def make_features(trial_folder: Path, settings: Probe, moving: bool = False) -> Features:
    dataset = data.load(settings.data, Path("unused"), False)
    net = student.load(str(trial_folder)).net
    return Features(net, moving, dataset, settings.data.make_source(dataset, CPU), CPU)


def make_settings(**changes: Any) -> Probe:
    plain = {"data": {"name": "digits", "images": 90, "holdout": 0.0}, "epochs": 4, "seeds": 1}
    return Probe.model_validate_json(json.dumps(plain | changes))


def test_a_head_learns_as_a_loop_in_numpy_says(trial_folder: Path) -> None:
    settings = make_settings(data={"name": "digits", "images": 90, "holdout": 0.0, "padding": 0})
    features = make_features(trial_folder, settings)
    head = train_head(features, settings, seed=3)

    source = settings.data.make_source(features.dataset, CPU)
    with torch.no_grad():
        images = torch.cat([x for x, _ in source.evaluation_batches(features.dataset.train, 0, 1)])
        x = student.load(str(trial_folder)).net(images).embedding.double().numpy()
    y = features.dataset.train.labels.numpy()
    torch.manual_seed(3)
    first = torch.nn.Linear(64, 10)
    torch.nn.init.normal_(first.weight, std=0.01)
    parameters = [first.weight.detach().double().numpy().copy(), np.zeros(10)]
    speed = [np.zeros((10, 64)), np.zeros(10)]
    for epoch in range(1, 5):
        rate = 0.05 * 0.1 ** sum(epoch > part * 4 for part in (0.25, 0.5, 0.75))
        batch = epoch_permutation(epoch, 3, 90)[:64].numpy()  # one batch, the odd rest is left out
        scores = x[batch] @ parameters[0].T + parameters[1]
        wrong = np.exp(scores - scores.max(1, keepdims=True))
        wrong /= wrong.sum(1, keepdims=True)
        wrong[np.arange(64), y[batch]] -= 1
        slopes = [wrong.T @ x[batch] / 64, wrong.mean(0)]
        for i in range(2):
            speed[i] = 0.9 * speed[i] + slopes[i] + 5e-4 * parameters[i]
            parameters[i] -= rate * speed[i]
    np.testing.assert_allclose(head.weight.detach().numpy(), parameters[0], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(head.bias.detach().numpy(), parameters[1], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_statistics_of_batch_norms_are_frozen_unless_the_released_behaviour_is_asked_for(
    trial_folder: Path,
) -> None:
    settings = make_settings()
    before = {name: value.clone() for name, value in student.load(str(trial_folder)).net.state_dict().items()}
    for moving in (False, True):
        features = make_features(trial_folder, settings, moving)
        assert 0 <= measure_accuracy(features, settings, seed=1) <= 100
        after = features.net.state_dict()
        moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
        assert bool(moved) == moving and all("running" in name or "num_batches" in name for name in moved)


def test_augmented_images_are_seen_anew_in_every_epoch(trial_folder: Path) -> None:
    settings = make_settings()
    features = make_features(trial_folder, settings)
    source = settings.data.make_source(features.dataset, CPU)
    embeddings = []
    for epoch in (1, 2):
        ((embedding, labels),) = features.training_batches(epoch, 5, 64)
        positions = epoch_permutation(epoch, 5, 90)[None, :64]
        (batch,) = source.batches(positions, draw_view_ids(epoch, 5, 90, source)[positions])
        with torch.no_grad():
            expected = student.load(str(trial_folder)).net(batch.images).embedding
        torch.testing.assert_close(embedding, expected)
        assert torch.equal(labels, batch.labels)
        embeddings.append(embedding)
    assert not torch.allclose(*embeddings)


@pytest.mark.slow
def test_transfer_to_tiny_imagenet_with_its_controls(
    trial_folder: Path, verb: Any, data_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(trial_folder, tmp_path / "trial")
    few = ("--set", "data/images=400", "--set", "epochs=2", "--seeds", "2")
    words = ("--data", str(data_root), *STILL, *few)
    done = verb("transfer", "trial", "--to", "tiny-imagenet-mini", *words, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["classes"] == 200 and result["images"] == {"train": 400, "test": 2000}
    assert list(result["rows"]) == ["student", "teacher", "untrained"]
    for row in result["rows"].values():
        assert len(row["seeds"]) == 2 and row["accuracy"] == pytest.approx(np.mean(row["seeds"]))
        t_quantile = 12.7062  # of one degree of freedom
        half_width = t_quantile * abs(row["seeds"][0] - row["seeds"][1]) / 2
        assert row["interval"] == pytest.approx(half_width, rel=1e-4)
    assert result["settings"]["data"]["size"] == 32 and result["settings"]["batch_norm"] == "frozen"

    (tmp_path / "trial/provenance.json").unlink()  # nobody knows where the teacher is
    done = verb("transfer", "trial", "--to", "digits", *STILL, "--set", "epochs=1", "--seeds", "1")
    assert done.returncode == 0, done.stderr
    assert "--teacher names them" in done.stdout and "untrained" in done.stdout
    assert set(json.loads((tmp_path / "trial/transfer.json").read_text())) == {"tiny-imagenet-mini", "digits"}


def test_user_errors_of_a_transfer_are_one_line_each(trial_folder: Path, verb: Any, tmp_path: Path) -> None:
    for words, expected in (
        (("--to", "stl11"), "--to stl11: neither a data set nor a folder"),
        (("--to", "stl10"), "stl10_binary/train_X.bin: no such file. Expected"),
        (("--to", "tiny_imagenet"), "tiny-imagenet-200/train: not there. Expected"),
        (("--to", "cifar10"), "cifar-10-batches-py/data_batch_1: no such file. Expected"),
        (("--to", "digits", "--set", "batch_norm=relaesed"), "Did you mean 'released'?"),
        (("--to", "digits", "--set", "epoch=3"), "Did you mean 'epochs'?"),
    ):
        done = verb("transfer", str(trial_folder), *words, "--data", str(tmp_path))
        assert done.returncode == 2 and expected in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1
    done = verb("transfer", "nowhere", "--to", "digits")
    assert done.returncode == 2 and "nowhere: no recipe.yaml" in done.stderr


def test_a_probe_follows_the_protocol_at_the_students_size(trial_folder: Path, tmp_path: Path) -> None:
    probe = make_probe("stl10", student.load(str(trial_folder)), tmp_path, ("batch_norm=released",))
    assert (probe.epochs, probe.optimizer.batch_size, probe.optimizer.lr) == (120, 64, 0.05)
    assert [probe.schedule.scale(epoch, 120) for epoch in (30, 31, 61, 91)] == pytest.approx(
        [1, 0.1, 0.01, 1e-3]
    )
    assert (probe.optimizer.weight_decay, probe.optimizer.momentum) == (5e-4, 0.9)
    assert (probe.data.size, probe.data.holdout, probe.data.padding, probe.data.flip) == (32, 0, 4, True)


def load_photographs(data_root: Path, count: int, side: int) -> torch.Tensor:
    """[count, side, side, 3], uint8."""
    spec = data.ImageFolder(path="clothing", test="validation", train="validation", size=side, holdout=0)
    return data.load(spec, data_root, False).train.pixels[:count]


@pytest.mark.slow
def test_stl10_in_its_own_layout(data_root: Path, tmp_path: Path) -> None:
    base = tmp_path / "stl10_binary"
    base.mkdir()
    (base / "class_names.txt").write_text("airplane\nbird\ncar\n")
    images = load_photographs(data_root, 12, 96)
    labels = np.arange(12) % 3
    for part, at in (("train", slice(0, 8)), ("test", slice(8, 12))):
        column_by_column = images[at].permute(0, 3, 2, 1).contiguous().numpy()
        (base / f"{part}_X.bin").write_bytes(column_by_column.tobytes())
        (base / f"{part}_y.bin").write_bytes((labels[at] + 1).astype(np.uint8).tobytes())
    whole = data.load(data.STL10(holdout=0), tmp_path, False)
    assert torch.equal(whole.train.pixels, images[:8]) and torch.equal(whole.test.pixels, images[8:])
    assert whole.test.labels.tolist() == [2, 0, 1, 2] and whole.classes == ("airplane", "bird", "car")
    small = data.load(data.STL10(holdout=0, size=32), tmp_path, False)
    assert small.train.pixels.shape == (8, 32, 32, 3) and small.size == 32
    (base / "test_y.bin").write_bytes(bytes([1, 2, 3, 4]))
    with pytest.raises(UserError, match=r"test_y\.bin: damaged \(labels should be 1 to 3\)"):
        data.load(data.STL10(), tmp_path, False)
    (base / "train_X.bin").write_bytes(b"short")
    with pytest.raises(UserError, match=r"train_X\.bin: damaged \(5 bytes; 8 labels call for 221,184\)"):
        data.load(data.STL10(), tmp_path, False)


@pytest.mark.slow
def test_cifar10_in_its_own_layout(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of its form from real photographs; their MD5s stand in for the official ones."""
    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()
    images = load_photographs(data_root, 60, 32)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    md5s = {}
    for place, name in enumerate(names):
        rows = images[10 * place : 10 * place + 10].permute(0, 3, 1, 2).reshape(10, -1).numpy()
        (base / name).write_bytes(pickle.dumps({"data": rows, "labels": list(range(10))}))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}))
    for name in (*names, "batches.meta"):
        md5s[name] = hashlib.md5((base / name).read_bytes()).hexdigest()
    official = torchvision.datasets.CIFAR10
    with pytest.raises(UserError, match=r"damaged \(.* bytes, wrong MD5\)"):
        data.load(data.CIFAR10(), tmp_path, False)
    monkeypatch.setattr(official, "train_list", [[name, md5s[name]] for name in names[:5]])
    monkeypatch.setattr(official, "test_list", [["test_batch", md5s["test_batch"]]])
    monkeypatch.setattr(official, "meta", official.meta | {"md5": md5s["batches.meta"]})
    whole = data.load(data.CIFAR10(holdout=0), tmp_path, False)
    assert torch.equal(whole.train.pixels, images[:50]) and torch.equal(whole.test.pixels, images[50:])
    assert whole.classes[3] == "class 3" and whole.test.labels.tolist() == list(range(10))


def test_tiny_imagenet_in_its_own_layout(data_root: Path, tmp_path: Path) -> None:
    mini, base, plain = data_root / "tiny-imagenet-mini", tmp_path / "tiny-imagenet-200", tmp_path / "plain"
    names = sorted(folder.name for folder in (mini / "train").iterdir())[:3]
    (base / "val/images").mkdir(parents=True)
    lines = []
    for name in names:
        for part in ("train", "val"):
            shutil.copytree(mini / part / name, plain / part / name)
        shutil.copytree(mini / "train" / name, base / "train" / name / "images")
        (base / "train" / name / f"{name}_boxes.txt").write_text("n0_0.JPEG\t0\t0\t62\t62\n")
        for file in sorted((mini / "val" / name).iterdir()):
            shutil.copy(file, base / "val/images")
            lines.append(f"{file.name}\t{name}\t0\t32\t44\t62")
    (base / "val/val_annotations.txt").write_text("\n".join(reversed(lines)) + "\n")
    official = data.load(data.TinyImageNet(holdout=0), tmp_path, False)
    folders = data.load(data.ImageFolder(path="plain", holdout=0), tmp_path, False)
    assert official.classes == folders.classes == tuple(names)
    assert torch.equal(official.train.pixels, folders.train.pixels)
    assert torch.equal(official.test.labels, folders.test.labels)
    ours, theirs = (
        official.test.pixels.flatten(1).float().mean(1),
        folders.test.pixels.flatten(1).float().mean(1),
    )
    assert torch.equal(ours.sort().values, theirs.sort().values)
    (base / "val/val_annotations.txt").write_text("val_0.JPEG\tn00000000\t0\t0\t1\t1\n")
    with pytest.raises(UserError, match=r"line 1: .*no such class among train's"):
        data.load(data.TinyImageNet(), tmp_path, False)

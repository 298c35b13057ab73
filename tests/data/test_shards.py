"""Shards of a folder of photographs: the same images at the same positions, on any storage."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from fsspec.implementations.local import LocalFileSystem
from pyarrow.fs import FSSpecHandler, PyFileSystem
from support.photographs import make_source, photograph_settings

from raykd import data
from raykd.data import shard_writer, shards
from raykd.errors import UserError
from raykd.paths import open_filesystem

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def sharded(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clothing set in shards so small that there are several of each part."""
    out = tmp_path_factory.mktemp("shards") / "clothing"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_writer, "SHARD_BYTES", 2 * 2**20)
        patch.setattr(shard_writer, "ROW_GROUP_BYTES", 2**19)
        progress = list(shard_writer.write(str(data_root / "clothing"), str(out)))
    assert (
        progress[-1] == ("validation", progress[-1][2], progress[-1][2])
        and len(list((out / "data").glob("train-*-of-*.parquet"))) > 2
    )
    return out


def test_every_image_lies_where_the_folder_has_it(data_root: Path, sharded: Path) -> None:
    settings: dict[str, Any] = {"images": None, "holdout": 0}
    files, _ = make_source(photograph_settings(**settings), data_root)
    shard, _ = make_source(photograph_settings(**settings), sharded.parent)
    assert shard.classes == files.classes and torch.equal(shard.train.labels, files.train.labels)
    for part, other in ((files.train, shard.train), (files.test, shard.test)):
        assert all(part.read(k) == other.read(k) for k in range(len(part.labels)))
        assert Path(part.name(7)).name == Path(other.name(7)).name


def test_shards_are_parquet_that_any_reader_streams(data_root: Path, sharded: Path) -> None:
    dataset = data.load(photograph_settings(images=None, holdout=0), data_root, False)
    files, written = dataset.train, []
    position_by_path = {
        f"{Path(files.name(k)).relative_to(data_root / 'clothing/train')}": k
        for k in range(len(files.labels))
    }
    for path in sorted((sharded / "data").glob("train-*")):
        table = pq.read_table(path)
        assert pq.ParquetFile(path).num_row_groups > 1 and table.column_names == ["image", "label"]
        features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
        assert features["image"] == {"_type": "Image"}
        assert features["label"] == {"names": list(dataset.classes), "_type": "ClassLabel"}
        for row in table.to_pylist():
            position = position_by_path[row["image"]["path"]]
            assert row["image"]["bytes"] == files.read(position) and row["label"] == files.labels[position]
            written.append(position)
    assert sorted(written) == list(range(len(files.labels))) and written != sorted(written)


def test_a_study_on_shards_is_the_study_on_the_folder(data_root: Path, sharded: Path) -> None:
    """Held-out images, order, views and pixels; from processes too, and from a URI."""
    positions, views = torch.tensor([[5, 40], [17, 2]]), torch.tensor([[[1], [2]], [[3], [4]]])
    dataset, source = make_source(photograph_settings(), data_root)
    expected = list(source.batches(positions, views))
    for settings in ({"path": "clothing"}, {"path": sharded.as_uri(), "loaders": 1}):
        other, ours = make_source(photograph_settings(**settings), sharded.parent)
        assert torch.equal(other.heldout.labels, dataset.heldout.labels)
        for a, b in zip(ours.batches(positions, views), expected, strict=True):
            assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)


def test_a_lost_shard_is_named(data_root: Path, sharded: Path, tmp_path: Path) -> None:
    shutil.copytree(sharded, tmp_path / "clothing")
    dataset, source = make_source(photograph_settings(), tmp_path)
    (tmp_path / "clothing" / dataset.train.file(3)).unlink()
    with pytest.raises(
        UserError, match=r"data/train-0000.-of-0000.\.parquet: \S+/\S+: not a readable image \("
    ):
        list(source.batches(torch.tensor([[3]]), torch.tensor([[[1]]])))
    (tmp_path / "clothing/_index/train.parquet").unlink()
    with pytest.raises(UserError, match=r"clothing/data: holds \d of the \d files of train$"):
        make_source(photograph_settings(), tmp_path)
    shutil.rmtree(tmp_path / "clothing/data")
    with pytest.raises(
        UserError, match=r"file://.*: no Parquet files of images\. Expected: data/train-00000"
    ):
        make_source(photograph_settings(path=(tmp_path / "clothing").as_uri()), tmp_path)


@pytest.fixture
def few(data_root: Path, tmp_path: Path) -> Path:
    """Two parts of two classes of three photographs each."""
    for part in ("train", "val"):
        for name in ("dress", "hat"):
            (tmp_path / "few" / part / name).mkdir(parents=True)
            for file in sorted((data_root / "clothing/train" / name).iterdir())[:3]:
                shutil.copy(file, tmp_path / "few" / part / name)
    return tmp_path / "few"


def test_shards_stream_from_an_object_store(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An S3-compatible server on loopback; a lost object is named like a lost file."""
    from moto.server import ThreadedMotoServer

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "raykd")
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    uri = f"s3://data/few?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    try:
        list(shard_writer.write(str(few), f"{uri}&allow_bucket_creation=true"))
        settings: dict[str, Any] = {"images": None, "holdout": 0, "test": "val"}
        local, source = make_source(photograph_settings(**settings, path=str(few)), few)
        remote_dataset, remote = make_source(photograph_settings(**settings, path=uri), few)
        assert remote_dataset.train.remote and not local.train.remote
        positions, views = torch.tensor([[5, 0, 3]]), torch.tensor([[[1], [2], [3]]])
        (ours,), (expected,) = remote.batches(positions, views), source.batches(positions, views)
        assert torch.equal(ours.images, expected.images)
        storage, root = open_filesystem(uri)
        storage.delete_file(f"{root}/data/train-00000-of-00001.parquet")
        shards.open_shard.cache_clear()
        with pytest.raises(UserError, match=r"data/few/data/train-\S+: \S+: not a readable image"):
            list(remote.batches(positions, views))
    finally:
        moto.stop()


class DamagingFileSystem(LocalFileSystem):
    """A disk on which one file's bytes are not kept as they were written."""

    protocol = "damaging"

    def __init__(self, name: str, damage: Callable[[bytes], bytes]) -> None:
        super().__init__(skip_instance_cache=True)
        self._name, self._damage = name, damage

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        file = super()._open(path, mode, **options)
        if "w" in mode and path.endswith(self._name):
            write = file.write
            file.write = lambda content: (write(self._damage(bytes(content))), len(content))[1]
        return file


@pytest.mark.parametrize("name", ["data/train-00000-of-00001.parquet", "_index/train.parquet"])
@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:-9], lambda content: content[:64] + b"?" + content[65:]],
    ids=["cut", "changed"],
)
def test_shards_are_read_back(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: Callable[[bytes], bytes]
) -> None:
    """What is not what was written is one line, and no part that anybody would train on."""
    disk = PyFileSystem(FSSpecHandler(DamagingFileSystem(name, damage)))
    monkeypatch.setattr(shard_writer, "open_filesystem", lambda base, place: (disk, base))
    with pytest.raises(UserError, match=rf"out/{name}: read back, its 6 images are not what was w") as error:
        list(shard_writer.write(str(few), str(tmp_path / "out")))
    assert len(error.value.lines) == 1 and shards.list_parts(str(tmp_path / "out")) == []


def test_the_verbs_of_data(few: Path, verb: Callable[..., Any]) -> None:
    assert verb("data", "shard", "few", "out").stdout.splitlines() == [
        "out/train: 6 of 6 images",
        "out/val: 6 of 6 images",
    ]
    rows = [{"part": part, "form": "shards", "classes": 2, "images": 6} for part in ("train", "val")]
    assert json.loads(verb("data", "show", "out", "--json").stdout) == rows
    files = {"form": "files", "passed_over": 0}
    assert json.loads(verb("data", "show", "few", "--json").stdout) == [row | files for row in rows]
    assert "shards" in verb("data", "show", "out").stdout
    again = verb("data", "shard", "few", "out")
    assert (again.returncode, again.stderr) == (2, "data: out: holds shards of train, val already\n")
    nothing = verb("data", "show", "nowhere")
    assert (
        nothing.returncode == 2
        and "nowhere: holds no images. Expected: nowhere/PART/CLASS/" in nothing.stderr
    )
    images = {row["name"]: row["images"] for row in json.loads(verb("data", "list", "--json").stdout)}
    expected = {"cifar100": 50_000, "digits": 1437, "folder": None, "imagenet": 1_281_167}
    assert expected.items() <= images.items()
    assert "imagenet" in verb("data", "list").stdout

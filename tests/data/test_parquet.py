"""Hugging Face's Parquet layout, read as it is and written anew as shards."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.hf_parquet import encode_png, write_images

from raykd import data
from raykd.data import parquet, shard_writer
from raykd.data.pictures import decode
from raykd.errors import UserError

CLASSES = ["cat", "dog", "emu"]
SHADES, LABELS = [10, 20, 30, 40, 50], [0, 1, 2, 1, 0]
CPU = torch.device("cpu")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Five images of three classes to train on, in two files of row groups of two; three to test on."""
    write_images(tmp_path / "hf/data/train-00000-of-00002.parquet", SHADES[:3], CLASSES, label=LABELS[:3])
    write_images(tmp_path / "hf/data/train-00001-of-00002.parquet", SHADES[3:], CLASSES, label=LABELS[3:])
    write_images(
        tmp_path / "hf/data/validation-00000-of-00001.parquet", [60, 70, 80], CLASSES, label=[2, 1, 0]
    )
    return tmp_path / "hf"


def load(
    path: Path | str, name: str = "folder", test: str = "validation", **settings: Any
) -> data.Dataset[Any]:
    spec = {"folder": data.ImageFolder, "imagenet": data.ImageNet}[name]
    return data.load(spec(path=str(path), size=12, holdout=0, test=test, **settings), Path(), False)


def list_shades(dataset: data.Dataset[Any]) -> list[int]:
    return [int(decode(dataset.train.read(k))[0, 0, 0]) for k in range(len(dataset.train.labels))]


def test_it_is_read_as_it_is(base: Path) -> None:
    """In memory and streamed, from a path and from a URI."""
    pixels = load(base)
    assert pixels.classes == tuple(CLASSES) and pixels.train.labels.tolist() == LABELS
    assert pixels.train.pixels[:, 0, 0, 0].tolist() == SHADES and pixels.test.labels.tolist() == [2, 1, 0]
    for path in (base, base.as_uri()):
        streamed = load(path, "imagenet")
        assert streamed.classes == tuple(CLASSES) and streamed.train.labels.tolist() == LABELS
        assert [streamed.train.read(k) for k in range(5)] == [encode_png(shade) for shade in SHADES]
        assert streamed.train.read_many([4, 0]) == [encode_png(50), encode_png(10)]


@pytest.mark.slow
def test_loaders_read_it_in_any_order(base: Path) -> None:
    spec = data.ImageNet(path=str(base), size=12, test="validation", holdout=0, area=1, flip=False, loaders=1)
    dataset = data.load(spec, Path(), False)
    source = spec.make_source(dataset, CPU)
    (batch,) = source.batches(torch.tensor([[3, 0, 4]]), torch.tensor([[[1], [2], [3]]]))
    scale = 255 * torch.tensor(spec.std)
    shades = batch.images[:, :, 5, 5] * scale + 255 * torch.tensor(spec.mean)
    assert shades.round().int().tolist() == [[40] * 3, [10] * 3, [50] * 3]
    assert batch.labels.tolist() == [1, 0, 0]


@pytest.mark.parametrize("cache_bytes", [1, 2**20])
def test_a_row_group_is_read_once_while_it_is_kept(
    base: Path, monkeypatch: pytest.MonkeyPatch, cache_bytes: int
) -> None:
    monkeypatch.setattr(parquet, "CACHE_BYTES", cache_bytes)
    read, reads = pq.ParquetFile.read_row_group, []

    def count_reads(file: Any, number: int, **options: Any) -> Any:
        reads.append(number)
        return read(file, number, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", count_reads)
    train = load(base, "imagenet").train
    for position in (0, 1, 2, 0, 3, 4, 0):
        assert train.read(position) == encode_png(SHADES[position])
    assert len(reads) == (5 if cache_bytes == 1 else 3)


def test_the_columns_of_cifar(tmp_path: Path) -> None:
    for part in ("train", "test"):
        columns = {"fine_label": [2, 0, 1], "coarse_label": [1, 0, 0]}
        write_images(
            tmp_path / f"cifar100/{part}-00000-of-00001.parquet", [10, 20, 30], CLASSES, "img", **columns
        )
    assert load(tmp_path, test="test").train.labels.tolist() == [2, 0, 1]
    assert load(tmp_path / "cifar100", test="test", label="coarse_label").train.labels.tolist() == [1, 0, 0]


def test_other_names_of_files_and_classes_without_names(tmp_path: Path) -> None:
    write_images(tmp_path / "train/0000.parquet", [10, 20], label=[0, 1])
    write_images(tmp_path / "train/0001.parquet", [30], label=[1])
    write_images(tmp_path / "test.parquet", [40, 50], label=[1, 0])
    dataset = load(tmp_path, test="test")
    assert dataset.classes == ("0", "1") and dataset.train.labels.tolist() == [0, 1, 1]


def test_shards_of_it_have_the_same_images_at_the_same_positions(
    base: Path, monkeypatch: pytest.MonkeyPatch, verb: Callable[..., Any]
) -> None:
    monkeypatch.setattr(shard_writer, "SHARD_BYTES", parquet.open_part(str(base), "train")[1].num_bytes // 2)
    out = base.parent / "out"
    assert list(shard_writer.write(str(base), str(out)))[-1] == ("validation", 3, 3)
    files = sorted(path.relative_to(out) for path in out.rglob("*.parquet"))
    assert [str(file) for file in files] == [
        *(f"_index/{part}.parquet" for part in ("train", "validation")),
        *(f"data/train-0000{k}-of-00002.parquet" for k in range(2)),
        "data/validation-00000-of-00001.parquet",
    ]
    ours, source = load(out, "imagenet"), load(base, "imagenet")
    assert ours.classes == source.classes and torch.equal(ours.train.labels, source.train.labels)
    assert list_shades(ours) == SHADES and ours.train.name(2).endswith("train-00000-of-00002.parquet: 30.png")
    (out / "_index/train.parquet").unlink()  # without its index, a file like anybody's
    assert list_shades(load(out, "imagenet")) == SHADES
    rows = [{"part": "train", "images": 5}, {"part": "validation", "images": 3}]
    shown = json.loads(verb("data", "show", str(base), "--json").stdout)
    assert shown == [{"form": "parquet", "classes": 3} | row for row in rows]
    again = verb("data", "shard", str(base), str(base.parent))
    assert again.returncode == 2 and "holds the source" in again.stderr


def write_table(path: Path, **columns: pa.Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


IMAGE = pa.array([{"bytes": encode_png(9), "path": "9.png"}])


@pytest.mark.parametrize(
    ("columns", "settings", "line"),
    [
        (
            {"jpeg": pa.array([b"?"])},
            {},
            r"no column of images \(image: struct<bytes, path> or img.*are: jpeg",
        ),
        ({"image": pa.array([b"?"])}, {}, "no column of images"),
        (
            {"image": IMAGE, "animal": pa.array([0])},
            {},
            r"no column of labels \(label, fine.*are: image, animal",
        ),
        (
            {"image": IMAGE, "animal": pa.array([0])},
            {"label": "anmal"},
            "data/label = anmal: .* mean 'animal'",
        ),
        ({"image": IMAGE, "label": pa.array(["cat"])}, {}, "label is of type string, expected integers"),
        ({"image": IMAGE, "label": pa.array([-1])}, {}, "the image in row 0 has no label"),
        ({"image": IMAGE, "label": pa.array([None], pa.int64())}, {}, "the image in row 0 has no label"),
        ({"image": IMAGE[:0], "label": pa.array([], pa.int64())}, {}, "train: no images"),
        (
            {"image": IMAGE, "label": pa.array([0])},
            {"test": "tst"},
            r"data/test = tst: no such part\. Did .* 'test'",
        ),
        (
            {"image": IMAGE, "label": pa.array([0])},
            {"test": "x"},
            r"data/test = x: .* There are: test, train",
        ),
    ],
)
def test_what_is_not_the_layout_is_one_line(
    tmp_path: Path, columns: dict[str, pa.Array], settings: dict[str, Any], line: str
) -> None:
    write_table(tmp_path / "train.parquet", **columns)
    write_images(tmp_path / "test.parquet", [40], label=[0])
    with pytest.raises(UserError, match=f"^data: .*{line}") as error:
        load(tmp_path, **({"test": "test"} | settings))
    assert len(error.value.lines) == 1


def test_damaged_sets_are_one_line(base: Path) -> None:
    write_images(base / "validation.parquet", [1], CLASSES, label=[0])
    with pytest.raises(UserError, match=r"hf: validation lies in \['\.', 'data'\]: name one folder's path"):
        load(base)
    (base / "validation.parquet").rename(base / "data/validation-00000-of-00001.parquet")
    write_images(base / "data/train-00001-of-00002.parquet", [40], ["cat", "dog"], label=[1])
    with pytest.raises(UserError, match="the files of train differ in their columns or classes"):
        load(base)
    (base / "data/train-00000-of-00002.parquet").write_bytes(b"no Parquet file")
    with pytest.raises(UserError, match=r"train-00000-of-00002\.parquet: not a readable Parquet file \("):
        load(base)
    (base / "data/train-00000-of-00002.parquet").unlink()
    with pytest.raises(UserError, match="hf/data: holds 1 of the 2 files of train"):
        load(base)


def test_an_image_without_bytes_is_named(tmp_path: Path) -> None:
    image = pa.array([{"bytes": None, "path": "nowhere.png"}], IMAGE.type)
    write_table(tmp_path / "train.parquet", image=image, label=pa.array([0]))
    write_images(tmp_path / "test.parquet", [40], label=[0])
    with pytest.raises(
        UserError, match=r"train\.parquet: row 0 of row group 0: not a readable image \(no bytes"
    ):
        load(tmp_path, test="test")

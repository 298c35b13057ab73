"""Images per second of the loaders, beside torchvision's ImageFolder and DataLoader on the same cores.

    python tests/benchmarks/loader.py [FOLDER [SIZE]]

FOLDER: train/CLASS/*.jpg, by default the clothing photographs under the data root. All read the same images
in shuffled batches, cropped to SIZE and flipped at random, with the same number of processes; measured in
turns, round after round, the first not counted; the median counts, and ratios are to ImageFolder in the same
round. Pixels are handed over as they are trained on: float32, normalised, channels_last.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torchvision
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from raykd import data
from raykd.data import shard_writer
from raykd.store.provenance import record_provenance

ROUNDS, BATCH, MEAN, STD = 7, 32, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def image_folder_batches(folder: Path, size: int, loaders: int, epoch: int) -> Iterator[Tensor]:
    """What most training scripts do."""
    steps = [
        v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip(), v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD),
    ]  # fmt: skip
    images = torchvision.datasets.ImageFolder(str(folder), v2.Compose(steps))
    generator = torch.Generator().manual_seed(epoch)
    for batch, _ in DataLoader(
        images, BATCH, shuffle=True, num_workers=loaders, drop_last=True, generator=generator,
        multiprocessing_context="forkserver" if loaders else None,
    ):  # fmt: skip
        yield batch.contiguous(memory_format=torch.channels_last)


def raykd_batches(spec: data.ImageNet, root: Path, epoch: int) -> Iterator[Tensor]:
    dataset = data.load(spec, root, False)
    source, count = spec.make_source(dataset, torch.device("cpu")), len(dataset.train.labels)
    positions = data.epoch_permutation(epoch, 0, count)[: count // BATCH * BATCH].view(-1, BATCH)
    for batch in source.batches(positions, data.draw_view_ids(epoch, 0, count, source)[positions]):
        yield batch.images


def measure_speed(batches: Iterator[Tensor]) -> float:
    """Images per second from the first batch on: starting processes is not counted."""
    num_images, began = 0, 0.0
    for batch in batches:
        if began:
            num_images += len(batch)
        else:
            began = time.perf_counter()
    return num_images / (time.perf_counter() - began)


def main(folder: str = "", size: str = "128") -> None:
    torch.set_num_threads(1)
    base = Path(folder) if folder else data.default_root() / "clothing"
    provenance = record_provenance()
    place = f"{provenance['hardware']}, commit {provenance['commit']}"
    print(f"{time.strftime('%F')}, {place}, n = {ROUNDS} rounds,")
    with tempfile.TemporaryDirectory() as out:
        *_, (_, _, count) = (step for step in shard_writer.write(str(base), out) if step[0] == "train")
        print(f"{count} photographs, crops of {size}, batches of {BATCH}\n")
        print("| processes | loader | images/s | of ImageFolder's (smallest to largest) |\n|---|---|---|---|")
        for loaders in (0, 2):
            print_speeds(base, out, int(size), loaders)


def print_speeds(base: Path, out: str, size: int, loaders: int) -> None:
    def make_loader(path: str, decoder: str) -> Callable[[int], Iterator[Tensor]]:
        spec = data.ImageNet(
            path=path, test="test", size=size, holdout=0, loaders=loaders, decoder=decoder
        )  # fmt: skip
        return lambda epoch: raykd_batches(spec, Path(), epoch)

    loaders_by_name = {
        "torchvision.datasets.ImageFolder": lambda epoch: image_folder_batches(
            base / "train", size, loaders, epoch
        ),
        "raykd, folder": make_loader(str(base), "loaders"),
        "raykd, shards": make_loader(out, "loaders"),
        "raykd, shards, decoded by the device (CPU)": make_loader(out, "device"),
    }
    rounds = [
        {name: measure_speed(loader(epoch)) for name, loader in loaders_by_name.items()}
        for epoch in range(ROUNDS + 1)
    ][1:]
    for name in loaders_by_name:
        ratios = sorted(one[name] / one["torchvision.datasets.ImageFolder"] for one in rounds)
        rate = statistics.median(one[name] for one in rounds)
        span = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"| {loaders} | {name} | {rate:.0f} | {span} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

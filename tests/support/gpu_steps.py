"""Steps of every kind on fake CUDA tensors: a process of its own that prints a line for each.

    python -m support.gpu_steps FOLDER [NAME ...]     # NAME: as it is printed; none: all

A line is JSON: {"name": "bfloat16 kd", "launches": 359, "error": ""}. The folder is for files.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image
from support.fake_cuda import CUDA, KEPT, MEMORY, FakeCuda, make_on_gpu
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from raykd import data, methods, models
from raykd.data import Dataset
from raykd.data.in_memory import Pixels
from raykd.driver import trainables
from raykd.study.recipe import Recipe
from raykd.teachers.cached import CachedTeacher, add_cache
from raykd.teachers.ensemble import EnsembleTeacher
from raykd.teachers.teacher import LiveTeacher
from raykd.training import step as step_module
from raykd.training.graphs import GRAPH, WARM_UP, Graphs
from raykd.training.trainer import Trainer
from raykd.transfer.probe import Features, Probe, train_head

SMALL = ("resnet8", "resnet8")
WIDE = ("resnet8x4", "resnet8x4")
PAIRS = (("resnet32x4", "resnet8x4"), ("resnet56", "resnet20"), ("wrn_40_2", "wrn_16_2"))
CLASSES = 100
GATHERING = ("crd", "mcl", "msdcrd", "pckd", "reviewkd", "sskd", "wcord")  # methods with other ranks' rows


def make_recipe(method: str, nets: tuple[str, str] = SMALL, **settings: Any) -> Recipe:
    students, teacher = methods.get_class(method).students, {"net": nets[0], "weights": "none"}
    plain = {
        "data": {
            "name": "cifar100",
            "holdout": 0.0,
            "padding": 0,
            "rotations": 4 if method == "sskd" else 1,
        },
        **({"teachers": [teacher, teacher]} if students == "members" else {"teacher": teacher}),
        "student": {"net": nets[1], "copies": 2 if students == "peers" else 1},
        "method": {"name": method},
        "precision": "bfloat16",
    }
    return Recipe.model_validate_json(json.dumps(plain | settings))


def make_dataset(images: int = 1_280) -> Dataset[Any]:
    whole = Pixels(torch.zeros(images, 32, 32, 3, dtype=torch.uint8), torch.arange(images) % CLASSES)
    train, test = whole.take(torch.arange(images)), whole.take(torch.arange(min(images, 200)))
    names = tuple(str(label) for label in range(CLASSES))
    return Dataset(names, 32, train, test, test, (0.5,) * 3, (0.5,) * 3)


@cache
def make_teacher(net: str, classes: int, bf16: bool) -> LiveTeacher:
    """The same for all who ask."""
    return LiveTeacher(models.make(net, classes), 32, CUDA, bf16)


def add_members_on_gpu(add_members: Callable[[nn.Module, int], None], net: nn.Module, members: int) -> None:
    """Beside the net's weights, which are there already."""
    with CUDA:
        add_members(net, members)


class Recording:
    """In a CUDA graph's place: nothing more is started once it is recorded."""

    def capture(self, function: Callable[[], Any]) -> Any:
        return function()

    def replay(self) -> None:
        pass


def make_trainer(
    recipe: Recipe, dataset: Dataset[Any], folder: Path | None = None, graphs: Graphs | None = None
) -> Trainer:
    """With a teacher's cache in a folder, if there is one."""
    name = recipe.list_teachers()[0].net
    make = make_teacher if graphs is None else make_teacher.__wrapped__  # whose forward pass is wrapped
    teacher: Any = make(name, len(dataset.classes), recipe.precision == "bfloat16")
    if recipe.teachers:
        teacher = EnsembleTeacher([teacher, teacher], [1.0, 1.0])
    if folder is not None:
        os.environ["RAYKD_CACHE"] = str(folder)
        teacher = add_cache(teacher, recipe.data.index_views(dataset), 1.0, CUDA)
        assert isinstance(teacher, CachedTeacher)
    trainer = Trainer(recipe, dataset, teacher, CUDA, graphs=graphs)
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    trainer.distiller.train()
    KEPT.append(trainer)
    return trainer


def take_steps(gpu: FakeCuda, trainer: Trainer) -> int:
    """Two steps: of the first epoch, in which what is made once may wait, and of the last; the launches."""
    batches = trainer.get_batches(1)
    trainer.train_step(1, 0, batches)
    gpu.counts.clear()
    with gpu.refuse_waits():
        trainer.train_step(trainer.recipe.epochs, 1, batches)
    launches = gpu.launches
    trainer.step.take_teacher_times()
    return launches


def step_of(recipe: Recipe, dataset: Dataset[Any], gpu: FakeCuda, folder: Path) -> int:
    return take_steps(gpu, make_trainer(recipe, dataset))


def replayed_step(recipe: Recipe, dataset: Dataset[Any], gpu: FakeCuda, folder: Path) -> int:
    """What is started beside the graphs."""
    graphs = Graphs(Recording)
    trainer = make_trainer(recipe, dataset, graphs=graphs)
    for _ in range(WARM_UP):
        trainer.train_step(1, 0, trainer.get_batches(1))
    launches = take_steps(gpu, trainer)
    assert {*graphs.list_levels().values()} == {GRAPH}, graphs.list_levels()
    return launches


def step_with_table(recipe: Recipe, gpu: FakeCuda, folder: Path) -> int:
    """The same batches twice, missing and found, and, of small nets, other views; launches of the second."""
    trainer = make_trainer(recipe, make_dataset(300), folder)
    take_steps(gpu, trainer)
    launches = take_steps(gpu, trainer)  # the first ones were written when the next ones were asked for
    stats = trainer.teacher.cache_stats
    assert (stats.hits, stats.misses) == (128, 128), stats
    if recipe.student.net != SMALL[1]:
        return launches
    others = make_recipe(recipe.method.name, seed=1).with_settings({"student": {"net": "resnet8"}})
    trainer.recipe = others  # other views of the same images
    take_steps(gpu, trainer)
    return launches


def step_of_streams(decoder: str, gpu: FakeCuda, folder: Path) -> int:
    for part in ("train", "val"):
        for label in range(2):
            (folder / "images" / part / str(label)).mkdir(parents=True, exist_ok=True)
            for image in range(8):
                place = folder / "images" / part / str(label) / f"{image}.jpg"
                Image.new("RGB", (40, 50), (image * 9, label, 7)).save(place)
    settings = {
        "name": "imagenet", "path": "images", "size": 32, "holdout": 0.0, "loaders": 0, "decoder": decoder,
    }  # fmt: skip
    recipe = make_recipe("dcd", data=settings, optimizer={"batch_size": 4})
    trainer = make_trainer(recipe, data.load(recipe.data, folder, False))
    launches = take_steps(gpu, trainer)
    trainer.measure_test_metrics()
    return launches


def whole_training(gpu: FakeCuda, folder: Path) -> int:
    """Epochs, guard, EMA, evaluation, a state saved and loaded."""
    recipe = make_recipe("crd", epochs=2, optimizer={"batch_size": 64, "accumulate": 2})
    dataset = make_dataset(256)
    first, second = (make_trainer(recipe, dataset) for _ in range(2))
    run = first.run()
    assert next(run)["epoch"] == 1
    second.load_state_dict(first.state_dict(), first.large_banks())
    assert [row["epoch"] for row in second.run()] == [2]
    second.measure_test_metrics()
    return take_steps(gpu, first)


def transfer(gpu: FakeCuda, folder: Path) -> int:
    dataset = make_dataset(200)
    settings = Probe.model_validate_json('{"data": {"name": "cifar100", "holdout": 0.0}, "epochs": 1}')
    net, source = models.make("resnet8", CLASSES), settings.data.make_source(dataset, CUDA)
    KEPT.append((train_head(Features(net, True, dataset, source, CUDA), settings, 1), net))
    return gpu.launches


class Alone(nn.Module):
    """In DistributedDataParallel's place, whose reducer asks the driver for streams."""

    def __init__(self, module: nn.Module, **settings: Any) -> None:
        super().__init__()
        assert settings["gradient_as_bucket_view"] and not settings["forward_sync_buffers"]
        self.module = module

    def forward(self, *args: Any) -> Any:
        return self.module(*args)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        yield


def step_of_two_ranks(
    method: str, dataset: Dataset[Any], gpu: FakeCuda, folder: Path, accumulate: int = 1
) -> int:
    if not dist.is_initialized():
        step_module.DistributedDataParallel = Alone  # type: ignore[misc]
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    batch_norm = "synced" if method == GATHERING[0] else "local"
    optimizer = {"accumulate": accumulate}
    recipe = make_recipe(method, batch_norm=batch_norm, precision="float32", optimizer=optimizer)
    return take_steps(gpu, make_trainer(recipe, dataset))


def accumulate_on_two_ranks(dataset: Dataset[Any], gpu: FakeCuda, folder: Path) -> int:
    """The ranks agree on a loss that is not finite once a step: DistributedDataParallel does the rest."""
    launches = step_of_two_ranks("kd", dataset, gpu, folder, accumulate=2)
    num_reduced = gpu.counts["c10d.allreduce_"]
    assert num_reduced == 1, num_reduced
    return launches


def share_gpu(gpu: FakeCuda, folder: Path) -> int:
    """A process that trains two trials, one after another, on a quarter of a GPU."""
    for _ in range(2):
        with trainables.keep_to_share(0.25):
            assert MEMORY[-1] == 0.25
    assert MEMORY[-4:] == [0.25, "emptied"] * 2, MEMORY
    with trainables.keep_to_share(1.0):
        assert MEMORY[-1] == "emptied"
    return 0


def list_scenarios(dataset: Dataset[Any]) -> dict[str, Callable[[FakeCuda, Path], int]]:
    """What there is by name; the ranks last, as the process is one of two from then on."""
    step = partial(partial, step_of)
    scenarios: dict[str, Any] = {}
    for name in methods.names():
        scenarios[f"bfloat16 {name}"] = step(make_recipe(name, WIDE), dataset)
        scenarios[f"float32 {name}"] = step(make_recipe(name, precision="float32"), dataset)
    for pair in PAIRS:
        recipe = make_recipe("kd", pair)
        scenarios[f"live {' '.join(pair)}"] = step(recipe, dataset)
        scenarios[f"table {' '.join(pair)}"] = partial(step_with_table, recipe)
    scenarios["table crd"] = partial(step_with_table, make_recipe("crd"))
    scenarios["plus_kd"] = step(make_recipe("crd", plus_kd={"weight": 1.0}), dataset)
    for name, settings in (("kd", {}), ("accumulate", {"optimizer": {"accumulate": 2}})):
        scenarios[f"graphs {name}"] = partial(replayed_step, make_recipe("kd", PAIRS[0], **settings), dataset)
    scenarios["accumulate"] = step(make_recipe("kd", optimizer={"accumulate": 2}), dataset)
    for decoder in ("loaders", "device"):
        scenarios[f"stream {decoder}"] = partial(step_of_streams, decoder)
    scenarios |= {"training": whole_training, "transfer": transfer, "shared": share_gpu}
    scenarios["ranks that accumulate"] = partial(accumulate_on_two_ranks, dataset)
    return scenarios | {f"ranks {name}": partial(step_of_two_ranks, name, dataset) for name in GATHERING}


def main(folder: str, *names: str) -> None:
    torch.set_num_threads(1)
    scenarios = list_scenarios(make_dataset())
    with FakeCuda() as gpu:
        models.make = partial(make_on_gpu, gpu, models.make)
        models.add_members = partial(add_members_on_gpu, models.add_members)
        for name in names or scenarios:
            launches, error = 0, ""
            try:
                gpu.counts.clear()
                launches = scenarios[name](gpu, Path(folder) / name.replace(" ", "-"))
            except Exception as problem:
                error = f"{type(problem).__name__}: {problem}"[:300]
            print(json.dumps({"name": name, "launches": launches, "error": error}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)

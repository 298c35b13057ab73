"""Whether a device computes as the CPU does; each check says what it saw, or raises AssertionError.

Methods: two steps of each in float32 from the same weights, on both; random draws are the CPU's on both. The
nets are small and the images noise: what differs is the device.
"""

import copy
import io
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image
from support.gpu_steps import CLASSES, SMALL, make_recipe
from support.tape import Tape
from torch import Tensor
from torch.overrides import TorchFunctionMode

from raykd import models
from raykd.data import Dataset
from raykd.data.in_memory import Pixels
from raykd.data.pictures import decode, decode_jpegs
from raykd.data.resample import Window, resample
from raykd.errors import first_line
from raykd.maths.gather import all_gather
from raykd.study.recipe import Recipe
from raykd.teachers.ensemble import EnsembleTeacher
from raykd.teachers.teacher import LiveTeacher
from raykd.training.graphs import GRAPH, CudaGraph, Graphs
from raykd.training.trainer import Trainer

CPU = torch.device("cpu")
TERMS, CHANGE = 1e-3, 1e-2  # relative differences allowed, of the first loss terms and of the weights' change
PIXELS = 2.0  # mean difference of two JPEG decoders, in levels of 255
Check = Callable[[torch.device], str]


class HostDraws(TorchFunctionMode):
    """Draws what a generator of another device would draw from one of the CPU with its seed."""

    def __init__(self) -> None:
        super().__init__()
        self._twins: dict[tuple[torch.Generator, int], torch.Generator] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        generator = kwargs.get("generator")
        if generator is None or generator.device.type == "cpu":
            return func(*args, **kwargs)
        key = generator, generator.initial_seed()
        if key not in self._twins:
            self._twins[key] = torch.Generator().manual_seed(key[1])
        kwargs |= {"generator": self._twins[key]} | ({"device": CPU} if "device" in kwargs else {})
        moved = [x.to(CPU) if isinstance(x, Tensor) else x for x in args]
        drawn = func(*moved, **kwargs)
        is_in_place = bool(moved) and drawn is moved[0]
        return args[0].copy_(drawn) if is_in_place else drawn.to(generator.device)


def make_noise(images: int = 640) -> Dataset[Any]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 32, 32, 3), generator=generator, dtype=torch.uint8)
    whole = Pixels(pixels, torch.arange(images) % CLASSES)
    train, test = whole.take(torch.arange(images)), whole.take(torch.arange(min(images, 200)))
    return Dataset(tuple(map(str, range(CLASSES))), 32, train, test, test, (0.5,) * 3, (0.25,) * 3)


def make_graphs(device: torch.device) -> Graphs:
    """Graphs of CUDA, or of tapes where there is none."""
    return Graphs(CudaGraph if device.type == "cuda" else Tape)


def make_trainer(
    recipe: Recipe, dataset: Dataset[Any], device: torch.device, graphs: Graphs | None = None
) -> Trainer:
    torch.manual_seed(1)
    net, bf16 = models.make(SMALL[0], CLASSES), recipe.precision == "bfloat16"
    teacher: Any = LiveTeacher(net, dataset.size, device, bf16)
    if recipe.teachers:
        teacher = EnsembleTeacher([teacher, teacher], [1.0, 1.0])
    trainer = Trainer(recipe, dataset, teacher, device, graphs=graphs)
    trainer.distiller.train()
    return trainer


def list_weights(trainer: Trainer) -> Tensor:
    return torch.cat([p.detach().cpu().double().flatten() for p in trainer.distiller.parameters()])


def take_two_steps(
    name: str, dataset: Dataset[Any], device: torch.device
) -> tuple[dict[str, Tensor], Tensor]:
    """The terms of the first, and how both change the weights."""
    trainer = make_trainer(make_recipe(name, precision="float32"), dataset, device)
    before, batches = list_weights(trainer), trainer.get_batches(1)
    terms = {key: term.cpu() for key, term in trainer.train_step(1, 0, batches).items()}
    trainer.train_step(1, 1, batches)
    return terms, list_weights(trainer) - before


def compare_methods(names: Iterable[str], device: torch.device) -> str:
    """Terms and weights, in float32."""
    dataset, worst, wrong = make_noise(), 0.0, []
    for name in names:
        try:
            with HostDraws():
                (terms, change), (ours, our_change) = (
                    take_two_steps(name, dataset, x) for x in (CPU, device)
                )
            difference = compute_difference(our_change, change)
            worst = max(worst, difference)
            torch.testing.assert_close(ours, terms, rtol=TERMS, atol=1e-4)
            assert difference < CHANGE, f"the weights' change is {difference:.1e} off"
        except Exception as error:  # the others are looked at all the same
            wrong.append(f"{name} in float32: {type(error).__name__}: {' '.join(str(error).split())}")
    assert not wrong, "; ".join(wrong)
    return f"methods in float32 are as on the CPU; two steps' change of weights is {worst:.1e} off at most"


def compare_graphed(names: Iterable[str], device: torch.device) -> str:
    """Bit for bit, in bfloat16: a training replayed from graphs, and the eager one."""
    dataset, eager, wrong = make_noise(256), list[str](), list[str]()
    for name in names:
        graphs = make_graphs(device)
        try:
            plain, replayed = (train(name, dataset, device, x) for x in (None, graphs))
            if not torch.equal(replayed, plain):
                again = compute_difference(train(name, dataset, device), plain)
                eager_again = f", eager once more {again:.1e}" if again else ""
                wrong.append(f"{name}: {compute_difference(replayed, plain):.1e} off{eager_again}")
        except Exception as error:  # the others are looked at all the same
            wrong.append(f"{name}: {type(error).__name__}: {first_line(error)}")
        reasons = {place: level for place, level in graphs.list_levels().items() if level != GRAPH}
        eager += [f"{name} {reasons}"] if reasons else []
    assert not wrong, f"weights replayed in bfloat16 are not the eager ones: {'; '.join(wrong)}"
    return (
        f"replayed from graphs = eager in bfloat16, bit for bit; not replayed: {', '.join(eager) or 'none'}"
    )


def train(name: str, dataset: Dataset[Any], device: torch.device, graphs: Graphs | None = None) -> Tensor:
    """The weights after two epochs in bfloat16."""
    trainer = make_trainer(make_recipe(name, epochs=2), dataset, device, graphs)
    list(trainer.run())
    return list_weights(trainer)


def compute_difference(ours: Tensor, expected: Tensor) -> float:
    """Relative, by their norms."""
    return float((ours - expected).norm() / expected.norm())


def compare_resumed(device: torch.device) -> str:
    """Bit for bit: two epochs, and one epoch with the other from its state."""
    dataset = make_noise(256)
    for name, precision in (("kd", "bfloat16"), ("crd", "bfloat16"), ("dcd", "float32")):
        recipe = make_recipe(name, precision=precision, epochs=2)
        whole, first, second = (make_trainer(recipe, dataset, device) for _ in range(3))
        list(whole.run())
        next(first.run())
        second.load_state_dict(copy.deepcopy(first.state_dict()), copy.deepcopy(first.large_banks()))
        list(second.run())
        difference = compute_difference(list_weights(second), list_weights(whole))
        assert difference == 0, (
            f"{name} in {precision}: a resumed training's weights are {difference:.1e} off"
        )
    return "resumed = uninterrupted, bit for bit (kd and crd in bfloat16, dcd in float32)"


def run_collectives(device: torch.device) -> str:
    """With one rank: NCCL on a GPU."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timedelta(seconds=60)
    )
    try:
        values = torch.arange(4.0, device=device)
        reduced = values.clone()
        dist.all_reduce(reduced)
        dist.broadcast(reduced, 0)
        assert torch.equal(reduced, values) and torch.equal(all_gather(values), values)
        metrics = list(make_trainer(make_recipe("kd", epochs=1), make_noise(128), device).run())
        assert len(metrics) == 1
    finally:
        dist.destroy_process_group()
    return f"{backend} with one rank: all_reduce, broadcast, all_gather, an epoch"


def decode_on_device(device: torch.device) -> str:
    """JPEGs by nvJPEG, crops of them; "not there" where torchvision was built without."""
    height, width = 60, 80
    grid = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    pixels = torch.stack([grid[0] * 4, grid[1] * 3, grid.sum(0)]).to(torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=95)
    expected = decode(buffer.getvalue())
    (ours,) = decode_jpegs([buffer.getvalue()], device)
    view = Window(5, 50, 32, 0, 1), Window(10, 60, 32, 31, -1)
    on_cpu, on_device = (resample([expected.to(x)], [[view]], 32).cpu() for x in (CPU, device))
    assert (on_cpu.int() - on_device.int()).abs().max() <= 1, "crops differ from the CPU's"
    if ours is None:
        return "crops as on the CPU; no JPEG decoder for this device in torchvision"
    difference = float((ours.cpu().float() - expected.float()).abs().mean())
    assert difference < PIXELS, f"decoded JPEGs are {difference:.1f} levels off"
    return f"crops as on the CPU; decoded JPEGs {difference:.2f} levels of 255 off"


def list_checks(names: Sequence[str]) -> dict[str, Check]:
    """All by name, of these methods."""
    return {
        f"methods {','.join(names)}": partial(compare_methods, names),
        f"graphs {','.join(names)}": partial(compare_graphed, names),
        "resumed": compare_resumed,
        "collectives": run_collectives,
        "pictures": decode_on_device,
    }

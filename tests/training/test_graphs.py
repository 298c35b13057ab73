"""Steps that are replayed from graphs, on a CPU: the plain loop's numbers, bit for bit (support/tape.py)."""

import copy
import json
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_trainer import CPU, load_digits
from support.tape import Holding, Tape
from torch.utils._pytree import tree_leaves

from raykd import methods, models
from raykd.maths import transport
from raykd.study.recipe import Recipe
from raykd.teachers.cached import add_cache
from raykd.teachers.ensemble import EnsembleTeacher
from raykd.teachers.teacher import LiveTeacher
from raykd.training.graphs import GRAPH, WARM_UP, Graphs, start_graphs
from raykd.training.trainer import Trainer

EPOCHS, STEPS = 2, 3  # of an epoch: the second one is replayed
ARMS: dict[str, dict[str, Any]] = {  # what changes within the replayed steps
    "sskd": {"teacher_stage": 0.8},
    "crcd": {"until": 0.8},
    "dkd": {"warm_up": 0.9},
}
HELD = ("reviewkd",)  # methods that are compared where all results are held
ALL = {"step": GRAPH, "teacher": GRAPH, "views": GRAPH}
EAGER = {"latentbe": {"perturbation": "eager: the host draws whose layers run"}}


def make_recipe(name: str, **settings: Any) -> Recipe:
    method = methods.get_class(name)
    plain = {
        "data": {"name": "digits", "images": 30, "holdout": 0.2, "rotations": method.rotations or 1},
        "teacher": {"net": "resnet8", "weights": "unused"},
        "student": {"net": "resnet8", "copies": 2 if method.students == "peers" else 1},
        "method": {"name": name} | ARMS.get(name, {}),
        "epochs": EPOCHS,
        "optimizer": {"batch_size": 8},
        "precision": "float32",
    }
    if method.students == "members":
        plain["teachers"] = [plain.pop("teacher")] * 2
    return Recipe.model_validate_json(json.dumps(plain | settings))


def make_trainer(recipe: Recipe, graphs: Graphs | None = None, cache: Path | None = None) -> Trainer:
    torch.set_num_threads(1)
    dataset = load_digits(recipe.data)
    torch.manual_seed(5)
    live = [LiveTeacher(models.make("resnet8", 10), 32, CPU, False) for _ in recipe.list_teachers() or [None]]
    teacher: Any = live[0] if len(live) == 1 else EnsembleTeacher(live, [1.0] * len(live))
    if cache is not None:
        teacher = add_cache(live[0], recipe.data.index_views(dataset), 1.0, CPU, cache)
    return Trainer(recipe, dataset, teacher, CPU, graphs=graphs)


def assert_equal(first: Trainer, second: Trainer) -> None:
    for a, b in zip(*(tree_leaves(trainer.state_dict()) for trainer in (first, second)), strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b or isinstance(a, float)


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host looks at no value within a step."""
    monkeypatch.setattr(transport, "LOOKS_AT", ())


def take_steps(trainer: Trainer, first: int = 0, steps: int = EPOCHS * STEPS) -> list[dict[str, float]]:
    """The raw terms of so many steps, from one (0-based, of the whole training) on."""
    trainer.distiller.train()
    rows = []
    for epoch, step in [divmod(step, STEPS) for step in range(first, steps)]:
        batches = trainer.get_batches(epoch + 1, step)
        rows.append({k: v.item() for k, v in trainer.train_step(epoch + 1, step, batches).items()})
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("name", methods.names())
def test_replayed_steps_are_the_plain_loops(name: str) -> None:
    tapes: list[Tape] = []

    def make_tape() -> Tape:
        tapes.append(Tape())
        return tapes[-1]

    graphs = Graphs(make_tape)
    plain, replayed = make_trainer(make_recipe(name)), make_trainer(make_recipe(name), graphs)
    with Holding() if name in HELD else nullcontext():
        assert take_steps(plain) == take_steps(replayed)
    assert_equal(plain, replayed)
    assert graphs.list_levels() == ALL | EAGER.get(name, {})
    assert {tape.replays for tape in tapes} == {EPOCHS * STEPS - WARM_UP}


@pytest.mark.slow
@pytest.mark.parametrize("cached", [False, True])
def test_a_state_of_the_midst_of_an_epoch_goes_on_alike(cached: bool, tmp_path: Path) -> None:
    """Three micro-batches a step, whose gradients add up; a part that rests, then learns."""
    settings = make_recipe("sskd", optimizer={"batch_size": 6, "accumulate": 3}, epochs=4)
    caches = [tmp_path / name if cached else None for name in ("plain", "replayed")]
    plain, graphs = make_trainer(settings, cache=caches[0]), Graphs(Tape)
    rows = take_steps(plain, steps=13)
    first = make_trainer(settings, Graphs(Tape), caches[1])
    assert take_steps(first, steps=6) == rows[:6]
    resumed = make_trainer(settings, graphs, caches[1])
    resumed.load_state_dict(first.state_dict(), first.large_banks())
    assert take_steps(resumed, 6, 13) == rows[6:]
    assert_equal(plain, resumed)
    assert graphs.list_levels()["step"] == GRAPH
    if cached:
        assert resumed.teacher.cache_stats.hits > 0


def test_what_asks_for_a_value_stays_eager_and_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LOOKS_AT", ("cpu",))
    graphs, plain = Graphs(Tape), make_trainer(make_recipe("wcord"))
    eager = make_trainer(make_recipe("wcord"), graphs)
    assert take_steps(plain) == take_steps(eager)
    assert_equal(plain, eager)
    levels = graphs.list_levels()
    assert "_local_scalar_dense" in levels.pop("step") and levels == {"teacher": GRAPH, "views": GRAPH}


class OtherTape(Tape):
    """Its replays are not what was recorded: one result is a little more."""

    def replay(self) -> None:
        super().replay()
        for *_, outputs in self.calls[-40:]:
            for x in filter(torch.is_floating_point, outputs):
                x.detach().mul_(1 + 1e-6)


def test_a_replay_of_other_numbers_is_not_trusted(caplog: pytest.LogCaptureFixture) -> None:
    graphs, plain = Graphs(OtherTape), make_trainer(make_recipe("kd"))
    eager = make_trainer(make_recipe("kd"), graphs)
    assert take_steps(plain) == take_steps(eager)
    assert_equal(plain, eager)
    assert graphs.list_levels()["step"] == "eager: a replay gave other numbers"
    assert "step is not replayed as a CUDA graph" in caplog.text


def test_a_processor_has_no_graphs() -> None:
    assert start_graphs(CPU) is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")  # wcord's constants
@pytest.mark.parametrize("name", methods.names())
def test_a_step_of_each_method_is_one_graph_of_torch_compile(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fullgraph refuses a break; the backend "eager" compiles nothing, so that the numbers are the same."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)  # pytest would keep it all
    trainer = make_trainer(make_recipe(name))
    distiller, batch = trainer.distiller.train(), next(trainer.get_batches(1))
    progress = torch.tensor(0.5, dtype=torch.float64)
    inputs = batch, trainer.teacher.get_outputs(batch), progress, distiller.prepare(batch)
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(distiller), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*inputs), distiller(*inputs), rtol=0, atol=0)

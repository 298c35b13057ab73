"""Training on a GPU, without one: on fake CUDA tensors all devices agree and the host never waits in a step.

The launches of a step are counted, too, about as torch's CUDA backend makes them: no method's number may grow
by a tenth over launches.json (`python tests/benchmarks/launches.py --record` writes it).
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raykd import methods

RECORDED = Path(__file__).with_name("launches.json")
GROWTH = 1.1
OF_KD = 2.5  # times KD's launches, a method's at most
SEVERAL_NETS = {  # times that
    "latentbe": 1.6,  # two members and two teachers, which are first asked where they disagree
    "lmcl": 1.6,  # two nets of three exits
    "mcl_okd": 1.4,  # four branches
}
BUDGET = {  # a KD step of each pair
    "live resnet32x4 resnet8x4": 390, "live resnet56 resnet20": 690, "live wrn_40_2 wrn_16_2": 490,
    "table resnet32x4 resnet8x4": 215, "table resnet56 resnet20": 390, "table wrn_40_2 wrn_16_2": 285,
    "graphs kd": 10, "graphs accumulate": 20,  # beside the three graphs
}  # fmt: skip

MISTAKES = """
import os, sys, torch
from support.fake_cuda import CUDA, FakeCuda, HiddenWait
x = lambda: torch.zeros(4, device=CUDA)
places = torch.tensor([1])
mistakes = {
    "item": lambda: x().sum().item(), "bool": lambda: bool(x()[0] > 0), "mask": lambda: x()[x() > 0],
    "nonzero": lambda: x().nonzero(), "from host": lambda: torch.ones(4).to(CUDA),
    "made on the host": lambda: torch.tensor([1.0], device=CUDA), "to host": lambda: x().cpu(),
    "pageable": lambda: torch.ones(4).to(CUDA, non_blocking=True), "two devices": lambda: x() + torch.ones(4),
    "index of the host": lambda: x()[places], "set by a mask": lambda: x().__setitem__(x() > 0, x()),
    "generator": lambda: torch.rand(4, generator=torch.Generator(), device=CUDA),
    "backward": lambda: torch.autograd.backward(
        (x().requires_grad_() * torch.ones(4).requires_grad_().to(CUDA)).sum()
    ),
}
fine = {
    "pinned": lambda: torch.ones(4).pin_memory().to(CUDA, non_blocking=True), "sum": lambda: x().sum() * 2,
    "generator": lambda: torch.rand(4, generator=torch.Generator(CUDA), device=CUDA),
    "a number of the host": lambda: x() * torch.tensor(2.0),
}
with FakeCuda() as gpu, gpu.refuse_waits():
    for name, make in [*mistakes.items(), *fine.items()]:
        try:
            make()
            print(name, "passed")
        except HiddenWait:
            print(name, "refused")
sys.stdout.flush()
os._exit(0)
"""


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    """Python in a process of its own, which finds the tests' support."""
    command = [sys.executable, "-W", "ignore", *words]
    return subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=580)


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each kind of step said, by name."""
    done = run("-m", "support.gpu_steps", str(tmp_path_factory.mktemp("gpu")))
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["name"]: line for line in lines}


@pytest.mark.slow
def test_what_waits_is_found() -> None:
    done = run("-c", MISTAKES)
    said = [line.rsplit(" ", 1) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(said) == 17, done.stderr[-2000:]
    assert [verdict for _, verdict in said] == ["refused"] * 13 + ["passed"] * 4, said


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_step_waits_for_a_gpu_or_mixes_devices(steps: dict[str, Any]) -> None:
    assert {name: step["error"] for name, step in steps.items() if step["error"]} == {}
    assert {f"{kind} {name}" for kind in ("bfloat16", "float32") for name in methods.names()} <= steps.keys()
    assert {
        "stream loaders",
        "stream device",
        "table crd",
        "accumulate",
        "training",
        "transfer",
        "shared",
        "ranks that accumulate",
    } <= steps.keys()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_steps_keep_to_their_launches(steps: dict[str, Any]) -> None:
    launches = {name: step["launches"] for name, step in steps.items()}
    assert {name: launches[name] for name, most in BUDGET.items() if launches[name] > most} == {}
    recorded = json.loads(RECORDED.read_text())
    assert set(recorded) == {f"bfloat16 {name}" for name in methods.names()}
    grown = {name: (launches[name], n) for name, n in recorded.items() if launches[name] > GROWTH * n}
    assert not grown, f"(launches, recorded): {grown}"
    of_teacher = launches["live resnet32x4 resnet8x4"] - launches["bfloat16 kd"]  # what the larger one adds
    most = OF_KD * launches["live resnet32x4 resnet8x4"] - of_teacher
    limits = {name: most * SEVERAL_NETS.get(name.split()[1], 1) for name in recorded}
    assert {name: launches[name] for name in recorded if launches[name] > limits[name]} == {}

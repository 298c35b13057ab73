"""One trial on several workers: the same batches, the same numbers, and a state that any number of them
takes up.
"""

import copy
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from support import gloo
from support.small_trainer import CPU, recipe, teaching, told
from torch import nn

from raykd.data.views import Pixels
from raykd.driver import trainables
from raykd.driver.session import connected
from raykd.models import make
from raykd.store.folder import Folder
from raykd.study.optimizer import Optimizer
from raykd.study.recipe import Recipe
from raykd.training import trial
from raykd.training.evaluation import accuracy
from raykd.training.trainer import Teaching

KD: dict[str, Any] = {"method": {"name": "kd"}, "epochs": 1}


def frozen(one: Teaching) -> Teaching:
    """With its batch norms in evaluation mode for good, so that no image depends on its neighbours."""
    for module in one.lesson.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.train = lambda mode=True, module=module: module  # type: ignore[method-assign, misc, assignment]
    return one


def weights(one: Teaching) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in one.lesson.parameters()])


def of_batch(size: int, **settings: Any) -> dict[str, Any]:
    optimizer = {"batch_size": size, "lr": 0.02} | settings
    return {"optimizer": optimizer, "schedule": {"kind": "cosine"}}


@pytest.mark.parametrize("method", ["kd", "crd"])
def test_micro_batches_add_up_to_the_batch(method: str) -> None:
    """Where no batch norm is in the way; CRD's shared draws differ from one micro-batch to the next."""
    chosen = KD | {"method": {"name": method}}
    one, four = (frozen(teaching(recipe(**chosen, **of_batch(32, accumulate=parts)))) for parts in (1, 4))
    (row,), (again,) = one.epochs(), four.epochs()
    assert again["terms"]["task"] == pytest.approx(row["terms"]["task"], rel=1e-5 if method == "kd" else 1e-2)
    if method == "kd":
        torch.testing.assert_close(weights(four), weights(one), rtol=1e-4, atol=1e-6)


def test_the_learning_rate_of_another_batch_size_is_scaled() -> None:
    """Linearly (arXiv:1706.02677), and only when the recipe says of which batch its rate is."""
    assert Optimizer(lr=0.1, batch_size=1024).rate == 0.1
    assert Optimizer(lr=0.1, batch_size=1024, lr_of_batch=256).rate == pytest.approx(0.4)
    (row,) = teaching(recipe(**KD, **of_batch(64, lr_of_batch=32))).epochs()
    assert row["lr"] == pytest.approx(0.04)


def test_a_batch_that_workers_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batch_size = 32 cannot be shared evenly .* each in 3 micro"):
        teaching(recipe(**of_batch(32, accumulate=3)))


def one_epoch(chosen: Recipe) -> tuple[dict[str, Any], torch.Tensor, list[str]]:
    one = teaching(chosen)
    (row,) = one.epochs()
    return told(row), weights(one), list(one.average.state_dict())


@pytest.mark.slow
def test_two_workers_are_one_that_accumulates_twice() -> None:
    """With local batch norm: the micro-batches are the same. Running statistics come about otherwise."""
    (ours, mine, _), (theirs, other, _) = gloo.run(one_epoch, recipe(**KD, **of_batch(32)))
    alone, its, _ = one_epoch(recipe(**KD, **of_batch(32, accumulate=2)))
    assert ours == theirs and torch.equal(mine, other)
    assert ours["terms"] == pytest.approx(alone["terms"], rel=1e-5)
    torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["kd", "dcd"])
def test_synced_batch_norm_makes_two_workers_one(method: str) -> None:
    """DCD contrasts within the batch of both."""
    chosen = recipe(epochs=1, method={"name": method}, batch_norm="synced", **of_batch(32))
    (ours, mine, names), (theirs, other, _) = gloo.run(one_epoch, chosen)
    alone, its, own = one_epoch(chosen)
    assert ours == theirs and torch.equal(mine, other) and names == own
    assert ours["terms"] == pytest.approx(alone["terms"], rel=1e-4, abs=1e-5)
    assert ours["accuracy"] == alone["accuracy"]
    torch.testing.assert_close(mine, its, rtol=1e-3, atol=2e-3)  # sums in another order, steps later
    local, *_ = gloo.run(one_epoch, chosen.changed({"batch_norm": "local"}))
    assert local[0]["terms"]["task"] != pytest.approx(alone["terms"]["task"], rel=1e-4)


def watched(one: Teaching) -> list[int]:
    """Fills with the positions of the images of every batch that is shown."""
    seen: list[int] = []
    view = one.teacher.view

    def looked(batch: Any) -> Any:
        seen.extend(batch.index.tolist())
        return view(batch)

    one.teacher.view = looked  # type: ignore[method-assign]
    return seen


def counted(chosen: Recipe) -> tuple[list[int], float, float]:
    """What an epoch shows this rank; how many of 89 and of 2 images are told right, by all ranks."""
    one = teaching(chosen)
    seen = watched(one)
    list(one.epochs())
    torch.manual_seed(1)
    net, test = make("resnet8", 10), one.dataset.test
    some = (Pixels(test.pixels[:count], test.labels[:count]) for count in (89, 2))
    right = (accuracy(net, one.source, part, False, one.rank, one.world) for part in some)
    return seen, *right  # type: ignore[return-value]


@pytest.mark.slow
def test_one_two_and_three_workers_see_and_judge_the_same() -> None:
    """128 images in batches of 24: 120 of them, the same ones; no image is judged twice or left out."""
    chosen = recipe(**KD, **of_batch(24))
    ((alone, *right),) = (counted(chosen),)
    assert len(set(alone)) == 120
    for ranks in (2, 3):
        answers = gloo.run(counted, chosen, ranks=ranks)
        assert [answer[1:] for answer in answers] == [tuple(right)] * ranks
        shares = [torch.tensor(answer[0]).view(5, 24 // ranks) for answer in answers]
        assert torch.cat(shares, dim=1).flatten().tolist() == alone


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dcd", "crd"])
def test_resumed_inside_an_epoch_is_uninterrupted(name: str) -> None:
    chosen = recipe(method={"name": name}, epochs=2, **of_batch(32, accumulate=2))
    rows = [told(row) for row in teaching(chosen).epochs()]
    first = teaching(chosen)
    pauses = first.stretches(0)
    assert [next(pauses) for _ in range(2)] == [None, None] and (first.done, first.within.steps) == (0, 2)
    state = copy.deepcopy(first.state_dict())
    second = teaching(chosen)
    second.load_state_dict(state, {})
    assert [told(row) for row in second.epochs()] == rows
    whole = teaching(chosen)
    kept = list(whole.stretches(0))
    assert [row is None for row in kept] == [True, True, True, False] * 2


def begin(chosen: Recipe, stops: int) -> dict[str, Any]:
    """The state after so many stops inside the first epoch."""
    one = teaching(chosen)
    pauses = one.stretches(0)
    for _ in range(stops):
        assert next(pauses) is None
    return copy.deepcopy(one.state_dict())


def go_on(chosen: Recipe, state: dict[str, Any]) -> tuple[list[int], dict[str, Any]]:
    one = teaching(chosen)
    seen = watched(one)
    one.load_state_dict(state, {})
    (row,) = one.epochs()
    return seen, told(row)


@pytest.mark.slow
def test_a_state_goes_on_under_another_number_of_workers() -> None:
    chosen = recipe(epochs=1, batch_norm="synced", **of_batch(32))
    alone, row = go_on(chosen, begin(chosen, 2))
    ours, theirs = gloo.run(go_on, chosen, begin(chosen, 2))
    assert [ours[0][:16] + theirs[0][:16], ours[0][16:] + theirs[0][16:]] == [alone[:32], alone[32:]]
    by_two = gloo.run(begin, chosen, 2)[0]
    after, its = go_on(chosen, by_two)
    assert after == alone
    for other in (ours[1], theirs[1], its):
        assert other["terms"] == pytest.approx(row["terms"], rel=1e-3, abs=1e-5)
        assert other["accuracy"] == row["accuracy"]


def job(folder: Path, chosen: Recipe, minutes: float = 10.0) -> trial.Job:
    teacher = str(folder.parent / "teacher.pth")
    return trial.Job(chosen.plain(), str(folder), teacher, "unused", False, 1, checkpoint_minutes=minutes)


@pytest.fixture
def digits_teacher(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    torch.save(make("resnet14", 10).state_dict(), tmp_path / "teacher.pth")
    return tmp_path


RUN = """
import json, sys, torch
from raykd import trial
torch.set_num_threads(1)
trial.run(trial.Job(**json.loads(sys.argv[1])), lambda row: None, torch.device("cpu"))
"""


@pytest.mark.slow
def test_a_trial_killed_inside_an_epoch_goes_on_there(digits_teacher: Path) -> None:
    """A state after every step; the student that comes out is the uninterrupted one, byte for byte."""
    data_ = {"name": "digits", "images": 700, "holdout": 0.1}
    chosen = recipe(data=data_, epochs=2, **of_batch(16))
    whole, killed = digits_teacher / "whole", digits_teacher / "killed"
    trial.run(job(whole, chosen), lambda row: None, CPU)
    plain = json.dumps(vars(job(killed, chosen, 1e-9)))
    process = subprocess.Popen([sys.executable, "-c", RUN, plain])
    try:
        while not (killed / "checkpoint.pt").exists():
            assert process.poll() is None
            time.sleep(0.001)
    finally:
        process.kill()
        process.wait()
    left = torch.load(killed / "checkpoint.pt", weights_only=True)
    assert left["epoch"] == 0 and 1 <= left["within"]["steps"] < 39 and not (killed / "epochs.json").exists()
    heard: list[Any] = []
    trial.run(job(killed, chosen), heard.append, CPU)
    rows, again = (Folder(str(one)).read_json("epochs.json") for one in (whole, killed))
    assert [told(row) for row in again] == [told(row) for row in rows] and len(heard) == 2
    assert (killed / "student.safetensors").read_bytes() == (whole / "student.safetensors").read_bytes()


def test_a_listener_that_is_gone_is_no_failure_of_the_trial(digits_teacher: Path) -> None:
    def tell(row: dict[str, Any]) -> None:
        raise trial.Unheard("the controller died")

    folder = digits_teacher / "unheard"
    with pytest.raises(trial.Unheard):
        trial.run(job(folder, recipe(**KD)), tell, CPU)
    assert "failure.json" not in Folder(str(folder)).names()
    assert len(Folder(str(folder)).read_json("epochs.json")) == 1


@pytest.mark.slow
def test_two_nodes_are_one_node_with_two_workers(
    digits_teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Train on two nodes, whose only CPU each one worker takes, and in this machine's own session."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    chosen = recipe(**KD, batch_norm="synced", **of_batch(32))
    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
        with connected(cluster.address):
            assert [n["Resources"]["CPU"] for n in ray.nodes() if n["Alive"]] == [1, 1]
            apart = rows_of(digits_teacher / "apart", chosen)
    finally:
        cluster.shutdown()
    with connected(None):
        together = rows_of(digits_teacher / "together", chosen)
    assert apart == together and len(apart) == 1
    (alone,) = teaching(chosen).epochs()
    assert apart[0]["terms"] == pytest.approx(alone["terms"], rel=1e-4, abs=1e-5)


def rows_of(folder: Path, chosen: Recipe) -> list[dict[str, Any]]:
    trainables.train_job([job(folder, chosen)], 2, 1.0, 0.0, folder.name, False)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return [told(row) for row in Folder(str(folder)).read_json("epochs.json")]

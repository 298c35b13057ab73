"""One trial on several workers: the same batches, the same numbers, and a state that any number of them
takes up.
"""

import copy
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from support.float64 import in_float64
from support.small_trainer import CPU, LATENTBE, comparable_metrics, make_trainer, recipe
from torch import nn

from raykd.contract import gloo
from raykd.data.in_memory import Pixels
from raykd.driver import trainables
from raykd.driver.resources import WorkerSize
from raykd.driver.session import connect
from raykd.models import make
from raykd.store.folder import Folder
from raykd.study.optimizer import Optimizer
from raykd.study.recipe import Recipe
from raykd.training import failure, trial
from raykd.training.evaluation import measure_accuracy
from raykd.training.trainer import Trainer

KD: dict[str, Any] = {"method": {"name": "kd"}, "epochs": 1}


def freeze_batch_norms(trainer: Trainer) -> Trainer:
    """With its batch norms in evaluation mode for good, so that no image depends on its neighbours."""
    for module in trainer.distiller.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.train = lambda mode=True, module=module: module  # type: ignore[method-assign, misc, assignment]
    return trainer


def flatten_weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.distiller.parameters()])


def batch_settings(size: int, **settings: Any) -> dict[str, Any]:
    optimizer = {"batch_size": size, "lr": 0.02} | settings
    return {"optimizer": optimizer, "schedule": {"kind": "cosine"}}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["kd", "crd"])
def test_micro_batches_add_up_to_the_batch(method: str) -> None:
    """Where no batch norm is in the way; CRD's shared draws differ from one micro-batch to the next."""
    settings = KD | {"method": {"name": method}}
    whole, split = (
        freeze_batch_norms(make_trainer(recipe(**settings, **batch_settings(32, accumulate=parts))))
        for parts in (1, 4)
    )
    (row,), (split_row,) = whole.run(), split.run()
    assert split_row["terms"]["task"] == pytest.approx(
        row["terms"]["task"], rel=1e-5 if method == "kd" else 1e-2
    )
    if method == "kd":
        torch.testing.assert_close(flatten_weights(split), flatten_weights(whole), rtol=1e-4, atol=1e-6)


def test_the_learning_rate_of_another_batch_size_is_scaled() -> None:
    """Linearly (arXiv:1706.02677), and only when the recipe says of which batch its rate is."""
    assert Optimizer(lr=0.1, batch_size=1024).scaled_lr == 0.1
    assert Optimizer(lr=0.1, batch_size=1024, lr_base_size=256).scaled_lr == pytest.approx(0.4)
    (row,) = make_trainer(recipe(**KD, **batch_settings(64, lr_base_size=32))).run()
    assert row["lr"] == pytest.approx(0.04)


def test_a_batch_that_workers_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batch_size = 32 cannot be shared evenly .* each in 3 micro"):
        make_trainer(recipe(**batch_settings(32, accumulate=3)))


def train_one_epoch(settings: Recipe) -> tuple[dict[str, Any], torch.Tensor, list[str]]:
    trainer = make_trainer(settings)
    (row,) = trainer.run()
    return comparable_metrics(row), flatten_weights(trainer), list(trainer.ema_student.state_dict())


@pytest.mark.slow
def test_two_workers_are_one_that_accumulates_twice() -> None:
    """With local batch norm: the micro-batches are the same. Running statistics come about otherwise."""
    (row_0, weights_0, _), (row_1, weights_1, _) = gloo.run(
        train_one_epoch, recipe(**KD, **batch_settings(32))
    )
    single_row, single_weights, _ = train_one_epoch(recipe(**KD, **batch_settings(32, accumulate=2)))
    assert row_0 == row_1 and torch.equal(weights_0, weights_1)
    assert row_0["terms"] == pytest.approx(single_row["terms"], rel=1e-5)
    torch.testing.assert_close(weights_0, single_weights, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["kd", "dcd"])
def test_synced_batch_norm_makes_two_workers_one(method: str) -> None:
    """DCD contrasts within the batch of both."""
    settings = recipe(epochs=1, method={"name": method}, batch_norm="synced", **batch_settings(32))
    (row_0, weights_0, names), (row_1, weights_1, _) = gloo.run(train_one_epoch, settings)
    single_row, single_weights, single_names = train_one_epoch(settings)
    assert row_0 == row_1 and torch.equal(weights_0, weights_1) and names == single_names
    assert row_0["terms"] == pytest.approx(single_row["terms"], rel=2e-4, abs=1e-5)
    assert row_0["accuracy"] == single_row["accuracy"]
    # sums in another order, steps later
    torch.testing.assert_close(weights_0, single_weights, rtol=1e-3, atol=2e-3)
    local, *_ = gloo.run(train_one_epoch, settings.with_settings({"batch_norm": "local"}))
    assert local[0]["terms"]["task"] != pytest.approx(single_row["terms"]["task"], rel=2e-4)


COPIES: dict[str, Any] = {"student": {"net": "resnet8", "copies": 2}}
COPIES |= batch_settings(32, images_per_class=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "own"),
    [
        ({"name": "dml"}, COPIES),
        ({"name": "mcl"}, COPIES),
        ({"name": "mcl_okd", "negatives": 64}, {}),
        ({"name": "crcd", "negatives": 64}, {}),
        ({"name": "iakd"}, {}),
        ({"name": "blockkd"}, {}),
        ({"name": "eed"}, {}),
        ({"name": "beed"}, {}),
        (LATENTBE["method"], LATENTBE),
    ],
    ids=lambda value: value.get("name", ""),
)
def test_two_workers_are_one_for_whatever_learns_beside_the_student(
    method: dict[str, Any], own: dict[str, Any]
) -> None:
    """Peers, branches, banks, connectors, exits; of a step, in float64.

    In float32 sums in another order move BEED's update by 1.7 %: where an activation is near 0 its ReLU
    passes or stops a gradient. So does 1e-5 of noise on the weights of one process.
    """
    images = 80 if own else 40  # what of a class is odd is left out
    data = {"name": "digits", "images": images, "holdout": 0.2}
    plain = {"epochs": 1, "data": data, "method": method, "batch_norm": "synced"} | batch_settings(32)
    settings = recipe(**plain | own)
    (row, update), (other_row, other_update) = gloo.run(measure_exact_update, settings)
    single_row, single = measure_exact_update(settings)
    assert row == other_row and torch.equal(update, other_update) and update.dtype == torch.float64
    assert row["terms"] == pytest.approx(single_row["terms"], rel=1e-9)
    assert compare_updates(update, single) < 1e-8


def record_indices(trainer: Trainer) -> list[int]:
    """Fills with the positions of the images of every batch that is shown."""
    indices: list[int] = []
    get_outputs = trainer.teacher.get_outputs

    def get_and_record(batch: Any) -> Any:
        indices.extend(batch.index.tolist())
        return get_outputs(batch)

    trainer.teacher.get_outputs = get_and_record  # type: ignore[method-assign]
    return indices


def count_images(settings: Recipe) -> tuple[list[int], float, float]:
    """What an epoch shows this rank; the accuracy on 89 and on 2 images, by all ranks."""
    trainer = make_trainer(settings)
    indices = record_indices(trainer)
    list(trainer.run())
    torch.manual_seed(1)
    net, test = make("resnet8", 10), trainer.dataset.test
    parts = (Pixels(test.pixels[:count], test.labels[:count]) for count in (89, 2))
    accuracies = (
        measure_accuracy(net, trainer.source, part, False, trainer.rank, trainer.world) for part in parts
    )
    return indices, *accuracies  # type: ignore[return-value]


@pytest.mark.slow
def test_one_two_and_three_workers_see_and_judge_the_same() -> None:
    """128 images in batches of 24: 120 of them, the same ones; no image is judged twice or left out."""
    settings = recipe(**KD, **batch_settings(24))
    single_indices, *accuracies = count_images(settings)
    assert len(set(single_indices)) == 120
    for ranks in (2, 3):
        results = gloo.run(count_images, settings, ranks=ranks)
        assert [result[1:] for result in results] == [tuple(accuracies)] * ranks
        shares = [torch.tensor(result[0]).view(5, 24 // ranks) for result in results]
        assert torch.cat(shares, dim=1).flatten().tolist() == single_indices


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [{"method": {"name": "dcd"}}, {"method": {"name": "crd"}}, LATENTBE],
    ids=["dcd", "crd", "latentbe"],
)
def test_resumed_inside_an_epoch_is_uninterrupted(method: dict[str, Any]) -> None:
    settings = recipe(**method, epochs=2, **batch_settings(32, accumulate=2))
    rows = [comparable_metrics(row) for row in make_trainer(settings).run()]
    first = make_trainer(settings)
    steps = first.run_until(0)
    assert [next(steps) for _ in range(2)] == [None, None]
    assert (first.num_epochs_done, first.partial_epoch.steps) == (0, 2)
    state = copy.deepcopy(first.state_dict())
    second = make_trainer(settings)
    second.load_state_dict(state, {})
    assert [comparable_metrics(row) for row in second.run()] == rows
    uninterrupted = make_trainer(settings)
    yielded = list(uninterrupted.run_until(0))
    assert [row is None for row in yielded] == [True, True, True, False] * 2


def train_steps(settings: Recipe, stops: int) -> dict[str, Any]:
    """The state after so many stops inside the first epoch."""
    trainer = make_trainer(settings)
    steps = trainer.run_until(0)
    for _ in range(stops):
        assert next(steps) is None
    return copy.deepcopy(trainer.state_dict())


def train_exactly(settings: Recipe, seconds: float) -> torch.Tensor:
    """The weights in float64 of a training that saves its state at least so often."""
    with in_float64():
        trainer = make_trainer(settings)
        list(trainer.run_until(seconds))
        return flatten_weights(trainer)


@pytest.mark.slow
def test_images_that_move_do_not_depend_on_when_a_state_is_saved() -> None:
    """Members are then in evaluation mode, by statistics that ranks average when they save."""
    data = {"name": "digits", "images": 40, "holdout": 0.2}
    settings = recipe(**LATENTBE | {"data": data, "epochs": 1} | batch_settings(8))
    once, often = (gloo.run(train_exactly, settings, seconds)[0] for seconds in (math.inf, 0.0))
    torch.testing.assert_close(often, once, rtol=1e-7, atol=1e-9)


def continue_training(settings: Recipe, state: dict[str, Any]) -> tuple[list[int], dict[str, Any]]:
    trainer = make_trainer(settings)
    indices = record_indices(trainer)
    trainer.load_state_dict(state, {})
    (row,) = trainer.run()
    return indices, comparable_metrics(row)


@pytest.mark.slow
def test_a_state_goes_on_under_another_number_of_workers() -> None:
    settings = recipe(epochs=1, batch_norm="synced", **batch_settings(32))
    single_indices, row = continue_training(settings, train_steps(settings, 2))
    rank_0, rank_1 = gloo.run(continue_training, settings, train_steps(settings, 2))
    shown = [rank_0[0][:16] + rank_1[0][:16], rank_0[0][16:] + rank_1[0][16:]]
    assert shown == [single_indices[:32], single_indices[32:]]
    state = gloo.run(train_steps, settings, 2)[0]
    indices, single_row = continue_training(settings, state)
    assert indices == single_indices
    for other in (rank_0[1], rank_1[1], single_row):
        assert other["terms"] == pytest.approx(row["terms"], rel=1e-3, abs=1e-5)
        assert other["accuracy"] == row["accuracy"]


# bfloat16 keeps 8 bits: each rounding moves a number by 2^-9 of itself at most. An image's loss comes after
# some tens of roundings, and a term is the mean over a hundred images, whose errors cancel: 2^-8. A weight's
# update is the sum of a few gradients, each rounded by itself: 4 x 2^-9, of all updates together. Statistics
# that are added up in another order move every activation by a rounding; where one is near 0 its ReLU then
# passes or stops a gradient, which is twice as much again.
BF16_TERM, BF16_UPDATE, BF16_SYNCED_UPDATE = 2**-8, 2**-7, 2**-6
BF16_SMALL_TERM = 2**-5  # DCD's consistency, a difference of near values, has 3 bits less


def measure_update(settings: Recipe, frozen: bool = False) -> tuple[dict[str, Any], torch.Tensor]:
    """The metrics of an epoch, and by how much it moved the weights."""
    trainer = freeze_batch_norms(make_trainer(settings)) if frozen else make_trainer(settings)
    before = flatten_weights(trainer).clone()
    (row,) = trainer.run()
    return comparable_metrics(row), flatten_weights(trainer) - before


def measure_exact_update(settings: Recipe) -> tuple[dict[str, Any], torch.Tensor]:
    """As `measure_update`, in float64."""
    with in_float64():
        return measure_update(settings)


def compare_updates(update: torch.Tensor, expected: torch.Tensor) -> float:
    return float((update - expected).norm() / expected.norm())


@pytest.mark.slow
def test_micro_batches_add_up_to_the_batch_in_bfloat16() -> None:
    """On every machine: where the hardware has no bfloat16 it is computed all the same."""
    settings = KD | {"precision": "bfloat16"}
    (row, update), (split_row, split_update) = (
        measure_update(recipe(**settings, **batch_settings(32, accumulate=parts)), frozen=True)
        for parts in (1, 4)
    )
    assert split_row["terms"] == pytest.approx(row["terms"], rel=BF16_TERM)
    assert compare_updates(split_update, update) < BF16_UPDATE
    local = measure_update(recipe(**settings, **batch_settings(32, accumulate=2)))[1]
    assert compare_updates(local, measure_update(recipe(**settings, **batch_settings(32)))[1]) > BF16_UPDATE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "batch_norm", "term_tolerance", "update_tolerance"),
    [
        ("kd", "local", BF16_TERM, BF16_UPDATE),
        ("kd", "synced", BF16_TERM, BF16_SYNCED_UPDATE),
        ("dcd", "synced", BF16_SMALL_TERM, None),  # float32 moves its updates by as much as bfloat16 KD's
    ],
)
def test_two_workers_are_one_in_bfloat16(
    method: str, batch_norm: str, term_tolerance: float, update_tolerance: float | None
) -> None:
    """Both ranks hold the same numbers; those of one process with the same micro-batches are near."""
    settings = {"method": {"name": method}, "epochs": 1, "precision": "bfloat16", "batch_norm": batch_norm}
    (row, update), (other_row, other_update) = gloo.run(
        measure_update, recipe(**settings, **batch_settings(32))
    )
    assert row == other_row and torch.equal(update, other_update)
    parts = 2 if batch_norm == "local" else 1
    single_row, single = measure_update(recipe(**settings, **batch_settings(32, accumulate=parts)))
    assert row["terms"] == pytest.approx(single_row["terms"], rel=term_tolerance)
    assert update_tolerance is None or compare_updates(update, single) < update_tolerance


@pytest.mark.slow
def test_a_state_goes_on_under_another_number_of_workers_in_bfloat16() -> None:
    settings = recipe(**KD, precision="bfloat16", batch_norm="synced", **batch_settings(32))
    indices, row = continue_training(settings, train_steps(settings, 2))
    ranks = gloo.run(continue_training, settings, train_steps(settings, 2))
    assert (
        torch.tensor([rank[0] for rank in ranks]).view(2, 2, 16).transpose(0, 1).flatten().tolist() == indices
    )
    for _, other in ranks:
        assert other["terms"] == pytest.approx(row["terms"], rel=BF16_TERM)


def make_job(folder: Path, settings: Recipe, minutes: float = 10.0) -> trial.Job:
    teachers = (str(folder.parent / "teacher.pth"),)
    return trial.Job(
        settings.to_dict(), str(folder), teachers, "unused", False, 1, checkpoint_minutes=minutes
    )


@pytest.fixture
def digits_teacher(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    torch.save(make("resnet14", 10).state_dict(), tmp_path / "teacher.pth")
    return tmp_path


RUN = """
import json, sys, torch
from raykd.training import trial
torch.set_num_threads(1)
trial.run(trial.Job(**json.loads(sys.argv[1])), lambda row: None, torch.device("cpu"))
"""


@pytest.mark.slow
def test_a_trial_killed_inside_an_epoch_goes_on_there(digits_teacher: Path) -> None:
    """A state after every step; the student that comes out is the uninterrupted one's, byte for byte."""
    digits = {"name": "digits", "images": 700, "holdout": 0.1}
    settings = recipe(data=digits, epochs=2, **batch_settings(16))
    whole, killed = digits_teacher / "whole", digits_teacher / "killed"
    trial.run(make_job(whole, settings), lambda row: None, CPU)
    job_json = json.dumps(vars(make_job(killed, settings, 1e-9)))
    process = subprocess.Popen([sys.executable, "-c", RUN, job_json])
    try:
        while not (killed / "checkpoint.pt").exists():
            assert process.poll() is None
            time.sleep(0.001)
    finally:
        process.kill()
        process.wait()
    checkpoint = torch.load(killed / "checkpoint.pt", weights_only=True)
    assert checkpoint["epoch"] == 0 and 1 <= checkpoint["partial_epoch"]["steps"] < 39
    assert not (killed / "epochs.json").exists()
    reported: list[Any] = []
    trial.run(make_job(killed, settings), reported.append, CPU)
    whole_rows, killed_rows = (Folder(str(path)).read_json("epochs.json") for path in (whole, killed))
    assert [*map(comparable_metrics, killed_rows)] == [*map(comparable_metrics, whole_rows)]
    assert len(reported) == 2
    students = [(path / "student.safetensors").read_bytes() for path in (whole, killed)]
    assert students[0] == students[1]


def train_until_notice(job: trial.Job, step: int) -> int:
    """Of which the second rank alone has notice after so many steps; the steps that this rank took."""
    steps: list[int] = []

    def has_notice() -> bool:
        steps.append(dist.get_rank())
        return sum(steps) >= step

    with pytest.raises(failure.Preempted):
        trial.run(job, lambda row: None, CPU, has_notice)
    return len(steps)


@pytest.mark.slow
def test_ranks_save_at_the_step_at_which_one_has_notice_and_one_worker_goes_on_there(
    digits_teacher: Path,
) -> None:
    digits = {"name": "digits", "images": 700, "holdout": 0.1}
    job = make_job(digits_teacher / "preempted", recipe(data=digits, epochs=1, **batch_settings(32)))
    assert gloo.run(train_until_notice, job, 3) == [3, 3]
    checkpoint = torch.load(f"{job.folder}/checkpoint.pt", weights_only=True)
    assert checkpoint["partial_epoch"]["steps"] == 3
    reason = Folder(job.folder).read_json("failure.json")
    assert failure.is_lost(reason) and failure.is_preempted(reason) and not failure.is_preempted(None)
    steps: list[None] = []
    trial.run(job, lambda row: None, CPU, lambda: bool(steps.append(None)))
    assert len(steps) == 700 * 9 // 10 // 32 - 1 - 3  # after the last one nobody asks


def test_a_reporter_that_is_gone_is_no_failure_of_the_trial(digits_teacher: Path) -> None:
    def report(row: dict[str, Any]) -> None:
        raise failure.ReporterGone("the controller died")

    folder = digits_teacher / "unreported"
    with pytest.raises(failure.ReporterGone):
        trial.run(make_job(folder, recipe(**KD)), report, CPU)
    assert "failure.json" not in Folder(str(folder)).list_names()
    assert len(Folder(str(folder)).read_json("epochs.json")) == 1


@pytest.mark.slow
def test_two_nodes_are_one_node_with_two_workers(
    digits_teacher: Path, monkeypatch: pytest.MonkeyPatch, no_ray_session: None
) -> None:
    """Ray Train on two nodes, whose only CPU each one worker takes, and in this machine's own session."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    settings = recipe(**KD, batch_norm="synced", **batch_settings(32))
    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
        with connect(cluster.address):
            assert [n["Resources"]["CPU"] for n in ray.nodes() if n["Alive"]] == [1, 1]
            two_nodes = train_with_ray(digits_teacher / "two_nodes", settings)
    finally:
        cluster.shutdown()
    with connect(None):
        one_node = train_with_ray(digits_teacher / "one_node", settings)
    assert two_nodes == one_node and len(two_nodes) == 1
    (single_row,) = make_trainer(settings).run()
    assert two_nodes[0]["terms"] == pytest.approx(single_row["terms"], rel=1e-4, abs=1e-5)


def train_with_ray(folder: Path, settings: Recipe) -> list[dict[str, Any]]:
    trainables.run_train_job([make_job(folder, settings)], 2, WorkerSize(1.0, 0.0), folder.name, False)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return [comparable_metrics(row) for row in Folder(str(folder)).read_json("epochs.json")]

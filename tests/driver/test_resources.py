"""`auto` made numbers: pure functions over what nodes hold, so that no GPU is needed to hold them."""

from pathlib import Path

import pytest

from raykd.driver import resources
from raykd.driver.resources import Node, WorkerSize
from raykd.study.study import Study

GIB = 2**30


def node(cpus: float, gpus: float = 0.0, memory: float = 1024) -> Node:
    return {"CPU": cpus, "GPU": gpus, "memory": memory * GIB}


@pytest.mark.parametrize(
    ("peak", "total", "share"),
    [(1, 80, 0.125), (6, 80, 0.25), (15, 80, 0.5), (30, 80, 1), (200, 80, 1), (1, 8, 0.5)],
)
def test_a_small_trial_takes_a_part_of_a_gpu(peak: float, total: float, share: float) -> None:
    """Twice the measured peak and a process's own GiB must lie in the share."""
    assert resources.gpu_share(int(peak * GIB), int(total * GIB)) == share
    assert share in (1, 1 / 8) or 2 * peak + 1 <= total * share


def test_cpus_are_divided_among_the_trials_that_fit(small: Path) -> None:
    study = Study.read(small)  # three trials
    assert study.cluster.cpus == study.cluster.gpus == "auto"
    assert resources.choose_size(study, [node(2)]) == WorkerSize(1, 0)
    assert resources.choose_size(study, [node(16)]) == WorkerSize(5, 0)
    assert resources.choose_size(study, [node(8), node(8)]) == WorkerSize(4, 0)
    assert resources.choose_size(study, [node(16, memory=2)]) == WorkerSize(8, 0)
    pairs = Study.read(small, ("cluster/workers=2",))
    assert resources.choose_size(pairs, [node(12)]) == WorkerSize(2, 0)


def test_a_gpu_that_is_there_is_taken(small: Path) -> None:
    nodes = [node(16, 2), node(64)]
    study, pairs = Study.read(small), Study.read(small, ("cluster/workers=2",))
    assert resources.choose_size(study, nodes) == WorkerSize(8, 1)
    assert resources.choose_size(study, nodes, share=0.25) == WorkerSize(2, 0.25)
    assert resources.choose_size(pairs, nodes, share=0.25) == WorkerSize(8, 1)  # NCCL: a whole one each
    assert resources.worker_slots(nodes, WorkerSize(2, 0.25)) == 8
    assert resources.choose_size(study, nodes, share=0).gpus == 0  # torch's build can use none


def test_what_a_study_states_stays_and_idle_gpus_are_named(small: Path) -> None:
    study = Study.read(small, ("cluster/gpus=0", "cluster/cpus=4"))
    assert resources.choose_size(study, [node(16, 1)]) == WorkerSize(4, 0)
    assert "1 GPU stays idle" in resources.describe_idle_gpus(study, [node(16, 1)])
    assert resources.describe_idle_gpus(study, [node(16)]) == ""
    assert "never fits" in resources.find_misfit(study, [node(2), node(2)])


def test_a_trial_takes_the_workers_that_are_free_and_share_its_batch(small: Path) -> None:
    study = Study.read(small, ("cluster/workers={min: 1, max: 4}", "cluster/cpus=1"))  # batches of 32
    taken = [resources.choose_workers(study.recipe, study.cluster.workers, free) for free in range(-1, 7)]
    assert taken == [1, 1, 1, 2, 2, 4, 4, 4]
    one_node = study.with_resources(1.0, 0.0)
    assert resources.find_misfit(one_node, [node(1)]) == ""
    words = resources.describe_choice(one_node, [node(3)])
    assert words == "a trial takes 1 to 4 workers of 1 CPU each; 1 at once on 1 node, 3 CPUs, 0 GPUs"


def test_the_first_line_says_what_a_trial_takes(small: Path) -> None:
    study = Study.read(small).with_resources(2.0, 0.25)
    words = resources.describe_choice(study, [node(16, 2)])
    assert words == "a trial takes 2 CPUs and 0.25 GPU; 8 at once on 1 node, 16 CPUs, 2 GPUs"

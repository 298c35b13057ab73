"""How a trial meets Ray: in the actor of its Ray Tune trial, or as a Ray Train job of several workers."""

import ctypes
import gc
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from raykd.driver import mps
from raykd.driver.leftovers import temporary_folder
from raykd.driver.preemption import watch_preemption
from raykd.driver.resources import WorkerSize
from raykd.driver.same_code import Fingerprint, describe_difference, get_fingerprint
from raykd.metric import select_scores
from raykd.store import file_names
from raykd.store.folder import Folder
from raykd.training.failure import Preempted, ReporterGone, describe_failure
from raykd.training.trial import Job, run

COLLECTIVE_TIMEOUT_S = 600  # that a worker waits for the others before it calls them gone
END_TIMEOUT_S = 600  # that Tune waits for the end of a stopped trial, before another one runs in its actor
REPORTED_KEYS = ("epoch", "final", "seconds", "parameters")  # of an epoch's row, those that Ray gets


def run_in_tune(config: dict[str, Any]) -> None:
    """Trains a trial of one worker, in the actor of its Tune trial. Raises what the training raises."""
    from ray import tune

    wait_for_ends()
    _check_code(config["driver"], config["job"]["folder"])
    mps.join()
    device = torch.device("cuda" if config["gpus"] else "cpu")
    with keep_to_share(config["gpus"]), watch_preemption() as has_notice:
        run(Job(**config["job"]), lambda row: tune.report(_select_reported(row)), device, has_notice)


def wait_for_ends() -> None:
    """Has Tune wait until a stopped trial has freed what it held, in the actor that this is called in.

    After 2 seconds, its default, Tune ends the actor, and with it the trial that should run there next.
    """
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = str(END_TIMEOUT_S)


@contextmanager
def keep_to_share(gpus: float) -> Iterator[None]:
    """Leaves the others' parts of a shared GPU to them for a `with` block, and what is freed at its end."""
    if 0 < gpus < 1:
        torch.cuda.set_per_process_memory_fraction(gpus)
    try:
        yield
    finally:
        release_memory()


def _check_code(driver: Fingerprint, folder: str) -> None:
    """RuntimeError, and the trial's failure, where this process runs other code than the driver."""
    if difference := describe_difference(driver, get_fingerprint()):
        failure = {"kind": "error", "reason": difference, "traceback": ""}
        Folder(folder).write_json(file_names.FAILURE, failure)
        raise RuntimeError(difference)


def release_memory() -> bool:
    """Returns freed memory to the system; whether there was any on the host, and the C library can.

    A GPU's goes back to the trials that share it.

    An actor runs trial after trial, each in a thread of its own, and glibc keeps what every thread's heap has
    freed; malloc_trim is glibc's own and has no counterpart in Python.
    """
    gc.collect()  # CUDA graphs and what they were recorded from hold each other
    torch.cuda.empty_cache()  # nothing, where no GPU was used
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and bool(trim(0))


def _select_reported(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in REPORTED_KEYS} | select_scores(row)


def run_in_train(config: dict[str, Any]) -> None:
    """Trains the given jobs, one after another, as one of the workers of a Ray Train job."""
    import ray.train
    import ray.train.torch
    import ray.util

    group = ray.util.get_current_placement_group()

    def report(row: dict[str, Any]) -> None:
        try:
            ray.train.report(_select_reported(row) | {"placement_group": group})
        except ray.exceptions.RayError as error:
            raise ReporterGone(f"Ray Train's controller is gone: {error}") from error

    mps.join()
    with watch_preemption(config["node"]) as has_notice:
        for job in config["jobs"]:
            _check_code(config["driver"], job["folder"])
            with keep_to_share(config["gpus"]):
                run(Job(**job), report, ray.train.torch.get_device(), has_notice)


def run_train_job(
    jobs: list[Job], workers: int, size: WorkerSize, name: str, inside_tune: bool, is_elastic: bool = False
) -> None:
    """Runs jobs one after another in one Ray Train job.

    What a trial leaves is in its own folder; Train's storage is a temporary one, which is gone afterwards.

    Args:
        jobs: What is trained.
        workers: Processes that share a batch.
        size: What each of them takes.
        name: Of the Ray Train job.
        inside_tune: Whether a Tune trial drives it, which each epoch is reported to.
        is_elastic: Whether it ends, as preempted, where it would wait for room for so many workers.

    Raises:
        TrainingFailedError: Ray Train's: a job failed, or a worker was lost.
        KeyboardInterrupt: It was interrupted.
    """
    import ray
    from ray.train import ControllerError, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    resources = {"CPU": size.cpus} | ({"GPU": size.gpus} if size.gpus else {})
    node = ray.get_runtime_context().get_node_id()  # of Train's controller, too
    with temporary_folder(jobs[0].folder) as storage:
        trainer = TorchTrainer(
            run_in_train,
            train_loop_config={
                "jobs": [asdict(job) for job in jobs],
                "driver": get_fingerprint(),
                "node": node,
                "gpus": size.gpus,
            },
            torch_config=TorchConfig(backend="nccl" if size.gpus else "gloo", timeout_s=COLLECTIVE_TIMEOUT_S),
            scaling_config=ScalingConfig(
                num_workers=workers, use_gpu=size.gpus > 0, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name=name,
                storage_path=storage,
                callbacks=[TuneReportCallback()] if inside_tune else [],
                failure_config=FailureConfig(
                    max_failures=0, controller_failure_limit=0 if is_elastic else -1
                ),
            ),
        )
        with keep_interrupt_handler():
            try:
                trainer.fit()
            except SystemExit:  # Ray Train's answer to Ctrl-C, with 0 for its status
                raise KeyboardInterrupt from None
            except ControllerError as error:
                if hasattr(error.controller_failure, "num_workers"):  # private: of those without a place
                    failure = describe_failure(Preempted(f"{workers} workers found no room"))
                    Folder(jobs[0].folder).write_json(file_names.FAILURE, failure)
                raise


@contextmanager
def keep_interrupt_handler() -> Iterator[None]:
    """Keeps for a `with` block what Ctrl-C means: Ray Train and Tune leave handlers of their own behind."""
    previous = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, previous)


def run_nested_trial(config: dict[str, Any]) -> None:
    """Runs a trial of several workers: a Tune trial that drives a Ray Train job."""
    size = WorkerSize(config["cpus"], config["gpus"])
    run_train_job([Job(**config["job"])], config["workers"], size, config["name"], True, config["is_elastic"])

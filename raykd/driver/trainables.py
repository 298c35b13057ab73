"""How a trial meets Ray: in the actor of its Ray Tune trial, or as a Ray Train job of several workers."""

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from tempfile import TemporaryDirectory
from typing import Any

import torch

from raykd.training.trial import Job, ReporterGone, run

REPORTED_KEYS = (
    "epoch",
    "accuracy",
    "final",
    "seconds",
    "parameters",
)  # of an epoch's row, those that Ray gets


def run_in_tune(config: dict[str, Any]) -> None:
    """A trial of one worker, in the actor of its Tune trial."""
    from ray import tune

    device = torch.device("cuda" if config["gpus"] else "cpu")
    try:
        run(Job(**config["job"]), lambda row: tune.report(_select_reported(row)), device)
    finally:
        _release_memory()


def _release_memory() -> None:
    """Return freed memory to the system, where the C library can: an actor runs trial after trial, each in a
    thread of its own, and glibc keeps what every thread's heap has freed.
    """
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def _select_reported(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in REPORTED_KEYS}


def run_in_train(config: dict[str, Any]) -> None:
    """One of the workers of a Ray Train job that trains the given jobs, one after another."""
    import ray.train
    import ray.train.torch
    import ray.util

    group = ray.util.get_current_placement_group()

    def report(row: dict[str, Any]) -> None:
        try:
            ray.train.report(_select_reported(row) | {"placement_group": group})
        except ray.exceptions.RayError as error:
            raise ReporterGone(f"Ray Train's controller is gone: {error}") from error

    for job in config["jobs"]:
        run(Job(**job), report, ray.train.torch.get_device())


def run_train_job(
    jobs: list[Job], workers: int, cpus: float, gpus: float, name: str, inside_tune: bool
) -> None:
    """Run jobs one after another in one Ray Train job of `workers` processes. What a trial leaves is in its
    own folder; Train's storage is a temporary one, which is gone afterwards.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    resources = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    with TemporaryDirectory(prefix="raykd-", ignore_cleanup_errors=True) as storage:
        trainer = TorchTrainer(
            run_in_train,
            train_loop_config={"jobs": [asdict(job) for job in jobs]},
            torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=workers, use_gpu=gpus > 0, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name=name,
                storage_path=storage,
                callbacks=[TuneReportCallback()] if inside_tune else [],
                failure_config=FailureConfig(max_failures=0),
            ),
        )
        with keep_interrupt_handler():
            try:
                trainer.fit()
            except SystemExit:  # Ray Train's answer to Ctrl-C, with 0 for its status
                raise KeyboardInterrupt from None


@contextmanager
def keep_interrupt_handler() -> Iterator[None]:
    """Ctrl-C means afterwards what it meant before: Ray Train and Tune leave handlers of their own behind."""
    previous = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, previous)


def run_nested_trial(config: dict[str, Any]) -> None:
    """A trial of several workers: a Tune trial that drives a Ray Train job."""
    run_train_job(
        [Job(**config["job"])], config["workers"], config["cpus"], config["gpus"],
        name=config["name"], inside_tune=True,
    )  # fmt: skip

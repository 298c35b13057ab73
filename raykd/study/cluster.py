"""What a trial takes of a cluster: workers, their CPUs and GPUs, and how its losses and errors count."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator, model_validator

from raykd.spec import Count, Spec


def _check_amount(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value == "auto" or (is_number and 0 <= value < math.inf):
        return value if value == "auto" else float(value)
    raise ValueError("should be auto or a number, 0 or more")


def _check_cpus(value: Any) -> Any:
    if value == 0:
        raise ValueError("should be auto or more than 0")
    return value


def _check_gpus(value: Any) -> Any:
    if value != "auto" and value > 1 and value != int(value):
        raise ValueError("should be auto, a part of 1, or whole: Ray gives parts of one GPU only")
    return value


Amount = Annotated[float | Literal["auto"], PlainValidator(_check_amount)]


class Workers(Spec):
    """How many processes share a trial's batches: as many as are free, within these bounds."""

    min: Count = 1
    max: Count

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min = {self.min} is more than max = {self.max}")
        return self


def _read_workers(value: Any) -> Any:
    """A number stands for both bounds."""
    if isinstance(value, dict | Workers):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("should be a whole number, 1 or more, or {min: ..., max: ...}")
    return {"min": value, "max": value}


def _write_workers(workers: Workers) -> int | dict[str, int]:
    return workers.min if workers.min == workers.max else {"min": workers.min, "max": workers.max}


class Cluster(Spec):
    """What a trial takes. Trials of one worker run in the Tune actor; of several, as a Ray Train job."""

    # processes that share a trial's batches; one that lost nodes goes on with those left, within {min, max}
    workers: Annotated[Workers, BeforeValidator(_read_workers), PlainSerializer(_write_workers)] = Workers(
        max=1
    )
    # of one worker; `auto`: chosen at launch for the cluster that is there (driver/resources.py)
    cpus: Annotated[Amount, AfterValidator(_check_cpus)] = "auto"
    gpus: Annotated[Amount, AfterValidator(_check_gpus)] = "auto"  # a part of a GPU puts several trials on it
    always_train: bool = False  # Ray Train also for one worker
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 10.0  # a state at least so often, inside an epoch too
    teacher_cache_gib: Annotated[float, Field(ge=0)] = 8.0  # of each node's disk; 0: no teacher is cached
    max_errors: Count = 1  # a trial fails at so many; lost processes and machines do not count
    on_divergence: Literal["prune", "fail"] = "fail"  # what a loss that is not finite makes of a trial

    @property
    def uses_ray_train(self) -> bool:
        """Whether a trial is a Ray Train job."""
        return self.workers.max > 1 or self.always_train

    @property
    def num_cpus(self) -> float:
        """CPUs of a worker; `auto` must have become a number."""
        assert self.cpus != "auto"
        return self.cpus

    @property
    def num_gpus(self) -> float:
        """GPUs of a worker; `auto` must have become a number."""
        assert self.gpus != "auto"
        return self.gpus

"""How weights move: SGD, and learning-rate schedules whose milestones are fractions of the budget."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from raykd.spec import Choice, Range, Spec

Fraction = Annotated[float, Field(gt=0, lt=1)]


class Optimizer(Spec):
    """SGD with momentum, at the settings of RepDistiller's CIFAR-100 protocol.

    `accumulate` cuts each worker's share of a batch into so many micro-batches, one after another, when the
    batch does not fit the device. A loss that is a mean over images stays the same; what a method compares
    within a batch (contrast with its other images, batch statistics) is a micro-batch of all workers then,
    and a local batch norm sees one worker's micro-batch.
    """

    lr: Annotated[float, Field(gt=0), Range(0.005, 0.5, log=True)] = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1), Range(0.8, 0.98)] = 0.9
    weight_decay: Annotated[float, Field(ge=0), Range(1e-5, 5e-3, log=True)] = 5e-4
    nesterov: bool = False
    batch_size: Annotated[int, Field(ge=2), Choice((32, 64, 128, 256))] = 64  # of all workers together
    accumulate: Annotated[int, Field(ge=1)] = 1  # micro-batches of a worker in each step
    lr_base_size: Annotated[int, Field(ge=1)] | None = None  # the batch size that `lr` is for; None: for any
    decay_scalars: bool = False  # the released codes also decay learnable temperatures and biases (ruling 2)

    @property
    def scaled_lr(self) -> float:
        """The learning rate of `batch_size`: scaled linearly where `lr` is for another (arXiv:1706.02677)."""
        return self.lr if self.lr_base_size is None else self.lr * self.batch_size / self.lr_base_size

    def check_batch_size(self, workers: int, images: int | None = None) -> None:
        """Checks that workers, and the micro-batches of each, share every batch evenly.

        Args:
            workers: Processes that share a batch.
            images: To train on, where they are known: one batch of them must be possible.

        Raises:
            ValueError: They cannot.
        """
        micro = f", each in {self.accumulate} micro-batches" if self.accumulate > 1 else ""
        if images is not None and self.batch_size > images:
            raise ValueError(
                f"optimizer/batch_size = {self.batch_size} is more than the {images} training images"
            )
        if self.batch_size % (workers * self.accumulate):
            number = f"{workers} worker{'s' * (workers > 1)}"
            raise ValueError(
                f"optimizer/batch_size = {self.batch_size} cannot be shared evenly by {number}{micro}"
            )

    def make(
        self, module: nn.Module, parts: Mapping[str, nn.Module] = MappingProxyType({})
    ) -> torch.optim.SGD:
        """Returns an SGD over a module's parameters.

        Learnable scalars (temperatures, biases) take no weight decay unless `decay_scalars`. `parts` of the
        module with a learning rate of their own have groups of their own, whose "part" is the name; "" is all
        the rest.
        """
        owners = {p: name for name, part in parts.items() for p in part.parameters()}
        groups = [
            {
                "part": name,
                "params": [
                    p for p in module.parameters() if owners.get(p, "") == name and (p.ndim == 0) == is_scalar
                ],
                "weight_decay": 0.0 if is_scalar and not self.decay_scalars else self.weight_decay,
            }
            for name in ("", *parts)
            for is_scalar in (False, True)
        ]
        return torch.optim.SGD(
            [g for g in groups if g["params"]],
            lr=self.scaled_lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            fused=True,
        )


class StepDecay(Spec):
    """The learning rate times `factor` after each milestone, a fraction of the epochs.

    The default is 150, 180 and 210 of 240 epochs, as in CRD (arXiv:1910.10699).
    """

    kind: Literal["step"] = "step"
    milestones: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (0.625, 0.75, 0.875)
    factor: Annotated[float, Field(gt=0, lt=1), Range(0.05, 0.5, log=True)] = 0.1

    def scale(self, epoch: int, epochs: int) -> float:
        """Returns the factor on the learning rate in an epoch (1-based) of so many."""
        return math.prod(self.factor for m in self.milestones if epoch > m * epochs)


class CosineDecay(Spec):
    """The learning rate follows half a cosine to zero, a step an epoch."""

    kind: Literal["cosine"] = "cosine"

    def scale(self, epoch: int, epochs: int) -> float:
        """Returns the factor on the learning rate in an epoch (1-based) of so many."""
        return 0.5 * (1 + math.cos(math.pi * (epoch - 1) / epochs))


Schedule = Annotated[StepDecay | CosineDecay, Field(discriminator="kind")]

"""How weights move: SGD or AdamW, and learning-rate schedules whose times are fractions of the budget."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from raykd.spec import Choice, Range, Spec

Fraction = Annotated[float, Field(gt=0, lt=1)]


class Optimizer(Spec):
    """SGD with momentum, at the settings of RepDistiller's CIFAR-100 protocol; or AdamW (arXiv:1711.05101).

    `momentum` is AdamW's beta1, as in torch's OneCycleLR; AdamW's `weight_decay` is decoupled from gradients.
    AdamW wants other values of `lr` and `weight_decay`: a study with it says their ranges in `space`.

    `accumulate` cuts each worker's share of a batch into so many micro-batches, one after another, when the
    batch does not fit the device. A loss that is a mean over images stays the same; what a method compares
    within a batch (contrast with its other images, batch statistics) is a micro-batch of all workers then,
    and a local batch norm sees one worker's micro-batch.
    """

    name: Annotated[Literal["sgd", "adamw"], Choice(("sgd", "adamw"))] = "sgd"
    lr: Annotated[float, Field(gt=0), Range(0.005, 0.5, log=True)] = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1), Range(0.8, 0.98)] = 0.9
    beta2: Annotated[float, Field(gt=0, lt=1), Range(0.95, 0.999)] = 0.999  # of AdamW; SGD has none
    weight_decay: Annotated[float, Field(ge=0), Range(1e-5, 5e-3, log=True)] = 5e-4
    nesterov: bool = False
    batch_size: Annotated[int, Field(ge=2), Choice((32, 64, 128, 256, 512, 1024, 2048))] = (
        64  # of all workers
    )
    # images of a class that stand together in a batch; an epoch then leaves out a class's odd rest
    images_per_class: Annotated[int, Field(ge=1), Choice((1, 2, 4))] = 1
    accumulate: Annotated[int, Field(ge=1)] = 1  # micro-batches of a worker in each step
    lr_base_size: Annotated[int, Field(ge=1)] | None = None  # the batch size that `lr` is for; None: for any
    warmup: Annotated[float, Field(ge=0, lt=1), Range(0, 0.2)] = (
        0.0  # part of the training: lr rises each step
    )
    lr_updates: Literal["epoch", "step"] = "epoch"  # when the schedule moves; step decay: at epochs' ends
    clip_norm: Annotated[float | None, Field(gt=0), Range(0.1, 10, log=True)] = (
        None  # of all gradients together
    )
    decay_vectors: Annotated[bool, Choice((True, False))] = True  # also biases and the norms' weights
    decay_scalars: bool = False  # the released codes also decay learnable temperatures and biases (ruling 2)

    @model_validator(mode="after")
    def _check_nesterov(self) -> Self:
        if self.name == "adamw" and self.nesterov:
            raise ValueError("nesterov is of sgd: adamw has none")
        return self

    @property
    def scaled_lr(self) -> float:
        """The learning rate of `batch_size`: scaled linearly where `lr` is for another (arXiv:1706.02677)."""
        return self.lr if self.lr_base_size is None else self.lr * self.batch_size / self.lr_base_size

    def check_batch_size(self, workers: int, images: int | None = None, views: int = 1) -> None:
        """Checks that workers, and the micro-batches of each, share every batch evenly.

        Args:
            workers: Processes that share a batch.
            images: To train on, where they are known: one batch of them must be possible.
            views: Of an image in a batch.

        Raises:
            ValueError: They cannot.
        """
        micro = f", each in {self.accumulate} micro-batches" if self.accumulate > 1 else ""
        if images is not None and self.batch_size > images * views:
            raise ValueError(
                f"optimizer/batch_size = {self.batch_size} is more than the {images} training images"
            )
        if self.batch_size % (workers * self.accumulate):
            number = f"{workers} worker{'s' * (workers > 1)}"
            raise ValueError(
                f"optimizer/batch_size = {self.batch_size} cannot be shared evenly by {number}{micro}"
            )
        share = self.batch_size // (workers * self.accumulate)
        if share % (self.images_per_class * views):
            each = f" by {views} views each" if views > 1 else ""
            raise ValueError(
                f"optimizer/images_per_class = {self.images_per_class}: a worker's {share} images{micro} are "
                f"no whole number of groups of {self.images_per_class}{each}"
            )

    def compute_lr(self, schedule: "Schedule", step: int, steps_per_epoch: int, epochs: int) -> float:
        """Returns the learning rate of a step (0-based, of the whole training).

        The schedule's, times (step + 1) / steps of the warm-up while that lasts.
        """
        epoch = 1 + (step / steps_per_epoch if self.lr_updates == "step" else step // steps_per_epoch)
        lr = self.scaled_lr * schedule.scale(epoch, epochs, self.warmup)
        warmup_steps = round(self.warmup * epochs * steps_per_epoch)
        return lr * (step + 1) / warmup_steps if step < warmup_steps else lr

    def make(
        self, module: nn.Module, parts: Mapping[str, nn.Module] = MappingProxyType({})
    ) -> torch.optim.Optimizer:
        """Returns an optimiser of a module's parameters.

        Learnable scalars (temperatures, biases) take no weight decay unless `decay_scalars`, vectors (the
        biases of layers, the weights of norms) unless `decay_vectors`. `parts` of the module with a learning
        rate of their own have groups of their own, whose "part" is the name; "" is all the rest.
        """
        owners = {p: name for name, part in parts.items() for p in part.parameters()}
        is_decayed = {0: self.decay_scalars, 1: self.decay_vectors}
        groups = [
            {
                "part": name,
                "params": [
                    p
                    for p in module.parameters()
                    if owners.get(p, "") == name and is_decayed.get(p.ndim, True) == decays
                ],
                "weight_decay": self.weight_decay if decays else 0.0,
            }
            for name in ("", *parts)
            for decays in (True, False)
        ]
        groups = [g for g in groups if g["params"]]
        if self.name == "adamw":
            return torch.optim.AdamW(groups, lr=self.scaled_lr, betas=(self.momentum, self.beta2), fused=True)
        return torch.optim.SGD(
            groups, lr=self.scaled_lr, momentum=self.momentum, nesterov=self.nesterov, fused=True
        )


class StepDecay(Spec):
    """The learning rate times `factor` after each milestone, a fraction of the epochs.

    The default is 150, 180 and 210 of 240 epochs, as in CRD (arXiv:1910.10699).
    """

    kind: Literal["step"] = "step"
    milestones: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (0.625, 0.75, 0.875)
    factor: Annotated[float, Field(gt=0, lt=1), Range(0.05, 0.5, log=True)] = 0.1

    def scale(self, epoch: float, epochs: int, warmup: float = 0.0) -> float:
        """Returns the factor on the learning rate.

        Args:
            epoch: 1-based, and the part of it that is done: 3.5 is the middle of the third.
            epochs: Of the training.
            warmup: Its part in which the learning rate rises; it moves no milestone.
        """
        return math.prod(self.factor for m in self.milestones if math.floor(epoch) > m * epochs)


class CosineDecay(Spec):
    """The learning rate follows half a cosine to zero, from the end of the warm-up on (arXiv:1608.03983)."""

    kind: Literal["cosine"] = "cosine"

    def scale(self, epoch: float, epochs: int, warmup: float = 0.0) -> float:
        """Returns the factor on the learning rate; the arguments are StepDecay's."""
        rising = warmup * epochs
        return 0.5 * (1 + math.cos(math.pi * max(0, epoch - 1 - rising) / (epochs - rising)))


class WarmupStableDecay(Spec):
    """WSD: the learning rate stays, and in the last part falls in a line to zero (arXiv:2404.06395)."""

    kind: Literal["wsd"] = "wsd"
    decay: Annotated[float, Field(gt=0, le=1), Range(0.05, 0.5)] = 0.2  # the last part of the training

    def scale(self, epoch: float, epochs: int, warmup: float = 0.0) -> float:
        """Returns the factor on the learning rate; the arguments are StepDecay's."""
        return min(1.0, (epochs - (epoch - 1)) / (self.decay * epochs))


Schedule = Annotated[StepDecay | CosineDecay | WarmupStableDecay, Field(discriminator="kind")]

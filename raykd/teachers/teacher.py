"""Teachers: whose outputs a batch gets: a live forward pass's, or none."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from raykd import models
from raykd.batch import Batch, Head, Outputs, OutputShapes, Stages, Wrap, empty_outputs
from raykd.data import ViewIndex
from raykd.paths import PACKAGE, hash_code
from raykd.teachers.cache_form import EXACT, CacheForm


@dataclass
class CacheStats:
    """What a teacher's cache has given so far."""

    hits: int = 0  # views whose outputs were in the cache
    misses: int = 0  # views whose outputs were not
    seconds_saved: float = 0.0  # of forward passes


class Teacher(Protocol):
    """What a student's training needs of a teacher: its Outputs of a batch, and their shapes."""

    shapes: OutputShapes

    @property
    def cache_stats(self) -> CacheStats:
        """What its cache has given so far."""
        ...

    def get_outputs(self, batch: Batch) -> Outputs:
        """Returns the outputs of each view in the batch, on its device."""
        ...

    def wrap(self, wrap: Wrap) -> None:
        """Has its nets' forward passes wrapped."""
        ...


class NoTeacher:
    """Empty outputs, for methods that need no teacher."""

    shapes = OutputShapes(0, 0, ())

    def __init__(self) -> None:
        self.cache_stats = CacheStats()

    def get_outputs(self, batch: Batch) -> Outputs:
        """Returns outputs without numbers."""
        return empty_outputs(len(batch.labels), batch.images.device)

    def wrap(self, wrap: Wrap) -> None:
        """Wraps nothing."""


class LiveTeacher:
    """A frozen net that every batch is passed through; its outputs are as `form` keeps them."""

    def __init__(
        self,
        net: models.Net,
        image_size: int,
        device: torch.device,
        bf16: bool,
        form: CacheForm = EXACT,
    ) -> None:
        self.shapes, self.cache_stats, self.form = net.shapes(image_size), CacheStats(), form
        form.check(self.shapes)
        self._net = net.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self._device, self._bf16 = device, bf16
        head = (tensor.detach().clone() for tensor in net.get_head())
        self._wrapped: Callable[[Tensor], Outputs] | None = None
        self.head = Head(*head)  # the classifier's own tensors: weight [classes, embedding], bias [classes]
        if bf16:
            _round_weights(net)

    @property
    def stages(self) -> Stages | None:
        """Its stages by themselves; None where its net cannot run them."""
        return models.NetStages(self._net, self._bf16) if isinstance(self._net, models.StagedNet) else None

    def get_outputs(self, batch: Batch) -> Outputs:
        """Returns the outputs of a forward pass, and counts its views as misses of a cache."""
        self.cache_stats.misses += len(batch.images)
        outputs = self.forward(batch.images)
        if self.form.is_exact:
            return outputs
        kept = self.form.apply(outputs.logits, outputs.embedding, self.shapes)
        return outputs._replace(logits=kept.logits, embedding=kept.embedding)

    def wrap(self, wrap: Wrap) -> None:
        """Has its forward pass wrapped."""
        self._wrapped = wrap("teacher", self._run_net)

    def forward(self, images: Tensor) -> Outputs:
        """Returns the net's outputs for images [n, 3, size, size], without gradients."""
        return (self._wrapped or self._run_net)(images)

    def compute_logits(self, images: Tensor) -> Tensor:
        """Returns logits [n, c], float32, for images [n, 3, size, size], with gradients for these."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            logits: Tensor = self._net(images).logits
        return logits.float()

    def _run_net(self, images: Tensor) -> Outputs:
        with torch.no_grad(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            outputs: Outputs = self._net(images)
            return outputs._replace(head=self.head)

    def compute_cache_key(self, view_index: ViewIndex) -> str:
        """Returns a hash of all that decides the outputs for the views of an index: 32 hexadecimal digits.

        The code that makes views and nets is of it: whatever an upgrade changes is computed anew.
        """
        digest = hashlib.sha256()
        settings: list[Any] = [torch.__version__, *(hash_code(PACKAGE / name) for name in ("data", "models"))]
        settings += [self._device.type, self._bf16, view_index.key, self.form.model_dump()]
        digest.update(
            json.dumps([*settings, type(self._net).__qualname__ + self._net.key, self.shapes]).encode()
        )
        for name, value in sorted(self._net.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:32]


def _round_weights(net: models.Net) -> None:
    """Stores weights in bfloat16 as autocast would round them at each batch: the same outputs."""
    for module in net.modules():
        if type(module) in (nn.Conv2d, nn.Linear):  # what derives from them may do something else with them
            module.to(torch.bfloat16)

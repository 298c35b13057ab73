"""CE: the cross-entropy with the labels, no teacher. The control that every distillation method must beat."""

from typing import Literal

from torch import Tensor

from raykd.batch import MethodBatch
from raykd.methods import _base


class Config(_base.MethodConfig):
    name: Literal["ce"] = "ce"


class Method(_base.Method):
    needs = frozenset()
    status = "official"
    paper = "No distillation: cross-entropy with the labels"

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        return {}

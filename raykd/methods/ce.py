"""CE: the cross-entropy with the labels, no teacher. The control that every distillation method must beat."""

from typing import Literal

from torch import Tensor

from raykd.batch import MethodBatch
from raykd.methods import _base


class Config(_base.MethodConfig):
    """The settings: none."""

    name: Literal["ce"] = "ce"


class Method(_base.Method):
    """No terms: what is left is the cross-entropy with the labels."""

    needs = frozenset()
    status = "official"
    paper = "No distillation: cross-entropy with the labels"

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns no terms."""
        return {}

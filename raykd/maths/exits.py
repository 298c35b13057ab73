"""Exits: classifiers on a net's inner maps, which shrink and widen as its remaining stages do.

Read in hjdw2/Exit-Ensemble-Distillation and hjdw2/BEED, resnet.py: three exits, after the first three of
ResNet18's four stages. Here they are on the three maps before the last one: the first exit of a net of
three stages reads its stem. Legend: n images, c classes, d width of the embedding.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from raykd.batch import MethodBatch, MethodContext

NUM_EXITS = 3
MakeStage = Callable[[int, int, int], nn.Module]  # (channels in, channels, stride) of an exit's stage


class ExitOutputs(NamedTuple):
    """Of each exit, shallow to deep, and of the net, which is last; upright views, float32."""

    logits: list[Tensor]  # [n, c]
    maps: list[Tensor]  # [n, d, h, w], whose spatial means the classifiers read


class Exits(nn.Module):
    """The exits of a student. ValueError where it has too few maps."""

    def __init__(self, context: MethodContext, make_stage: MakeStage) -> None:
        super().__init__()
        maps = context.student.maps
        if len(maps) <= NUM_EXITS:
            raise ValueError(
                f"{NUM_EXITS} exits need a student of at least {NUM_EXITS + 1} maps, but it has {len(maps)}"
            )
        shapes = [*maps[-NUM_EXITS - 1 : -1], context.student.pooled]
        self.bodies = nn.ModuleList(
            nn.Sequential(
                *(
                    make_stage(before[0], after[0], -(-before[1] // after[1]))
                    for before, after in zip(shapes[k:], shapes[k + 1 :], strict=False)
                )
            )
            for k in range(NUM_EXITS)
        )
        self.heads = nn.ModuleList(
            nn.Linear(context.student.embedding, context.student.classes) for _ in range(NUM_EXITS)
        )

    def forward(self, batch: MethodBatch) -> ExitOutputs:
        """Returns what the exits put out, and the net itself."""
        upright, outputs = batch.upright, batch.student
        inner = (outputs.preacts or outputs.maps)[-NUM_EXITS - 1 : -1]
        maps = [body(F.relu(x[upright].float())) for body, x in zip(self.bodies, inner, strict=True)]
        logits = [head(x.mean(dim=(2, 3))) for head, x in zip(self.heads, maps, strict=True)]
        return ExitOutputs(
            [*logits, outputs.logits[upright].float()], [*maps, outputs.pooled[upright].float()]
        )

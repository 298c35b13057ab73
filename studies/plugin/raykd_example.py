"""A net and a method of one's own: `--plugin` takes this file, pyproject.toml beside it makes it a package."""

from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from raykd.batch import MethodBatch, Outputs, OutputShapes
from raykd.methods import Method, MethodConfig, Weights
from raykd.models import Net
from raykd.models.layers import make_output_shapes, make_outputs
from raykd.spec import Range


class TwoConvolutions(Net):
    """A small net: two convolutions of stride 2, the mean of the last map, a linear classifier `fc`."""

    head = "fc"

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers = ((3, 16), (16, 32))
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), nn.ReLU()) for i, o in layers
        )
        self.fc = nn.Linear(32, classes)

    def forward(self, images: Tensor) -> Outputs:
        first = self.stages[0](images)
        last = self.stages[1](first)
        return make_outputs((first, last), last, self.fc)

    def shapes(self, image_size: int) -> OutputShapes:
        return make_output_shapes(image_size, ((16, 2), (32, 2)), self.fc)


class CosineWeights(Weights):
    cosine: Annotated[float, Range(0.1, 20, log=True)] = 2.0


class CosineConfig(MethodConfig):
    name: Literal["logit_cosine"] = "logit_cosine"
    weights: CosineWeights = CosineWeights()


class LogitCosine(Method):
    """1 - the cosine of the two nets' logits, each row less its mean."""

    config: CosineConfig
    needs = frozenset({"logits"})
    status = "reconstruction"
    paper = "an example, of no paper"

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        student, teacher = batch.student.logits.float(), batch.teacher.logits.detach().float()
        student, teacher = student - student.mean(1, keepdim=True), teacher - teacher.mean(1, keepdim=True)
        return {"cosine": (1 - F.cosine_similarity(student, teacher)).mean()}


nets = {"two_convolutions": TwoConvolutions}
methods = {"logit_cosine": LogitCosine}

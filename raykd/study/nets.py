"""The nets of a recipe, and what they begin with."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from raykd import models
from raykd.errors import UserError
from raykd.paths import resolve
from raykd.spec import Spec
from raykd.study.starts import PRETRAINED


def _check_net(name: str) -> str:
    try:
        models.check_name(name)
    except UserError as error:
        raise ValueError(str(error)) from None
    return name


Net = Annotated[str, AfterValidator(_check_net)]
Options = dict[str, bool | int | float | str]  # of a net of timm or torchvision, and `size`: pixels of a side


def _resolve_weights(weights: str) -> str:
    return weights if weights == PRETRAINED else resolve(weights)


class NetSpec(Spec):
    """A net, and what it begins with.

    `weights` is a path (relative to the current folder), a URL with its `sha256`, or `pretrained`: those that
    the net's own library publishes, fetched where --download allows it. Without weights the start is random.
    `head: new` draws the classifier anew, for data of other classes than those of the weights.
    """

    role: ClassVar[str]  # in messages

    net: Net
    options: Options = Field(default_factory=dict)
    weights: Annotated[str, AfterValidator(_resolve_weights)] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None  # of the file; filled in at launch
    head: Literal["loaded", "new"] = "loaded"

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if self.weights is None and (self.sha256 is not None or self.head == "new"):
            raise ValueError("sha256 and head are of weights, and there are none")
        if self.sha256 is None and (self.weights or "").startswith(("http://", "https://")):
            raise ValueError("weights from a URL need their sha256, by which the download is verified")
        if self.weights == PRETRAINED and not models.has_pretrained(self.net):
            raise ValueError(f"no library publishes weights of {self.net}: name a file or a URL")
        return self


class StudentSpec(NetSpec):
    """The net that learns; `copies` of it, each drawn by itself, where students teach one another.

    The first one is selected by, exported and reported: a choice that is made before anything is trained, so
    that no trial gains by being the best of several draws.
    """

    role = "student"

    copies: Annotated[int, Field(ge=1, le=8)] = 1

    @model_validator(mode="after")
    def _check_copies(self) -> Self:
        if self.copies > 1 and self.weights is not None and self.head == "loaded":
            raise ValueError(
                f"copies = {self.copies} of one net with its weights would stay alike; head = new draws apart"
            )
        return self


class PeerSpec(NetSpec):
    """Another net that learns beside the student and its copies."""

    role = "peer"

"""What the contract tries: a method on nets that it serves, and synthetic outputs, six images a batch."""

from dataclasses import dataclass, field
from typing import Any

import torch

from raykd import methods
from raykd.batch import MethodBatch, MethodContext
from raykd.contract.synthetic_batch import (
    CONTEXT,
    FITNET_CONTEXT,
    IMAGES,
    PEERS_CONTEXT,
    STAGES_CONTEXT,
    STUDENT,
    TEACHER,
    make_batch,
    show_twice,
    with_branches,
    with_stages,
)
from raykd.errors import UserError, first_line
from raykd.methods import Method, MethodConfig

EQUAL = CONTEXT._replace(student=STUDENT._replace(embedding=TEACHER.embedding))  # widths
CONTEXTS = (CONTEXT, EQUAL, FITNET_CONTEXT, STAGES_CONTEXT)


class BrokenPromise(AssertionError):
    """A method does not keep a promise; the text says which and how."""


@dataclass(frozen=True)
class Subject:
    """A method on trial: its name, and the settings beside the paper's at which it is tried."""

    name: str
    arms: tuple[dict[str, Any], ...] = ()
    context: MethodContext = field(init=False)  # the first of CONTEXTS that it can serve

    def __post_init__(self) -> None:
        object.__setattr__(self, "context", _find_context(self.name))

    @property
    def configs(self) -> list[MethodConfig]:
        """Returns the paper's point and the arms."""
        config_class = methods.get_config_class(self.name)
        return [config_class.model_validate({"name": self.name} | arm) for arm in ({}, *self.arms)]

    @property
    def rotations(self) -> list[int]:
        """Returns the numbers of views of an image that it serves."""
        needed = methods.get_class(self.name).rotations
        return [1, 4] if needed is None else [needed]

    def make(self, config: MethodConfig | None = None, seed: int = 0) -> Method:
        """Returns the method, its own weights drawn from the seed."""
        torch.manual_seed(seed)
        return methods.make(self.name, self.context, config)

    def batch(self, seed: int = 0, rotations: int | None = None) -> MethodBatch:
        """Returns a batch; another seed is another one."""
        rotations = rotations or self.rotations[0]
        batch = with_stages(make_batch(seed, rotations, self.context), self.context)
        return batch if methods.get_class(self.name).views == 1 else show_twice(batch, rotations)


def _find_context(name: str) -> MethodContext:
    refusals = []
    has_peers = methods.get_class(name).students != "one"
    for context in map(with_branches, (PEERS_CONTEXT,) if has_peers else CONTEXTS):
        try:
            with torch.device("meta"):
                methods.make(name, context._replace(labels=torch.zeros(IMAGES, dtype=torch.int64)))
        except UserError:
            raise
        except Exception as error:
            refusals.append(f"{type(error).__name__}: {first_line(error)}")
        else:
            return context
    raise BrokenPromise(f"serves none of the nets of the contract: {'; '.join(dict.fromkeys(refusals))}")

"""Members of a net, which share its weights but for rank-one factors (BatchEnsemble, arXiv:2002.06715)."""

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from raykd.batch import Outputs
from raykd.models._base import Net

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class RankOneFactors(nn.Module):
    """A weight [out, in, ...] times r_k s_k^T of the member k that runs, or r s^T of the members' means.

    The factors begin with 1: the members are alike.
    """

    def __init__(self, weight: Tensor, members: int) -> None:
        super().__init__()
        outputs, inputs = weight.shape[:2]
        # of each member by itself, [1, width]: a part of a larger tensor costs launches
        self.r, self.s = (
            nn.ParameterList(torch.ones(1, width) for _ in range(members)) for width in (outputs, inputs)
        )
        self.member: int | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """Returns the weight of the member, or of all of them as one."""
        r, s = (self._choose(factors) for factors in (self.r, self.s))
        return weight * torch.outer(r, s).view(*weight.shape[:2], *[1] * (weight.dim() - 2))

    def _choose(self, factors: nn.ParameterList) -> Tensor:
        """[width]."""
        return torch.cat([*factors]).mean(dim=0) if self.member is None else factors[self.member].flatten()


def add_members(net: nn.Module, members: int) -> None:
    """Gives every convolution and linear layer of a net the factors of so many members."""
    for module in list(net.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            factors = RankOneFactors(module.weight, members)
            parametrize.register_parametrization(module, "weight", factors)


def run_members(net: Net, members: Iterable[int], images: Tensor) -> list[Outputs]:
    """Returns the outputs of each of some members, by their numbers, for images [n, 3, size, size]."""
    outputs = []
    for member in members:
        _choose(net, member)
        outputs.append(net(images))
    _choose(net, None)
    return outputs


def merge_members(net: AnyModule) -> AnyModule:
    """Returns a copy with plain weights, those of all members as one; without members the net itself."""
    if not _list_factors(net):
        return net
    merged = copy.deepcopy(net)
    for module in list(merged.modules()):
        if parametrize.is_parametrized(module, "weight"):
            shared = type(module)  # with other copies, which would lose their weight, too
            module.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))
            parametrize.remove_parametrizations(module, "weight")
    return merged


def _choose(net: nn.Module, member: int | None) -> None:
    for factors in _list_factors(net):
        factors.member = member


def _list_factors(net: nn.Module) -> list[RankOneFactors]:
    return [module for module in net.modules() if isinstance(module, RankOneFactors)]

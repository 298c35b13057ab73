"""Memory banks of several branches of a net, one each, for MCL-OKD (arXiv:2006.04093).

Read in winycg/MCL-OKD, mcl/memory.py and mcl/criterion.py. Legend: n images of this rank, d width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from raykd.maths.bank import AnchorNegatives, NegativeDraws, Sampling, init_bank, update_bank
from raykd.maths.gather import all_gather
from raykd.maths.nce import mean_exp, nce


class BranchBanks(NegativeDraws):
    """The banks, and CRD's loss of each branch's features against every other branch's bank.

    Z is of each batch anew: the mean of exp(score) over positives and negatives, times the images.
    """

    rows: Tensor

    def __init__(
        self,
        labels: Tensor,
        dim: int,
        branches: int,
        num: int,
        sampling: Sampling,
        temperature: float,
        momentum: float,
    ) -> None:
        super().__init__(labels, num, sampling)
        self.temperature, self.momentum = temperature, momentum
        banks = [init_bank(len(labels), dim) for _ in range(branches)]
        self.register_buffer("rows", torch.stack(banks))  # [branches, images, dim]
        self.draw_seed()

    def forward(self, features: Sequence[Tensor], index: Tensor, rows: Tensor) -> Tensor:
        """Unit features [n, d] of each branch, images at index [n], `draw`'s rows -> sum over pairs.

        It updates the banks.
        """
        draws, losses = self.list_negatives(index, rows), []
        for i, anchors in enumerate(features):
            scaled = anchors / self.temperature
            for j, bank in enumerate(self.rows):
                if i != j:
                    z = self._compute_z(scaled, bank, index, draws)
                    losses += [
                        nce(scaled[chosen], bank[index[chosen]], bank, negatives, self.num, z)
                        for chosen, negatives in draws
                    ]
        for bank, moved in zip(self.rows, features, strict=True):
            update_bank(bank, index, moved, self.momentum)
        return torch.cat(losses).sum() / len(index)

    @torch.no_grad()
    def _compute_z(
        self, anchors: Tensor, bank: Tensor, index: Tensor, draws: list[AnchorNegatives]
    ) -> Tensor:
        totals = [
            (anchors[chosen] * bank[index[chosen]]).sum(dim=1).exp()
            + self.num * mean_exp(anchors[chosen], bank, negatives)
            for chosen, negatives in draws
        ]
        return all_gather(torch.cat(totals)).mean() * len(bank) / (self.num + 1)

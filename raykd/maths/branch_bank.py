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
        others, losses = len(features) - 1, []  # branches that are compared with a bank, all at once
        repeated = index.repeat_interleave(others)
        draws = self.list_negatives(repeated, rows if rows.dim() == 1 else rows.repeat_interleave(others, 0))
        for j, bank in enumerate(self.rows):
            scaled = torch.stack([x for i, x in enumerate(features) if i != j], dim=1) / self.temperature
            anchors = scaled.flatten(0, 1)  # [n * others, d]
            z = self._compute_z(anchors, bank, repeated, draws, others)
            losses += [
                nce(anchors[chosen], bank[repeated[chosen]], bank, negatives, self.num, z[chosen])
                for chosen, negatives in draws
            ]
        for bank, moved in zip(self.rows, features, strict=True):
            update_bank(bank, index, moved, self.momentum)
        return torch.cat(losses).sum() / len(index)

    @torch.no_grad()
    def _compute_z(
        self, anchors: Tensor, bank: Tensor, index: Tensor, draws: list[AnchorNegatives], others: int
    ) -> Tensor:
        """Of each anchor: its branch's and bank's, [n * others]."""
        totals = [
            (anchors[chosen] * bank[index[chosen]]).sum(dim=1).exp()
            + self.num * mean_exp(anchors[chosen], bank, negatives)
            for chosen, negatives in draws
        ]
        means = all_gather(torch.cat(totals).view(-1, others)).mean(dim=0)
        return means.repeat(len(index) // others) * len(bank) / (self.num + 1)

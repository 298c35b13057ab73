"""Linear layers of operator norm 1: what makes a critic 1-Lipschitz."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

NUM_SQUARINGS = 8

SpectralNorm = Literal["bound", "power"]


def spectral_bound(weight: Tensor) -> Tensor:
    """The Schatten norm of order 1024, (sum of singular values^1024)^(1/1024). [k, d] -> scalar.

    At least the largest singular value, and at most min(k, d)^(1/1024) of it: 0.5 % more at 128. Computed by
    squaring the Gram matrix (Gram iteration, Delattre et al. 2023, arXiv:2305.16173), so it keeps no state.
    """
    gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    log_scale = weight.new_zeros(())
    for _ in range(NUM_SQUARINGS):
        size = gram.detach().norm()  # cancels from the value, and so from the gradient
        gram = (gram / size) @ (gram / size)
        log_scale = 2 * (log_scale + size.log())
    return torch.exp((log_scale + gram.norm().log()) / 2 ** (NUM_SQUARINGS + 1))


class SpectralBoundNorm(nn.Module):
    """A parametrization: the weight over its spectral bound."""

    def forward(self, weight: Tensor) -> Tensor:
        """Returns a weight [k, d] whose norm is at most 1."""
        return weight / spectral_bound(weight)


def make_linear(width: int, dim: int, spectral_norm: SpectralNorm) -> nn.Module:
    """Returns a linear layer of norm 1, `width` -> `dim`, without bias.

    "power" is torch's spectral_norm: one power iteration a step. It finds the norm from below, so that right
    after the start the layer may stretch a vector by some per cent; "bound" never does.
    """
    layer = nn.Linear(width, dim, bias=False)
    if layer.weight.is_meta:  # whose norm nothing reads: torch's first iterations take a while there
        return layer
    if spectral_norm == "power":
        return parametrizations.spectral_norm(layer)
    parametrize.register_parametrization(layer, "weight", SpectralBoundNorm())
    return layer

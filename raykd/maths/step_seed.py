"""Random draws that follow from a seed and the number of steps: the same after a resume, and on all ranks."""

from typing import Any

import torch
from torch import Tensor, nn


class StepSeed(nn.Module):
    """A module whose state holds a seed and its number of steps, which decide the draws."""

    seed: int
    steps: int

    def draw_seed(self) -> None:
        """Draws the seed from torch's generator; no step is done."""
        self.seed, self.steps = int(torch.randint(2**62, (), device="cpu")), 0

    def get_extra_state(self) -> Tensor:
        """Returns the seed and the number of steps, which decide the draws."""
        return torch.tensor([self.seed, self.steps], device="cpu")

    def set_extra_state(self, state: Any) -> None:
        """Goes on from them."""
        self.seed, self.steps = state.tolist()

    def make_generator(self, device: torch.device) -> torch.Generator:
        """Returns the generator of this step's draws."""
        return torch.Generator(device).manual_seed(self.seed + self.steps)

"""Trainings in float64: what then still differs between two of them is no rounding."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def in_float64() -> Iterator[None]:
    """Numbers are made in float64, and what asks a tensor for float32 gets float64."""
    as_float32 = torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.Tensor.float = as_float32  # type: ignore[method-assign]

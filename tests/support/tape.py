"""What stands in for a CUDA graph on a CPU: a tape of operations and the memory they read and write.

As with a CUDA graph, a replay runs no Python of what was recorded: numbers of the host are as they were then,
results are written where they were, and what asks for a value, or for memory by a value, cannot be recorded.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape(TorchDispatchMode):
    """Records the operations within it; see raykd.training.graphs.Graph."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.replays = 0

    def capture(self, function: Callable[[], Any]) -> Any:
        """Runs the function, and writes nonsense over its results, as capturing computes nothing."""
        with self:
            result = function()
        for *_, outputs in self.calls:
            for x in outputs:
                x.detach().zero_()
        return result

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for function, args, kwargs, outputs in self.calls:
            new = function(*args, **kwargs)
            for x, result in zip(outputs, _list_new(new, args, kwargs), strict=True):
                x.copy_(result)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _needs_the_host(func, args):
            raise RuntimeError(f"{func.name()}: a graph cannot hold it")
        result = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, _list_new(result, args, kwargs)))
        return result


class Holding(TorchDispatchMode):
    """Keeps all results, as a tape does: autograd then adds up gradients beside them, not in place.

    The sum may lie otherwise in memory, and what reads it round otherwise.
    """

    def __init__(self) -> None:
        super().__init__()
        self._results: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._results.append(func(*args, **kwargs or {}))
        return self._results[-1]


def _needs_the_host(func: Any, args: Any) -> bool:
    """Whether the value or the shape of its result depends on values of tensors."""
    if func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_):
        return any(isinstance(x, Tensor) and x.dtype == torch.bool for x in args[1])
    return bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags))


def _list_new(result: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors of a result in memory of its own: no views of arguments, none written in place."""
    inputs = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
    results = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
    return [x for x in results if x.numel() and x.untyped_storage().data_ptr() not in inputs]

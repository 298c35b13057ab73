"""CUDA graphs: what a function of tensors starts on a GPU, recorded once and replayed by a single launch.

A step on small images takes as long as its hundreds of launches do. Graphed, each by itself: what makes a
batch on the device ("views"), a live teacher's outputs ("teacher"), a micro-batch's forward and backward pass
("step"). The optimiser and the averages, which are few launches, and all that the host decides stay outside.

A function runs as it is WARM_UP times, as real steps; at the next call it runs once more, everything that it
changed is put back, and it is recorded and replayed. Only if the replay gave the same bits is it replayed
from then on, so that a resumed trial equals an uninterrupted one; otherwise it stays eager, and says why.
"""

import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

# private, as are all of torch's functions of nested values
from torch.utils._pytree import register_dataclass, tree_flatten, tree_leaves, tree_map_only, tree_unflatten

from raykd.batch import Batch
from raykd.errors import first_line
from raykd.maths.foreach import copy_to_each
from raykd.maths.gather import num_ranks

WARM_UP = 3  # calls before the recording: what is made once is made, and libraries have chosen their kernels
GRAPH = "graph"  # the level of what is replayed
WAITING = f"eager: it is recorded at call {WARM_UP + 1}"  # of what was not called so often
R = TypeVar("R")
register_dataclass(Batch)


class Graph(Protocol):
    """A recording of what a function does to memory: a CUDA graph, or what stands in for one in tests."""

    def capture(self, function: Callable[[], R]) -> R:
        """Records a call; its result's tensors are those that each replay writes. RuntimeError: it cannot."""
        ...

    def replay(self) -> None:
        """Does the same again, in the same memory."""
        ...


class CudaGraph:
    """A CUDA graph with memory of its own."""

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()

    def capture(self, function: Callable[[], R]) -> R:
        """Records a call on the current stream."""
        stream = torch.cuda.current_stream()
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            return function()

    def replay(self) -> None:
        """Starts what was recorded."""
        self._graph.replay()


class Graphs:
    """The graphed functions of a trial."""

    def __init__(self, make_graph: Callable[[], Graph] = CudaGraph) -> None:
        self.make_graph = make_graph
        self._functions: list[GraphedFunction[Any]] = []
        self._eager: dict[str, str] = {}  # what is not wrapped, by its name

    def wrap(self, name: str, function: Callable[..., R], changed: Sequence[Tensor] = ()) -> Callable[..., R]:
        """Returns the function as it is replayed, or eager where it cannot be.

        Args:
            name: For `list_levels`.
            function: Of tensors, tuples of them and batches alone. What it returns is overwritten by the next
                call; what it does beside (`grad` that it sets, say) it does not do when it is replayed.
            changed: The tensors that it changes in place.
        """
        graphed = GraphedFunction(self, name, function, changed)
        self._functions.append(graphed)
        return graphed

    def leave_eager(self, name: str, reason: str) -> None:
        """Says for `list_levels` what is never replayed, and why."""
        self._eager[name] = f"eager: {reason}"

    def list_levels(self) -> dict[str, str]:
        """Returns "graph", or "eager" with its reason, by the functions' names."""
        levels = dict(self._eager)
        for function in self._functions:
            if levels.get(function.name, GRAPH) == GRAPH:
                levels[function.name] = function.level
        return levels

    def list_outputs(self) -> list[Tensor]:
        """Returns the tensors that replays write."""
        return [x for function in self._functions for x in _list_tensors(function.outputs)]


class GraphedFunction(Generic[R]):
    """A function that is replayed; see `Graphs.wrap`."""

    def __init__(
        self, graphs: Graphs, name: str, function: Callable[..., R], changed: Sequence[Tensor]
    ) -> None:
        self.name, self.level = name, WAITING
        self.outputs: Any = None
        self._graphs, self._function, self._changed = graphs, function, changed
        self._calls, self._graph, self._inputs = 0, None, []  # type: int, Graph | None, list[Any]

    def __call__(self, *inputs: Any) -> R:
        """Returns the function's result."""
        self._calls += 1
        if self._calls == WARM_UP + 1:
            return self._try_graph(inputs)
        given = tree_leaves(inputs)
        if self._graph is None or list(map(_get_shape, given)) != list(map(_get_shape, self._inputs)):
            return self._function(*inputs)
        self._copy_inputs(given)
        self._graph.replay()
        result: R = self.outputs
        return result

    def _copy_inputs(self, given: list[Any]) -> None:
        """Writes inputs where the graph reads them, with one launch a type; what lies there is left alone."""
        by_type: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        for target, source in zip(self._inputs, given, strict=True):
            if source is not target:
                targets, sources = by_type.setdefault(target.dtype, ([], []))
                targets.append(target)
                sources.append(source)
        for targets, sources in by_type.values():
            copy_to_each(targets, sources)

    def _try_graph(self, inputs: tuple[Any, ...]) -> R:
        """Takes this call's step, and decides how the following ones are taken."""
        before = [x.clone() for x in self._changed]
        try:
            with _keep_random_state(inputs):
                with _refuse_waits():
                    expected = tree_map_only(Tensor, torch.clone, self._function(*inputs))
                after = [x.clone() for x in self._changed]
                self._restore(before)
                graph, outputs = self._capture(inputs)
                self._restore(before)
        except RuntimeError as error:
            self._stay_eager(f"{_find_place(error)}: {first_line(error)}")
            self._restore(before)
            return self._function(*inputs)
        graph.replay()
        pairs = zip(_list_tensors((expected, after)), _list_tensors((outputs, self._changed)), strict=True)
        if all(torch.equal(*pair) for pair in pairs):
            self._graph, self.outputs, self.level = graph, outputs, GRAPH
            result: R = outputs
            return result
        self._stay_eager("a replay gave other numbers")
        self._restore(after)
        eager_result: R = expected
        return eager_result

    def _capture(self, inputs: tuple[Any, ...]) -> tuple[Graph, R]:
        """Recorded from inputs of its own, or from another graph's outputs where these are its inputs."""
        leaves, structure = tree_flatten(inputs)
        outputs = set(map(id, self._graphs.list_outputs()))
        self._inputs = [x.clone() if isinstance(x, Tensor) and id(x) not in outputs else x for x in leaves]
        graph = self._graphs.make_graph()
        return graph, graph.capture(lambda: self._function(*tree_unflatten(self._inputs, structure)))

    def _restore(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for x, value in zip(self._changed, values, strict=True):
                x.copy_(value)

    def _stay_eager(self, reason: str) -> None:
        self.level, self._inputs = f"eager: {reason}", []
        logging.getLogger(__name__).warning("%s is not replayed as a CUDA graph: %s", self.name, reason)


def start_graphs(device: torch.device) -> Graphs | None:
    """Returns graphs for a training on a GPU by one process, and gives it a stream of its own; else None."""
    if device.type != "cuda" or num_ranks() > 1:
        return None
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # the default one cannot be recorded
    stream.wait_stream(torch.cuda.current_stream(device))
    torch.cuda.set_stream(stream)
    return Graphs()


def _list_tensors(tree: Any) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


def _get_shape(leaf: Any) -> torch.Size | None:
    return leaf.shape if isinstance(leaf, Tensor) else None


@contextmanager
def _keep_random_state(inputs: Any) -> Iterator[None]:
    """Afterwards torch's own generators, the CPU's and that of the inputs' device, are as before."""
    devices = {x.device.index for x in _list_tensors(inputs) if x.device.type == "cuda"}
    with torch.random.fork_rng(devices):
        yield


@contextmanager
def _refuse_waits() -> Iterator[None]:
    """RuntimeError for what makes the host wait for the GPU: a graph cannot hold it."""
    if not torch.cuda.is_available():
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _find_place(error: BaseException) -> str:
    """The line outside torch that an error came from."""
    torch_folder = str(Path(torch.__file__).parent)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(torch_folder)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"

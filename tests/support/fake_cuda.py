"""CUDA tensors on a machine without a GPU: shapes, types and devices are real, and every value reads 0.

    with FakeCuda() as gpu:
        step()                   # once: what is made once may wait
        with gpu.refuse_waits():
            step()
    gpu.launches                 # about how many kernels the operations since the last reset start

Tensors of the CPU stay what they are. It changes torch for good, and fake parameters must never be freed
(torch 2.15 crashes there): use it in a process of its own that ends by os._exit.
"""

import gc
import io
import os
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda", 0)
KEPT: list[Any] = []  # what must not be freed
MEMORY: list[Any] = []  # what torch's memory of the GPU was told: its part, or to be emptied
aten = torch.ops.aten

NO_KERNELS = {
    "prim.device", "aten.detach", "aten.alias", "aten._reshape_alias", "aten.lift_fresh", "aten.empty",
    "aten.empty_like", "aten.empty_strided", "aten.new_empty", "aten.new_empty_strided", "aten.resize_",
    "aten.set_", "aten.split", "aten.unbind", "aten.is_pinned",
}  # fmt: skip
KERNELS = {  # more than one: about what the CUDA backend of torch 2.15 starts
    "aten.native_batch_norm": 2, "aten.native_batch_norm_backward": 3, "aten.convolution_backward": 2,
    "aten.nll_loss_backward": 2, "aten.slice_backward": 2, "aten.select_backward": 2, "aten.isfinite": 4,
    "aten.logsumexp": 8, "aten.sort": 3, "aten.topk": 3, "aten.argsort": 3, "aten.randperm": 6,
    "aten.index_put": 3, "aten.index_put_": 3, "aten.linalg_cholesky_ex": 3, "aten.cholesky_solve": 3,
    "aten.cumsum": 2,
}  # fmt: skip
FOREACH_TENSORS = 64  # of a foreach operation, about so many to a kernel


class HiddenWait(AssertionError):
    """The host would wait for the GPU, or tensors lie on different devices."""


class Generator(torch.Generator):
    """A generator of any device, as far as its device goes."""

    def __new__(cls, device: Any = "cpu") -> "Generator":
        self = super().__new__(cls)
        self.on = torch.device(device)
        return self

    def __init__(self, device: Any = "cpu") -> None:
        pass

    @property
    def device(self) -> torch.device:
        return self.on


class Event:
    """A GPU's event: it has always come, and nothing takes time."""

    def __init__(self, device: Any = None, enable_timing: bool = False) -> None:
        self.timed = enable_timing

    def record(self, stream: Any = None) -> None:
        pass

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: "Event") -> float:
        assert self.timed and end.timed
        return 1.0


class Generators(TorchFunctionMode):
    """Sees to it that generators are of the device that they draw on."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(generator := kwargs.get("generator"), Generator):
            tensors = [x for x in args if isinstance(x, Tensor)]
            device = tensors[0].device if tensors else torch.device(kwargs.get("device") or "cpu")
            if generator.on.type != device.type:
                raise HiddenWait(f"{func.__name__}: a generator of {generator.on} for {device}")
            if device.type == "cuda":
                kwargs = kwargs | {"generator": None}
        return func(*args, **kwargs)


class _FakeMode(FakeTensorMode):
    """Tells torch that there is no GPU, which it asks of a function that is changed here."""

    avoid_device_init = True


class FakeCuda(TorchDispatchMode):
    """Within it, "cuda" is a device."""

    def __init__(self) -> None:
        super().__init__()
        self._fake = _FakeMode(allow_non_fake_inputs=True)
        self._generators, self._refusing = Generators(), False
        self.counts: Counter[str] = Counter()
        KEPT.extend((self, self._fake))
        _change_torch()

    def __enter__(self) -> Any:
        self._generators.__enter__()
        torch._C._ensureCUDADeviceGuardSet()
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._generators.__exit__(*error)

    @property
    def launches(self) -> int:
        """About how many kernels were started since the last reset."""
        return self.counts.total()

    def wrap(self, tensor: Tensor) -> Tensor:
        """Returns a tensor of the GPU, of the shape and type of one of the "meta" device."""
        return FakeTensor(self._fake, tensor, CUDA)

    @contextmanager
    def refuse_waits(self) -> Iterator[None]:
        """HiddenWait, for a while, for whatever makes the host wait for the GPU."""
        self._refusing, before = True, self._refusing
        try:
            yield
        finally:
            self._refusing = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = _name(func)
        tensors = _list_tensors((*args, *kwargs.values()))
        on_gpu = [x for x in tensors if x.device.type == "cuda"]
        to_gpu = kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda"
        if name == "image.decode_jpegs_cuda":
            return [self._decode(encoded) for encoded in args[0]]
        if not on_gpu and not to_gpu:
            pinned = kwargs.pop("pin_memory", False)
            result = func(*args, **kwargs)
            if pinned:
                result.pinned = True
            return result
        if func in (aten._to_copy.default, aten.copy_.default):
            return self._copy(func, args, kwargs)
        if func is aten._local_scalar_dense.default:
            self._refuse("the host reads a value (item, bool, float, an index)")
            return torch.zeros((), dtype=args[0].dtype).item()
        if func is aten.equal.default:
            self._refuse("the host compares values")
            return True
        self._check(func, name, tensors)
        if name.startswith("aten._fused_"):
            _check_devices(name, tensors)
            self._count(name, -(-len(args[0]) // FOREACH_TENSORS))
            return None
        kwargs.pop("pin_memory", None)
        result = self._fake.__torch_dispatch__(func, types, args, kwargs)
        if not func.is_view and name not in NO_KERNELS:
            length = len(args[0]) if name.startswith("aten._foreach") else 1
            is_training = name == "aten.native_batch_norm" and args[5]  # semaphores, and statistics that move
            self._count(name, KERNELS.get(name, -(-length // FOREACH_TENSORS)) + 2 * is_training)
        return result

    def _decode(self, encoded: Tensor) -> Tensor:
        """As nvJPEG: pixels [3, height, width] on the GPU."""
        width, height = Image.open(io.BytesIO(bytes(encoded.tolist()))).size
        with self._fake:
            return torch.empty(3, height, width, dtype=torch.uint8, device=CUDA)

    def _count(self, name: str, launches: int) -> None:
        self.counts[name] += launches

    def _refuse(self, why: str) -> None:
        if self._refusing:
            raise HiddenWait(f"{_find_place()}: {why}")

    def _copy(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Between the devices. A blocking copy waits, and so does one of memory that is not pinned."""
        is_new = func is aten._to_copy.default
        source = args[0] if is_new else args[1]
        target = torch.device(kwargs.get("device") or source.device) if is_new else args[0].device
        if source.device.type == target.type:
            with self._fake:
                result = func(*args, **kwargs)
            self._count("aten.copy_", 1)
            return result
        non_blocking = kwargs.get("non_blocking") or (not is_new and len(args) > 2 and args[2])
        host = source if target.type == "cuda" else args[0]
        pinned = getattr(host, "pinned", False)
        if (source.dim() or is_new) and not (non_blocking and pinned):
            self._refuse(f"a blocking copy of {tuple(source.shape)} from {source.device} to {target}")
        if target.type == "cuda":
            with self._fake:
                return func(*args, **kwargs)
        if not is_new:
            return args[0].zero_()
        dtype = kwargs.get("dtype") or source.dtype
        return torch.zeros(source.shape, dtype=dtype)

    def _check(self, func: Any, name: str, tensors: list[Tensor]) -> None:
        if name in ("aten.index", "aten.index_put", "aten.index_put_"):
            waits = any(x.dtype in (torch.bool, torch.uint8) for x in tensors[1:])
        else:
            waits = bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags))
        if waits:
            self._refuse(f"{func}: the shape or value of its result is the GPU's")
        _check_devices(str(func), [x for x in tensors if x.dim() or x.device.type == "cuda"])


def _list_tensors(values: Sequence[Any]) -> list[Tensor]:
    """Those of an operation, also in lists."""
    tensors = []
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, (list, tuple)):
            tensors += [x for x in value if isinstance(x, Tensor)]
    return tensors


@cache
def _name(func: Any) -> str:
    """Such as aten.add, for all its overloads."""
    return ".".join(func.name().replace("::", ".").split(".")[:2])


def make_on_gpu(gpu: FakeCuda, make: Callable[..., nn.Module], *args: Any) -> nn.Module:
    """Returns what `make` makes, made on the GPU: many times as fast as moving it there, number by number."""
    with torch.device("meta"):
        module = make(*args)
    for child in module.modules():
        for name, tensor in child._parameters.items():
            if tensor is not None:
                child._parameters[name] = nn.Parameter(gpu.wrap(tensor.data), tensor.requires_grad)
        for name, tensor in child._buffers.items():
            if tensor is not None:
                child._buffers[name] = gpu.wrap(tensor)
    return module


def _check_devices(name: str, tensors: list[Tensor]) -> None:
    if len({x.device.type for x in tensors}) > 1:
        raise HiddenWait(f"{_find_place()}: {name}: tensors on {', '.join(str(x.device) for x in tensors)}")


def _find_place() -> str:
    """The line of raykd that is at work."""
    frames = [frame for frame in traceback.extract_stack() if f"{os.sep}raykd{os.sep}" in frame.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"


def _change_torch() -> None:
    gc.disable()
    gc.collect = lambda *generation: 0
    torch.cuda._lazy_init = lambda: None
    torch.cuda.is_available = lambda: True
    torch.cuda.is_bf16_supported = lambda including_emulation=True: True
    torch.cuda.get_device_name = lambda device=None: "Fake GPU"
    torch.cuda.synchronize = lambda *device: None
    torch.cuda.set_per_process_memory_fraction = MEMORY.append
    torch.cuda.empty_cache = lambda: MEMORY.append("emptied")
    torch.cuda.get_sync_debug_mode = lambda: 0
    torch.cuda.get_rng_state = lambda device=CUDA: torch.zeros(16, dtype=torch.uint8)
    torch.cuda.set_rng_state = torch.cuda.set_sync_debug_mode = lambda *state: None
    torch.Tensor.pin_memory = _pin
    torch.Generator, torch.Event = Generator, Event
    nn.Module._apply = _apply
    torch.autograd.backward, torch.autograd.grad = _backward, _grad


def _pin(tensor: Tensor, device: Any = None) -> Tensor:
    pinned = tensor.clone()
    pinned.pinned = True
    return pinned


def _apply(self: Any, fn: Any, recurse: bool = True) -> Any:
    """Module._apply with new parameters: the old ones' data cannot be set to another kind of tensor."""
    for child in self.children():
        child._apply(fn)
    for name, parameter in self._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                self._parameters[name] = nn.Parameter(fn(parameter), parameter.requires_grad)
            KEPT.append((parameter, self._parameters[name]))
    for name, buffer in self._buffers.items():
        if buffer is not None:
            self._buffers[name] = fn(buffer)
    return self


@torch.no_grad()
def _backward(tensors: Any, grad_tensors: Any = None, **rest: Any) -> None:
    """Node by node: the engine itself asks the driver for streams."""
    root = tensors.grad_fn
    first = torch.ones_like(tensors) if grad_tensors is None else grad_tensors
    missing: dict[Any, int] = defaultdict(int)
    stack, seen = [root], {root}
    while stack:
        for node, _ in stack.pop().next_functions:
            if node is not None:
                missing[node] += 1
                if node not in seen:
                    seen.add(node)
                    stack.append(node)
    gradients: dict[Any, dict[int, Tensor]] = {root: {0: first}}
    ready = [root]
    while ready:
        node = ready.pop()
        inputs = gradients.pop(node, {})
        for (child, place), gradient in zip(node.next_functions, _run_node(node, inputs), strict=False):
            if child is None:
                continue
            if gradient is not None:
                gradient = _fit(gradient, child._input_metadata[place])
                slots = gradients.setdefault(child, {})
                slots[place] = slots[place] + gradient if place in slots else gradient
            missing[child] -= 1
            if not missing[child]:
                ready.append(child)


def _run_node(node: Any, inputs: dict[int, Tensor]) -> Any:
    if not inputs:
        return (None,) * len(node.next_functions)
    if node.name() == "torch::autograd::AccumulateGrad":
        parameter, gradient = node.variable, inputs[0]
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return ()
    outputs = getattr(node, "apply", node)(*(inputs.get(place) for place in range(max(inputs) + 1)))
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _grad(output: Any, x: Tensor) -> tuple[Tensor]:
    """Of a leaf. The weights' gradients are launched, too, which the engine leaves out."""
    nodes: dict[Any, None] = {output.grad_fn: None}
    stack = [output.grad_fn]
    while stack:
        new = [node for node, _ in stack.pop().next_functions if node is not None and node not in nodes]
        nodes |= dict.fromkeys(new)
        stack += new
    variables = [node.variable for node in nodes if node.name() == "torch::autograd::AccumulateGrad"]
    before = [variable.grad for variable in variables]
    for variable in variables:
        variable.grad = None
    _backward(output)
    gradient = x.grad
    for variable, old in zip(variables, before, strict=True):
        variable.grad = old
    assert gradient is not None
    return (gradient,)


def _fit(gradient: Tensor, expected: Any) -> Tensor:
    """A gradient in the shape and type of what it is of, as the engine sees to it."""
    if gradient.device.type != expected.device.type:
        raise HiddenWait(f"a gradient on {gradient.device} of a tensor on {expected.device}")
    return gradient.sum_to_size(tuple(expected.shape)).to(expected.dtype)

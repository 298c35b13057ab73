"""A net as a program that runs without raykd: torch.export's, and ONNX made of it; how fast that is."""

import importlib
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from raykd.store.processors import count_cpus, name_device

LATENCY_BATCHES = (1, 64)  # at which programs are timed
MIN_TIMES, TIMED_SECONDS = 5, 0.5  # of each


class LogitsOnly(nn.Module):
    """Images [n, 3, size, size], float32, normalised -> logits [n, classes] alone, not the whole Outputs."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits [n, classes]."""
        logits: Tensor = self.net(images).logits
        return logits


def make_dynamic_shapes() -> dict[str, dict[int, Any]]:
    """Returns what says that a program takes any number of images; a symbol, whose package loads slowly."""
    return {"images": {0: torch.export.Dim("batch", min=1)}}


def trace(net: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    """Returns the program of a net in evaluation mode, for any number of such images [2, 3, size, size]."""
    return torch.export.export(
        LogitsOnly(net).eval(), (images,), dynamic_shapes=make_dynamic_shapes(), strict=False
    )


def load_onnxruntime() -> Any:
    """Returns the module, which is told before its first import to write no telemetry files."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return importlib.import_module("onnxruntime")


def save_onnx(program: torch.export.ExportedProgram, metadata: Mapping[str, str], path: Path) -> None:
    """Writes a program for ONNX runtimes: `images` -> `logits`. ImportError: what writes it is missing."""
    import onnxscript  # noqa: F401  (what torch.onnx writes with)

    onnx_program = torch.onnx.export(
        program, dynamo=True, verbose=False, dynamic_shapes=make_dynamic_shapes(), input_names=["images"],
        output_names=["logits"],
    )  # fmt: skip
    assert onnx_program is not None
    onnx_program.model.metadata_props.update(metadata)
    onnx_program.save(path, external_data=False)


class OnnxNet:
    """An ONNX program on this machine's CPUs, by onnxruntime. ImportError where that is not installed."""

    def __init__(self, path: Path) -> None:
        onnxruntime = load_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = count_cpus()
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __call__(self, images: Tensor) -> Tensor:
        """Returns logits [n, classes] of images [n, 3, size, size]."""
        return torch.from_numpy(self._session.run(["logits"], {"images": images.numpy()})[0])

    def measure_latency(self, image: Tensor) -> dict[int, float]:
        """Returns the median milliseconds of a batch, by its size, each of copies of one image [1, ...]."""
        return {size: self._measure_batch(image.repeat(size, 1, 1, 1)) for size in LATENCY_BATCHES}

    def _measure_batch(self, images: Tensor) -> float:
        self(images)
        seconds: list[float] = []
        while len(seconds) < MIN_TIMES or sum(seconds) < TIMED_SECONDS:
            start = time.perf_counter()
            self(images)
            seconds.append(time.perf_counter() - start)
        return 1000 * median(seconds)


def describe_machine() -> str:
    """Returns on what an OnnxNet runs, in words."""
    return f"{platform.node()}: {name_device(torch.device('cpu'))}, {count_cpus()} CPUs"

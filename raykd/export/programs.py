"""A student as programs that run without raykd: torch.export and ONNX, each compared with the net."""

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raykd.data import Dataset, DataSpec

NUM_CHECK_IMAGES = 64  # images
TOLERANCE = 1e-4  # greatest difference of a logit, as a part of the greatest logit
DYNAMIC_SHAPES = {"images": {0: torch.export.Dim("batch", min=1)}}
PROGRAM, ONNX = "student.pt2", "student.onnx"


class LogitsOnly(nn.Module):
    """Images [n, 3, size, size], float32, normalised -> logits [n, classes] alone, not the whole Outputs."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits [n, classes]."""
        logits: Tensor = self.net(images).logits
        return logits


@dataclass(frozen=True)
class ProgramCheck:
    """A program: whether it was written; how it compared, or why it was not."""

    is_written: bool
    message: str


def take_training_images(spec: DataSpec, dataset: Dataset[Any]) -> Tensor:
    """Returns some training images as an evaluation sees them. The test set stays closed."""
    some_images = dataset.train.take(torch.arange(min(NUM_CHECK_IMAGES, len(dataset.train.labels))))
    source = spec.make_source(dataset, torch.device("cpu"))
    return torch.cat([images for images, _ in source.evaluation_batches(some_images, 0, 1)]).contiguous()


@torch.no_grad()
def write_programs(
    net: nn.Module, images: Tensor, metadata: dict[str, str], out: Path
) -> dict[str, ProgramCheck]:
    """Writes both programs with `metadata`, over an earlier export's; returns {file: ProgramCheck}."""
    for name in (PROGRAM, ONNX):
        (out / name).unlink(missing_ok=True)
    logits = LogitsOnly(net).eval()
    program = torch.export.export(logits, (images[:2].clone(),), dynamic_shapes=DYNAMIC_SHAPES, strict=False)
    torch.export.save(program, out / PROGRAM, extra_files=dict(metadata))
    expected = logits(images)
    loaded = torch.export.load(out / PROGRAM).module()
    return {
        PROGRAM: check_program(out / PROGRAM, loaded, images, expected),
        ONNX: _write_onnx(program, images, expected, metadata, out / ONNX),
    }


def load_onnxruntime() -> Any:
    """Returns the module, which is told before its first import to write no telemetry files."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return importlib.import_module("onnxruntime")


def _write_onnx(
    program: torch.export.ExportedProgram,
    images: Tensor,
    expected: Tensor,
    metadata: dict[str, str],
    path: Path,
) -> ProgramCheck:
    try:
        onnxruntime = load_onnxruntime()
        import onnxscript  # noqa: F401  (what torch.onnx writes with)
    except ImportError as error:
        return ProgramCheck(False, f"ONNX needs {error.name}: pip install 'raykd[export]', then export again")
    onnx_program = torch.onnx.export(
        program, dynamo=True, verbose=False, dynamic_shapes=DYNAMIC_SHAPES, input_names=["images"],
        output_names=["logits"],
    )  # fmt: skip
    assert onnx_program is not None
    onnx_program.model.metadata_props.update(metadata)
    onnx_program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])

    return check_program(path, run, images, expected)


def check_program(
    path: Path, run: Callable[[Tensor], Tensor], images: Tensor, expected: Tensor
) -> ProgramCheck:
    """Compares with the net, in a batch of one and one of the rest; removes a program that differs."""
    logits = torch.cat([run(images[:1]), run(images[1:])])
    difference = ((logits - expected).abs().max() / expected.abs().max()).item()
    message = (
        f"greatest difference from the PyTorch net {difference:.1e} of the greatest logit, on {len(images)} "
        f"real training images (tolerance {TOLERANCE:.0e})"
    )
    if difference <= TOLERANCE:
        return ProgramCheck(True, message)
    path.unlink()
    return ProgramCheck(False, message)

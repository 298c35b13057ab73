"""A student as programs that run without raykd: torch.export and ONNX, each compared with the net."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raykd.data import Dataset, DataSpec
from raykd.training.program import OnnxNet, save_onnx, trace

NUM_CHECK_IMAGES = 64  # images
TOLERANCE = 1e-4  # greatest difference of a logit, as a part of the greatest logit
PROGRAM, ONNX = "student.pt2", "student.onnx"


@dataclass(frozen=True)
class ProgramCheck:
    """A program: whether it was written; how it compared, or why it was not."""

    is_written: bool
    message: str


def take_training_images(spec: DataSpec, dataset: Dataset[Any], count: int = NUM_CHECK_IMAGES) -> Tensor:
    """Returns some training images, of all parts of the set, as an evaluation sees them."""
    num_images = len(dataset.train.labels)
    count = min(count, num_images)
    some_images = dataset.train.take(torch.arange(count) * num_images // count)
    source = spec.make_source(dataset, torch.device("cpu"))
    return torch.cat([images for images, _ in source.evaluation_batches(some_images, 0, 1)]).contiguous()


@torch.no_grad()
def write_programs(
    net: nn.Module, images: Tensor, metadata: dict[str, str], out: Path
) -> dict[str, ProgramCheck]:
    """Writes both programs with `metadata`, over an earlier export's; returns {file: ProgramCheck}."""
    for name in (PROGRAM, ONNX):
        (out / name).unlink(missing_ok=True)
    program = trace(net, images[:2].clone())
    torch.export.save(program, out / PROGRAM, extra_files=dict(metadata))
    expected = net(images).logits
    loaded = torch.export.load(out / PROGRAM).module()
    return {
        PROGRAM: check_program(out / PROGRAM, loaded, images, expected),
        ONNX: _write_onnx(program, images, expected, metadata, out / ONNX),
    }


def _write_onnx(
    program: torch.export.ExportedProgram,
    images: Tensor,
    expected: Tensor,
    metadata: dict[str, str],
    path: Path,
) -> ProgramCheck:
    try:
        save_onnx(program, metadata, path)
        return check_program(path, OnnxNet(path), images, expected)
    except ImportError as error:
        path.unlink(missing_ok=True)
        return ProgramCheck(False, f"ONNX needs {error.name}: pip install 'raykd[export]', then export again")


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

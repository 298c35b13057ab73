"""A student as programs that run without raykd: torch.export and ONNX, each compared with the net on real
images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raykd.data import Dataset, DataSpec

CHECKED = 64  # images
TOLERANCE = 1e-4  # greatest difference of a logit, as a part of the greatest logit
BATCH = {"images": {0: torch.export.Dim("batch", min=1)}}
PROGRAM, ONNX = "student.pt2", "student.onnx"


class Logits(nn.Module):
    """Images [n, 3, size, size], float32, normalised -> logits [n, classes] alone, not the whole View."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images).logits
        return logits


@dataclass(frozen=True)
class Form:
    """A program: whether it was written; how it compared, or why it was not."""

    there: bool
    words: str


def real_images(spec: DataSpec, dataset: Dataset[Any]) -> Tensor:
    """Some training images as an evaluation sees them. The test set stays closed."""
    few = dataset.train.take(torch.arange(min(CHECKED, len(dataset.train.labels))))
    source = spec.source(dataset, torch.device("cpu"))
    return torch.cat([images for images, _ in source.plain(few, 0, 1)]).contiguous()


@torch.no_grad()
def write(net: nn.Module, images: Tensor, told: dict[str, str], out: Path) -> dict[str, Form]:
    """Write both programs with the metadata `told`; {file: Form}. What an earlier export left is replaced."""
    for name in (PROGRAM, ONNX):
        (out / name).unlink(missing_ok=True)
    logits = Logits(net).eval()
    program = torch.export.export(logits, (images[:2].clone(),), dynamic_shapes=BATCH, strict=False)
    torch.export.save(program, out / PROGRAM, extra_files=dict(told))
    expected = logits(images)
    loaded = torch.export.load(out / PROGRAM).module()
    return {
        PROGRAM: judged(out / PROGRAM, loaded, images, expected),
        ONNX: _onnx(program, images, expected, told, out / ONNX),
    }


def _onnx(
    program: torch.export.ExportedProgram, images: Tensor, expected: Tensor, told: dict[str, str], path: Path
) -> Form:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (what torch.onnx writes with)
    except ImportError as error:
        return Form(False, f"ONNX needs {error.name}: pip install 'raykd[export]', then export again")
    made = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        dynamic_shapes=BATCH,
        input_names=["images"],
        output_names=["logits"],
    )
    assert made is not None
    made.model.metadata_props.update(told)
    made.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(given: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": given.numpy()})[0])

    return judged(path, run, images, expected)


def judged(path: Path, run: Callable[[Tensor], Tensor], images: Tensor, expected: Tensor) -> Form:
    """Compare with the net, in a batch of one and a batch of the rest; a program that differs is removed."""
    answered = torch.cat([run(images[:1]), run(images[1:])])
    difference = ((answered - expected).abs().max() / expected.abs().max()).item()
    words = (
        f"greatest difference from the PyTorch net {difference:.1e} of the greatest logit, on {len(images)} "
        f"real training images (tolerance {TOLERANCE:.0e})"
    )
    if difference <= TOLERANCE:
        return Form(True, words)
    path.unlink()
    return Form(False, words)

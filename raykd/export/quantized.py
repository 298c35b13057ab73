"""A student's ONNX program in int8: onnxruntime's static quantisation, calibrated on training images."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raykd.data import Dataset, Source
from raykd.export.choice import StudentChoice
from raykd.export.programs import ONNX, ProgramCheck, take_training_images
from raykd.training.program import OnnxNet, describe_machine, load_onnxruntime

INT8 = "student.int8.onnx"
NUM_CALIBRATION_IMAGES = 512
ENOUGH = 0.5  # points of accuracy that int8 may cost before the card advises something else


def quantize(float_path: Path, images: Tensor, path: Path) -> None:
    """Writes an ONNX program with weights (by channel) and activations in int8, and the same metadata.

    Args:
        float_path: The program in float32.
        images: Training images [n, 3, size, size], by which the ranges of activations are chosen.
        path: Where it is written.
    """
    load_onnxruntime()
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        """Hands out batches until there are no more."""

        def __init__(self) -> None:
            self._batches: Iterator[Tensor] = iter(torch.split(images, 64))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"images": batch.numpy()}

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(float_path), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared), str(path), Images(), per_channel=True, activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )  # fmt: skip


def write_quantized(choice: StudentChoice, dataset: Dataset[Any], out: Path) -> ProgramCheck:
    """Writes the int8 program beside an export's ONNX program; says what it costs and gains.

    Both answer the same images: the test set's where the confirmation has opened it for this student, else
    the held-out ones.
    """
    float_path, path, spec = out / ONNX, out / INT8, choice.recipe.data
    images = take_training_images(spec, dataset, NUM_CALIBRATION_IMAGES)
    quantize(float_path, images, path)
    part, name = (dataset.test, "test") if choice.confirmed else (dataset.heldout, "held-out")
    source = spec.make_source(dataset, torch.device("cpu"))
    both = [OnnxNet(float_path), OnnxNet(path)]
    float_accuracy, accuracy = (_measure_accuracy(net, source, part) for net in both)
    float_ms, ms = (net.measure_latency(images[:1]) for net in both)
    speed = ", ".join(f"a batch of {n} {ms[n]:.3g} ms, {float_ms[n] / ms[n]:.2f} times as fast" for n in ms)
    message = (
        f"calibrated on {len(images)} training images; accuracy on {len(part.labels):,} {name} images "
        f"{accuracy:.2f} %, a drop of {float_accuracy - accuracy:.2f} points from float32's; "
        f"{path.stat().st_size / float_path.stat().st_size:.2f} of its size; {speed}, on {describe_machine()}"
    )
    if float_accuracy - accuracy > ENOUGH:
        message += f"; above {ENOUGH:g} points fine-tuning in int8 may help, which raykd does not do"
    return ProgramCheck(True, message)


@torch.no_grad()
def _measure_accuracy(net: Callable[[Tensor], Tensor], source: Source[Any], part: Any) -> float:
    """Top-1, %."""
    batches = source.evaluation_batches(part, 0, 1)
    correct = sum(int((net(images).argmax(1) == labels).sum()) for images, labels in batches)
    return 100 * correct / len(part.labels)

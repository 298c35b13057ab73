"""studies/photographs.yaml from its start to report and export, which plain timm, torch and onnxruntime read.

    python tests/benchmarks/photographs.py DATA OUT

DATA holds clothing/{train,test}/<class>/*.jpg (python ../shared/data/unpack.py DATA). Fails where logits of
test photographs differ by more than a ten-thousandth of the greatest.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import onnxruntime
import timm
import torch
from torch import Tensor

from raykd import data
from raykd.store.provenance import record_provenance
from raykd.study.study import Study

STUDY = Path(__file__).parents[2] / "studies/photographs.yaml"
TOLERANCE = 1e-4


def compare(export: Path, pixels: Tensor) -> dict[str, float]:
    """The greatest differences of three forms of an export from timm's own net, of the greatest logit."""
    preprocessing = json.loads((export / "preprocessing.json").read_text())
    weights = export / "student.safetensors"
    net = timm.create_model(
        "resnet18", num_classes=len(preprocessing["classes"]), checkpoint_path=weights
    ).eval()

    def normalize(statistics: dict[str, Any]) -> Tensor:
        mean, std = (torch.tensor(statistics[name])[:, None, None] for name in ("mean", "std"))
        return (pixels.permute(0, 3, 1, 2) / 255 - mean) / std

    expected, images = net(normalize(net.pretrained_cfg)), normalize(preprocessing)
    session = onnxruntime.InferenceSession(export / "student.onnx")
    logits = {
        "torch.export": torch.export.load(export / "student.pt2").module()(images),
        "onnxruntime": torch.from_numpy(session.run(None, {"images": images.numpy()})[0]),
    }
    return {name: ((z - expected).abs().max() / expected.abs().max()).item() for name, z in logits.items()}


@torch.no_grad()
def main(root: str, out: str) -> None:
    began = time.perf_counter()
    words = ["launch", str(STUDY), "--data", root, "--storage", out]
    subprocess.run([sys.executable, "-m", "raykd", *words], check=True)
    seconds = time.perf_counter() - began
    study = Study.read(STUDY)
    dataset = data.load(study.recipe.data, Path(root), False)
    differences = compare(Path(out) / study.name / "export", dataset.test.pixels)
    provenance = record_provenance()
    print(f"{seconds:.0f} s; {provenance['hardware']}, commit {provenance['commit']}")
    print(
        f"greatest difference from plain timm on {len(dataset.test.labels)} test photographs: {differences}"
    )
    assert max(differences.values()) < TOLERANCE


if __name__ == "__main__":
    main(*sys.argv[1:])

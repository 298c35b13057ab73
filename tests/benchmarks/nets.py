"""Forty nets of timm with under 12 M parameters, each of another family: planned, and a step as student.

    python tests/benchmarks/nets.py [NAME ...]

A net sees images of 64 pixels; one that refuses them, those of its own size. The teacher is our resnet20. For
each: its parameters, what it cannot give, the methods that serve it, a step of KD and CRD on eight digits.
"""

import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from raykd import data, methods, models
from raykd.batch import MethodContext
from raykd.errors import UserError, first_line
from raykd.store.provenance import record_provenance
from raykd.study.recipe import Recipe
from raykd.teachers.teacher import LiveTeacher
from raykd.training.trainer import Trainer

NETS = (
    "resnet10t", "resnetv2_18", "skresnet18", "densenet121", "dla46x_c", "cs3darknet_focus_s",
    "regnetx_002", "nf_regnet_b0", "efficientnet_b0", "mobilenetv3_small_050", "rexnet_100", "ghostnet_050",
    "hgnetv2_b0", "ese_vovnet19b_slim_dw", "convnext_atto", "inception_next_atto", "mobileone_s0",
    "starnet_s050", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "eva02_tiny_patch14_224",
    "convit_tiny", "cait_xxs24_224", "crossvit_tiny_240", "pit_ti_224", "pvt_v2_b0", "levit_128s",
    "xcit_nano_12_p8_224", "coat_tiny", "gmlp_ti16_224", "poolformerv2_s12", "mobilevit_xxs",
    "edgenext_xx_small", "efficientformerv2_s0", "efficientvit_m0", "fastvit_t8", "repvit_m1",
    "swiftformer_xs", "gcvit_xxtiny", "coatnet_pico_rw_224",
)  # fmt: skip
TEACHER, CLASSES, SIZE, BATCH = "resnet20", 10, 64, 8
STEPS = ("kd", "crd")
CPU = torch.device("cpu")


def choose_options(name: str) -> tuple[dict[str, Any], str]:
    """The options by which a net sees small images, and why not where it cannot."""
    try:
        with torch.device("meta"):
            models.make(name, CLASSES, {"size": SIZE}).shapes(32)
    except (UserError, ValueError, RuntimeError, AssertionError) as error:
        return {}, first_line(error, 90)
    return {"size": SIZE}, ""


def list_refusing(name: str, options: dict[str, Any]) -> list[str]:
    with torch.device("meta"):
        student, teacher = (
            models.make(net, CLASSES, o).shapes(32) for net, o in ((name, options), (TEACHER, {}))
        )
        labels = torch.zeros(40, dtype=torch.int64)
        refusing = []
        for method in methods.names():
            try:
                methods.make(method, MethodContext(student, teacher, labels))
            except ValueError:
                refusing.append(method)
    return refusing


def take_step(name: str, options: dict[str, Any], method: str, dataset: Any, spec: Any) -> str:
    plain = {"data": spec, "teacher": {"net": TEACHER, "weights": "none"}, "method": {"name": method}}
    plain |= {"student": {"net": name, "options": options}, "optimizer": {"batch_size": BATCH}, "epochs": 1}
    recipe = Recipe.model_validate(plain, strict=False)
    trainer = Trainer(recipe, dataset, LiveTeacher(models.make(TEACHER, CLASSES), 32, CPU, False), CPU)
    trainer.distiller.train()
    began = time.perf_counter()
    terms = trainer.train_step(1, 0, trainer.get_batches(1))
    seconds = time.perf_counter() - began
    if not all(math.isfinite(value) for value in terms.values()):
        return f"terms {', '.join(f'{key} {value:.3g}' for key, value in terms.items())}"
    if differs := find_difference(trainer.distiller.student):
        return f"other {differs} than timm's"
    idle = [key for key, p in trainer.distiller.student.named_parameters() if p.grad is None]
    return f"{seconds:.1f} s" + (f", {len(idle)} parameters without gradient ({idle[0]})" if idle else "")


@torch.no_grad()
def find_difference(net: Any) -> str:
    """Which outputs of a trained net are not what timm's own give; "" if none."""
    images = torch.randn(2, 3, net.config.size, net.config.size)
    outputs, plain = net.eval().extract(images), net.net(images)
    pairs = {"logits": (outputs.logits, plain)}
    if outputs.head.weight.numel():
        pairs["embedding"] = F.linear(outputs.embedding, *outputs.head), plain
    if outputs.pooled.numel():
        pairs["pooled"] = outputs.pooled.mean((2, 3)), outputs.embedding
    return ", ".join(name for name, pair in pairs.items() if not torch.allclose(*pair, rtol=1e-3, atol=1e-4))


def describe_net(name: str, dataset: Any, spec: Any) -> str:
    options, reason = choose_options(name)
    with torch.device("meta"):
        net = models.make(name, CLASSES, options)
    missing = [part for part in net.shapes(32).missing if part != "preacts"]
    refusing = list_refusing(name, options)
    steps = []
    for method in STEPS:
        try:
            steps.append(take_step(name, options, method, dataset, spec))
        except (ValueError, RuntimeError, TypeError) as error:
            steps.append(f"failed: {first_line(error, 120)}")
    size = f"{SIZE}" if options else f"its own ({reason})"
    served = f"all but {', '.join(refusing)}" if refusing else "all"
    return " | ".join(
        [
            name.partition("/")[2],
            f"{models.num_parameters(net) / 1e6:.1f}",
            size,
            ", ".join(missing),
            served,
            *steps,
        ]
    )


def main(*names: str) -> None:
    spec = data.Digits(images=40, holdout=0)
    dataset = data.load(spec, Path("unused"), False)
    print(f"| net | M parameters | pixels | does not give | methods | {' | '.join(STEPS)} |")
    print("|---" * (5 + len(STEPS)) + "|")
    for name in names or NETS:
        try:
            row = describe_net(f"timm/{name}", dataset, spec)
        except (UserError, ValueError, RuntimeError, AssertionError, TypeError) as error:
            row = f"{name} | | | | failed: {first_line(error)} | | "
        print(f"| {row} |", flush=True)
    provenance = record_provenance()
    print(f"{provenance['hardware']}, commit {provenance['commit']}")


if __name__ == "__main__":
    main(*sys.argv[1:])

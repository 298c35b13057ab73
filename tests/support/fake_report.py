"""Rows of a run with everything in it: conditional fields, pruned and failed trials, analyses."""

import numpy as np

from raykd.report.rows.types import Analysis, ClassRow, ConfirmRow, EpochRow, PublishedRow, RunData, TrialRow
from raykd.spec import Choice, Dimension, Range, Scalar

NAN = "loss term 'contrast' is nan at epoch 3, step 141"
CONFIRMED = {"best": 75.1, "paper": 74.3, "ce": 70.2, "kd": 73.5}  # mean test accuracies
LINEAR = (("method/preview/kind", "linear"),)
SPACE: dict[str, Dimension] = {
    "method/temperature": Range(0.02, 0.5, log=True),
    "method/weights/contrast": Range(0.1, 10, log=True),
    "method/weights/task": Range(0.1, 2),
    "method/preview/kind": Choice(("constant", "linear", "exponential")),
    "method/preview/warmup_fraction": Range(0.05, 0.5, when=LINEAR),
    "method/projection": Range(32, 512, log=True, integer=True),
    "method/learnable_temperature": Choice((True, False)),
    "optimizer/lr": Range(0.005, 0.5, log=True),
    "optimizer/weight_decay": Range(1e-5, 1e-2, log=True),
    "optimizer/momentum": Range(0.8, 0.99),
    "data/rotations": Choice((1, 4)),
    "loop/label_smoothing": Range(0.0, 0.2),
}
PAPER: dict[str, Scalar] = {
    "method/temperature": 0.07, "method/weights/contrast": 0.8, "method/weights/task": 1.0,
    "method/preview/kind": "constant", "method/projection": 128, "method/learnable_temperature": False,
    "optimizer/lr": 0.05, "optimizer/weight_decay": 5e-4, "optimizer/momentum": 0.9, "data/rotations": 1,
    "loop/label_smoothing": 0.0,
}  # fmt: skip


def draw(rng: np.random.Generator) -> dict[str, Scalar]:
    """One random point of SPACE."""
    drawn: dict[str, Scalar] = {}
    for path, of in SPACE.items():
        if any(drawn.get(parent) != value for parent, value in of.when):
            continue
        if isinstance(of, Choice):
            drawn[path] = of.values[rng.integers(len(of.values))]
            continue
        value = (
            float(np.exp(rng.uniform(np.log(of.low), np.log(of.high))))
            if of.log
            else rng.uniform(of.low, of.high)
        )
        drawn[path] = round(value) if of.integer else float(value)
    return drawn


def end(drawn: dict[str, Scalar], rng: np.random.Generator) -> float:
    """A made-up final accuracy: learning rate first, temperature and weight next, some noise."""
    lr, temperature = np.log10(float(drawn["optimizer/lr"])), np.log10(float(drawn["method/temperature"]))
    contrast = np.log10(float(drawn["method/weights/contrast"]))
    loss = (
        9 * (lr + 1.2) ** 2 + 4 * (temperature + 0.9) ** 2 + 2 * (contrast - 0.2) ** 2 + rng.normal(0, 0.35)
    )
    return float(73.5 - loss - (1.5 if drawn["data/rotations"] == 4 else 0))


def made(count: int = 40, budget: int = 24, seed: int = 0) -> RunData:
    """A run as a study leaves it: conditional fields, pruned and failed trials, four devices."""
    rng = np.random.default_rng(seed)
    rungs, trials, epochs, free = [budget // 4, budget // 2], [], [], [1.7e9] * 4
    for number in range(count):
        drawn = dict(PAPER) if number == 0 else draw(rng)
        final, device = end(drawn, rng), int(np.argmin(free))
        state, last, reason = "COMPLETE", budget, ""
        if number and number % 17 != 9 and final < 69 and rng.random() < 0.7:
            state, last, reason = "PRUNED", int(rng.choice(rungs)), "below the median at its rung"
        elif number % 17 == 9:
            state, last, reason = "FAIL", int(rng.integers(0, 4)), NAN
            final = 1.0 if number % 34 == 9 else final
        rows = [row(number, e, budget, final, rng) for e in range(1, last + 1)]
        took = last * float(rng.uniform(40, 60)) + 20
        trials.append(
            TrialRow(
                number, state, drawn, rows[-1].accuracy if rows else None, last, free[device],
                free[device] + took,
                reason, "paper" if number == 0 else "searched", f"gpu-node-{device // 2}/cuda:{device % 2}",
            )
        )  # fmt: skip
        free[device] += took + 15
        epochs += rows
    best = max((t for t in trials if t.state == "COMPLETE"), key=lambda t: t.accuracy or 0)
    seeds = [
        ConfirmRow(
            role, {"best": best.number, "paper": 0}.get(role), s, base + float(rng.normal(0, 0.25)),
            epochs=240, seconds=9000.0, analysis=analysed(base, rng),
        )
        for role, base in CONFIRMED.items()
        for s in range(5)
    ]  # fmt: skip
    return RunData(
        name="wcord-resnet32x4-resnet8x4", method="wcord", status="reconstruction",
        paper="Chen et al., Wasserstein Contrastive Representation Distillation, CVPR 2021",
        student="resnet8x4", teacher="resnet32x4", dataset="cifar100", split="10% held out", state="finished",
        facts={"commit": "0123abc", "hardware": "4 x NVIDIA H200", "command": "raykd launch wcord.yaml"},
        space=SPACE, paper_point=PAPER, trials=trials, epochs=epochs, budget_epochs=budget, rungs=rungs,
        confirm=seeds,
        published=[PublishedRow(75.46, "table 1 of the paper")],
        device="GPU", teacher_hours=1.5,
        units={"loop/label_smoothing": "fraction"},
    )  # fmt: skip


def analysed(accuracy: float, rng: np.random.Generator) -> Analysis:
    """What is measured beside the accuracy, of a hundred classes."""
    classes = tuple(
        ClassRow(f"class {i}", accuracy + float(rng.normal(0, 6)), accuracy + 4.0) for i in range(100)
    )
    spots = tuple(
        (float(x), float(y), f"class {i % 100}") for i, (x, y) in enumerate(rng.normal(0, 1, (500, 2)))
    )
    return Analysis(
        teacher_accuracy=79.4, agreement=82.0, kl=0.31, calibration_error=7.1, calibration_error_scaled=1.8,
        temperature=1.6, temperature_split="half of the test set", per_class=classes,
        images_per_second={"student": 21000.0, "teacher": 6100.0},
        parameters={"student": 1_233_540, "teacher": 7_433_860},
        embedding={"student": spots, "teacher": spots},
    )  # fmt: skip


def row(trial: int, epoch: int, budget: int, final: float, rng: np.random.Generator) -> EpochRow:
    t = epoch / budget
    averaged = final * (1 - np.exp(-6 * t)) / (1 - np.exp(-6)) + rng.normal(0, 0.15) * (epoch < budget)
    raw = averaged - 8 * (1 - t) + rng.normal(0, 2.5) * (1 - t)
    terms = {
        "task": 3.5 * np.exp(-2 * t) + 0.4,
        "contrast": 5 - 2 * t + 0.01 * trial % 1,
        "kd": 1 / (t + 0.2),
    }
    lr = 0.05 * 0.1 ** sum(t > m for m in (0.625, 0.75, 0.875))
    return EpochRow(
        trial, epoch, float(averaged), float(raw), 50.0, lr, {k: float(v) for k, v in terms.items()}
    )

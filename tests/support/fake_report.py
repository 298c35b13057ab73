"""Rows of a run with everything in it: conditional parameters, pruned and failed trials, analyses."""

import numpy as np

from raykd.report.rows.types import (
    Analysis,
    ClassRow,
    ConfirmationRow,
    EpochRow,
    PublishedRow,
    RunData,
    TrialRow,
)
from raykd.spec import Choice, Dimension, Range, Scalar

NAN_REASON = "loss term 'contrast' is nan at epoch 3, step 141"
MEAN_TEST_ACCURACIES = {"best": 75.1, "paper": 74.3, "ce": 70.2, "kd": 73.5}  # mean test accuracies
LINEAR_PREVIEW = (("method/preview/kind", "linear"),)
SPACE: dict[str, Dimension] = {
    "method/temperature": Range(0.02, 0.5, log=True),
    "method/weights/contrast": Range(0.1, 10, log=True),
    "method/weights/task": Range(0.1, 2),
    "method/preview/kind": Choice(("constant", "linear", "exponential")),
    "method/preview/warmup_fraction": Range(0.05, 0.5, conditions=LINEAR_PREVIEW),
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


def sample_params(rng: np.random.Generator) -> dict[str, Scalar]:
    """One random point of SPACE."""
    params: dict[str, Scalar] = {}
    for path, dimension in SPACE.items():
        if any(params.get(parent) != value for parent, value in dimension.conditions):
            continue
        if isinstance(dimension, Choice):
            params[path] = dimension.values[rng.integers(len(dimension.values))]
            continue
        value = (
            float(np.exp(rng.uniform(np.log(dimension.low), np.log(dimension.high))))
            if dimension.log
            else rng.uniform(dimension.low, dimension.high)
        )
        params[path] = round(value) if dimension.integer else float(value)
    return params


def final_accuracy(params: dict[str, Scalar], rng: np.random.Generator) -> float:
    """A made-up final accuracy: learning rate first, temperature and weight next, some noise."""
    lr, temperature = np.log10(float(params["optimizer/lr"])), np.log10(float(params["method/temperature"]))
    contrast = np.log10(float(params["method/weights/contrast"]))
    loss = (
        9 * (lr + 1.2) ** 2 + 4 * (temperature + 0.9) ** 2 + 2 * (contrast - 0.2) ** 2 + rng.normal(0, 0.35)
    )
    return float(73.5 - loss - (1.5 if params["data/rotations"] == 4 else 0))


def make_run(count: int = 40, budget: int = 24, seed: int = 0) -> RunData:
    """A run as a study leaves it: conditional parameters, pruned and failed trials, four devices."""
    rng = np.random.default_rng(seed)
    rungs, trials, epochs, free_at = [budget // 4, budget // 2], [], [], [1.7e9] * 4
    for number in range(count):
        params = dict(PAPER) if number == 0 else sample_params(rng)
        final, device_index = final_accuracy(params, rng), int(np.argmin(free_at))
        state, num_epochs, reason = "COMPLETE", budget, ""
        if number and number % 17 != 9 and final < 69 and rng.random() < 0.7:
            state, num_epochs, reason = "PRUNED", int(rng.choice(rungs)), "below the median at its rung"
        elif number % 17 == 9:
            state, num_epochs, reason = "FAIL", int(rng.integers(0, 4)), NAN_REASON
            final = 1.0 if number % 34 == 9 else final
        epoch_rows = [make_epoch_row(number, e, budget, final, rng) for e in range(1, num_epochs + 1)]
        seconds = num_epochs * float(rng.uniform(40, 60)) + 20
        trials.append(
            TrialRow(
                number, state, params, epoch_rows[-1].accuracy if epoch_rows else None, num_epochs,
                free_at[device_index], free_at[device_index] + seconds, reason,
                "paper" if number == 0 else "searched",
                f"gpu-node-{device_index // 2}/cuda:{device_index % 2}",
            )
        )  # fmt: skip
        free_at[device_index] += seconds + 15
        epochs += epoch_rows
    best = max((t for t in trials if t.state == "COMPLETE"), key=lambda t: t.accuracy or 0)
    confirmations = [
        ConfirmationRow(
            role, {"best": best.number, "paper": 0}.get(role), s, base + float(rng.normal(0, 0.25)),
            epochs=240, seconds=9000.0, analysis=make_analysis(base, rng),
        )
        for role, base in MEAN_TEST_ACCURACIES.items()
        for s in range(5)
    ]  # fmt: skip
    return RunData(
        name="wcord-resnet32x4-resnet8x4", method="wcord", status="reconstruction",
        paper="Chen et al., Wasserstein Contrastive Representation Distillation, CVPR 2021",
        student="resnet8x4", teacher="resnet32x4", dataset="cifar100", split="10% held out", state="finished",
        facts={"commit": "0123abc", "hardware": "4 x NVIDIA H200", "command": "raykd launch wcord.yaml"},
        space=SPACE, paper_point=PAPER, trials=trials, epochs=epochs, budget_epochs=budget, rungs=rungs,
        confirmations=confirmations,
        published=[PublishedRow(75.46, "table 1 of the paper")],
        device_kind="GPU", teacher_hours=1.5,
        units={"loop/label_smoothing": "fraction"},
    )  # fmt: skip


def make_analysis(accuracy: float, rng: np.random.Generator) -> Analysis:
    """What is measured beside the accuracy, of a hundred classes."""
    classes = tuple(
        ClassRow(f"class {i}", accuracy + float(rng.normal(0, 6)), accuracy + 4.0) for i in range(100)
    )
    embedding = tuple(
        (float(x), float(y), f"class {i % 100}") for i, (x, y) in enumerate(rng.normal(0, 1, (500, 2)))
    )
    return Analysis(
        teacher_accuracy=79.4, agreement=82.0, kl=0.31, calibration_error=7.1, calibration_error_scaled=1.8,
        temperature=1.6, temperature_split="half of the test set", per_class=classes,
        images_per_second={"student": 21000.0, "teacher": 6100.0},
        parameters={"student": 1_233_540, "teacher": 7_433_860},
        embedding={"student": embedding, "teacher": embedding},
    )  # fmt: skip


def make_epoch_row(
    trial: int, epoch: int, budget: int, final_accuracy: float, rng: np.random.Generator
) -> EpochRow:
    progress = epoch / budget
    ema_accuracy = final_accuracy * (1 - np.exp(-6 * progress)) / (1 - np.exp(-6)) + rng.normal(0, 0.15) * (
        epoch < budget
    )
    raw_accuracy = ema_accuracy - 8 * (1 - progress) + rng.normal(0, 2.5) * (1 - progress)
    terms = {
        "task": 3.5 * np.exp(-2 * progress) + 0.4,
        "contrast": 5 - 2 * progress + 0.01 * trial % 1,
        "kd": 1 / (progress + 0.2),
    }
    lr = 0.05 * 0.1 ** sum(progress > m for m in (0.625, 0.75, 0.875))
    return EpochRow(
        trial,
        epoch,
        float(ema_accuracy),
        float(raw_accuracy),
        50.0,
        lr,
        {k: float(v) for k, v in terms.items()},
    )

"""What the students of a study's space cost as they are deployed, untrained, and which it rules out."""

import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raykd import models
from raykd.data import DatasetInfo
from raykd.errors import UserError
from raykd.study.constraints import format_excess, list_net_params, list_ruled_out
from raykd.study.recipe import Recipe
from raykd.study.study import Study
from raykd.training import distiller
from raykd.training.program import LATENCY_BATCHES, OnnxNet, describe_machine, save_onnx, trace

Costs = dict[str, Any]  # parameters, macs; of a program onnx_mb, latency_ms_1, latency_ms_64 and machine


def measure_students(study: Study, info: DatasetInfo, known: dict[str, Costs]) -> list[dict[str, Any]]:
    """Returns a row for each student net of the space; none for a study without constraints.

    `params`, by which the search makes it, its `costs`, and its `excess` over each constraint. A program
    that is in `known` is not measured again; new ones are put there.

    Raises:
        UserError: No net is within the constraints, or they cannot be measured here.
    """
    if (constraints := study.constraints) is None:
        return []
    if (limit := constraints.latency_ms) and limit.machine not in (None, platform.node()):
        raise UserError(
            [f"constraints/latency_ms/machine = {limit.machine}: this is {platform.node()}; begin it there"]
        )
    rows = []
    for params in list_net_params(study.search_space()):
        costs = _measure(study.recipe_with(params), info, known if constraints.need_program else None)
        rows.append({"params": params, "costs": costs, "excess": constraints.find_excess(costs)})
    if all(format_excess(row) for row in rows):
        raise UserError([f"constraints: no student is within them: {'; '.join(list_ruled_out(rows))}"])
    return rows


def _measure(recipe: Recipe, info: DatasetInfo, known: dict[str, Costs] | None) -> Costs:
    """The costs of a recipe's student; those of its program where there is a place to keep them."""
    from torch.utils.flop_counter import FlopCounterMode  # here: few studies have constraints, and it is slow

    net = distiller.build_on_meta(recipe, info.classes, info.size, 1).deployed_student().eval()
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        net(torch.empty(1, 3, info.size, info.size))
    costs: Costs = {"parameters": models.num_parameters(net), "macs": counter.get_total_flops() // 2}
    if known is None:
        return costs
    key = json.dumps([recipe.to_dict()["student"], costs])
    if key not in known:
        with torch.random.fork_rng(devices=()):
            net = distiller.build_on_meta(recipe, info.classes, info.size, 1, "cpu").deployed_student()
            known[key] = costs | _measure_program(net.requires_grad_(False).eval(), info.size)
    return known[key]


def _measure_program(net: nn.Module, size: int) -> Costs:
    images = torch.randn(2, 3, size, size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student.onnx"
        try:
            save_onnx(trace(net, images), {}, path)
            latencies = OnnxNet(path).measure_latency(images[:1])
        except ImportError as error:
            raise UserError(
                [f"constraints: onnx_mb and latency_ms need {error.name}: pip install 'raykd[export]'"]
            ) from None
        latency = {f"latency_ms_{batch}": latencies[batch] for batch in LATENCY_BATCHES}
        return {"onnx_mb": path.stat().st_size / 1e6, **latency, "machine": describe_machine()}

"""The contract that every method keeps. A file dropped into raykd/methods is picked up by its name."""

import io
import json
import math
import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from support import gloo
from support.synthetic_batch import (
    BRANCH_CONTEXT,
    CLASSES,
    CONTEXT,
    EXITS_CONTEXT,
    FITNET_CONTEXT,
    IMAGES,
    LABELS,
    PEERS_CONTEXT,
    STUDENT,
    TEACHER,
    average_over_ranks,
    list_tensors,
    make_batch,
    map_outputs,
    map_tensors,
    require_gradients,
    show_twice,
    take_rank_share,
)
from torch import Tensor
from torch.testing import assert_close

from raykd import methods
from raykd.batch import MethodBatch, MethodContext, empty_outputs
from raykd.maths.gather import num_ranks
from raykd.methods import Method, MethodConfig
from raykd.spec import Dimension, Range, Scalar, apply_params, collect_dimensions, is_active

UNLIKE_DEFAULT = {
    "crcd": [{"sampling": "per_sample"}],
    "crd": [{"sampling": "per_sample"}, {"negatives": 9}],
    "ckd": [{"standardize": True}],
    "eed": [{"divergence": {"kind": "kl"}}],
    "sdd": [{"divergence": {"kind": "dkd"}}],
    "dcd": [{"stop_gradient": True}],
    "intra_class": [{"loss": "hinge", "margin": 0.5}],
    "mcl_okd": [{"sampling": "per_sample", "negatives": 9}],
    "mcld": [{"sample": "teacher_anchor"}, {"sample": "similarity", "classes": "present"}],
    "msdcrd": [{"align": "conv", "selection": "weighted"}, {"keys": 30, "stride": "half"}],
    "pckd": [{"preview": {"kind": "curriculum"}}],
    "wcord": [{"solver": "ipot", "critic": "sn_mlp2"}, {"spectral_norm": "bound", "sampling": "per_sample"}],
}  # arms that no range draws

EQUAL = CONTEXT._replace(student=STUDENT._replace(embedding=TEACHER.embedding))  # widths
CONTEXTS = {
    "fitnet": FITNET_CONTEXT,
    "pckd": EQUAL,
    "eed": FITNET_CONTEXT,
    "beed": FITNET_CONTEXT,
    "dml": PEERS_CONTEXT,
    "lmcl": EXITS_CONTEXT,
    "mcl_okd": BRANCH_CONTEXT,
    "mcl": PEERS_CONTEXT,
}  # of methods that cannot serve synthetic_batch.CONTEXT
ROTATIONS = {"sskd": [4]}  # of methods that need rotated views
REUSED = ("sdd", "simkd", "msdcrd")  # methods that read logits off a head
RESTING = {"sskd": "teacher_head"}  # a term and head that rest at the steps' progress (test_baselines.py)

pytestmark = pytest.mark.filterwarnings("ignore:wcord. ipot did not converge")  # at some draws

each_method = pytest.mark.parametrize("name", methods.names())
each_rotation = pytest.mark.parametrize(
    ("name", "rotations"), [(n, r) for n in methods.names() for r in ROTATIONS.get(n, [1, 4])]
)


def get_context(name: str) -> MethodContext:
    return CONTEXTS.get(name, CONTEXT)


def batch_for(name: str, seed: int = 0, rotations: int | None = None) -> MethodBatch:
    rotations = rotations or ROTATIONS.get(name, [1])[0]
    batch = make_batch(seed, rotations, get_context(name))
    return batch if methods.get_module(name).Method.views == 1 else show_twice(batch, rotations)


def make_method(name: str, config: MethodConfig | None = None, seed: int = 0) -> Method:
    torch.manual_seed(seed)
    return methods.make(name, get_context(name), config)


def list_configs(name: str) -> list[MethodConfig]:
    """The paper's point and the arms of UNLIKE_DEFAULT."""
    config = methods.get_config_class(name)
    return [config(), *(config(**arm) for arm in UNLIKE_DEFAULT.get(name, []))]


def sum_terms(terms: dict[str, Tensor]) -> Tensor:
    return sum(terms.values(), torch.zeros(()))


def backward(loss: Tensor) -> None:
    if loss.requires_grad:
        loss.backward()


def term_names(name: str) -> set[str]:
    return set(type(methods.get_config_class(name)().weights).model_fields) - {"task"}


@each_rotation
def test_terms_are_the_weights_and_gradients_reach_what_learns(name: str, rotations: int) -> None:
    for config in list_configs(name):
        method, batch = make_method(name, config), require_gradients(batch_for(name, rotations=rotations))
        terms = method(batch)
        assert set(terms) == term_names(name)
        for key, term in terms.items():
            assert term.shape == () and term.dtype == torch.float32 and term.isfinite()
            assert key == RESTING.get(name) or any(g is not None and g.any() for g in torch.autograd.grad(
                term, list_tensors(*batch.students), retain_graph=True, allow_unused=True
            ))  # fmt: skip
        backward(sum_terms(terms))
        assert all(x.grad is None for x in list_tensors(batch.teacher))
        for path, weight in method.named_parameters():
            assert weight.grad is not None or not weight.requires_grad, path
            assert weight.grad is None or weight.grad.isfinite().all(), path
            rests = path.split(".")[0] == RESTING.get(name)
            assert weight.grad is None or weight.dim() == 0 or rests or weight.grad.any(), path


def draw_value(dimension: Dimension, rng: random.Random) -> Scalar:
    if not isinstance(dimension, Range):
        return rng.choice(dimension.values)
    low, high = dimension.low, dimension.high
    if dimension.log:
        value = min(max(math.exp(rng.uniform(math.log(low), math.log(high))), low), high)
    elif dimension.step:
        value = low + dimension.step * rng.randint(0, int((high - low) / dimension.step + 1e-9))
    else:
        value = rng.uniform(low, high)
    return round(value) if dimension.integer else value


def random_config(name: str, rng: random.Random) -> MethodConfig:
    params: dict[str, Scalar] = {}
    for path, dimension in collect_dimensions(methods.get_config_class(name)).items():
        if is_active(dimension, params):
            params[path] = draw_value(dimension, rng)
    return methods.get_config_class(name).model_validate(
        apply_params(methods.get_config_class(name)().model_dump(), params)
    )


@each_method
def test_any_draw_is_a_config_that_round_trips_and_teaches(name: str) -> None:
    rng = random.Random(0)
    for count in range(30):
        config = random_config(name, rng)
        assert type(config).model_validate_json(config.model_dump_json()) == config
        assert type(config).model_validate(json.loads(config.model_dump_json())) == config
        if count < 4:
            assert all(term.isfinite() for term in make_method(name, config)(batch_for(name)).values())


@each_method
def test_the_default_lies_inside_every_range(name: str) -> None:
    default = methods.get_config_class(name)().model_dump()
    assert default["name"] == name
    for path, dimension in collect_dimensions(methods.get_config_class(name)).items():
        value: Any = default
        for part in path.split("/"):
            value = value.get(part) if value is not None else None
        assert dimension.contains(value) or dimension.conditions, f"{path} = {value} is not in {dimension}"


def run_steps(name: str, config: MethodConfig, batches: list[MethodBatch]) -> dict[str, Any]:
    """Losses, gradients and state after two batches, of each this rank's share, as DDP has them."""
    method, ranks = make_method(name, config), num_ranks()
    record: dict[str, Any] = {"losses": [], "views": []}
    for global_batch in batches:
        method.zero_grad()
        batch = require_gradients(take_rank_share(global_batch))
        loss = sum_terms(method(batch))
        backward(loss)
        record["losses"].append(average_over_ranks(loss.detach()))
        record["views"].append(
            [
                None if x.grad is None else x.grad / ranks
                for student in batch.students
                for x in list_tensors(student)[:-2]
            ]
        )
        record["heads"] = [
            None if w.grad is None else average_over_ranks(w.grad) for w in method.parameters()
        ]
    return record | {"state": method.state_dict()}


@each_rotation
def test_two_ranks_are_one_process_with_the_joined_batch(name: str, rotations: int) -> None:
    batches = [batch_for(name, seed, rotations) for seed in (0, 1)]
    for config in list_configs(name):
        alone = run_steps(name, config, batches)
        ranks = gloo.run(run_steps, name, config, batches)
        all_views = [
            [None if None in pair else torch.cat(pair) for pair in zip(*views, strict=True)]
            for views in zip(*(rank["views"] for rank in ranks), strict=True)
        ]
        for rank in ranks:
            rank["views"] = all_views
            assert_close(rank, alone, rtol=1e-4, atol=1e-6)


@each_method
def test_state_round_trips_into_the_same_third_step(name: str) -> None:
    for config in list_configs(name):
        method = make_method(name, config)
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True), *method.parameters()], lr=0.1)
        for seed in (0, 1):
            optimizer.zero_grad()
            backward(sum_terms(method(require_gradients(batch_for(name, seed)))))
            optimizer.step()
        file = io.BytesIO()
        torch.save(method.state_dict(), file)
        file.seek(0)
        resumed = make_method(name, config, seed=1)
        resumed.load_state_dict(torch.load(file, weights_only=True))
        assert_close(resumed(batch_for(name, 2)), method(batch_for(name, 2)), rtol=0, atol=0)


@each_rotation
def test_half_precision_views_give_the_loss_within_tolerance(name: str, rotations: int) -> None:
    batch = batch_for(name, rotations=rotations)
    half = map_outputs(batch, lambda outputs: map_tensors(outputs, lambda x: x.bfloat16()))
    terms = make_method(name)(half)
    assert all(term.dtype == torch.float32 for term in terms.values())
    assert_close(terms, make_method(name)(batch), rtol=0.05, atol=0.01)


@each_rotation
def test_a_teacher_with_only_what_the_method_needs_gives_the_same_loss(name: str, rotations: int) -> None:
    batch, needs = batch_for(name, rotations=rotations), type(make_method(name)).needs
    nothing = empty_outputs(len(batch.labels), batch.labels.device)
    cached = batch.teacher._replace(**{f: v for f, v in nothing._asdict().items() if f not in needs})
    assert_close(make_method(name)(replace(batch, teacher=cached)), make_method(name)(batch), rtol=0, atol=0)


@each_rotation
def test_a_method_never_writes_into_its_inputs(name: str, rotations: int) -> None:
    batch, same = (batch_for(name, rotations=rotations) for _ in range(2))
    labels = LABELS.clone()
    make_method(name)(batch)
    assert_close([*batch.student, *batch.teacher], [*same.student, *same.teacher], rtol=0, atol=0)
    assert batch.labels.equal(same.labels) and batch.index.equal(same.index) and labels.equal(LABELS)


@each_method
def test_a_method_is_built_on_no_device_at_all(name: str) -> None:
    with torch.device("meta"):
        method = methods.make(name, get_context(name)._replace(labels=torch.zeros(IMAGES, dtype=torch.int64)))
    assert all(w.is_meta for w in method.parameters())
    assert method.paper and method.status in ("official", "reconstruction")


@each_method
def test_logits_over_other_classes_are_refused(name: str) -> None:
    teacher = get_context(name).teacher._replace(classes=CLASSES + 1)
    other = get_context(name)._replace(teacher=teacher)
    if "logits" in type(make_method(name)).needs or name in REUSED:
        with pytest.raises(ValueError, match=f"{CLASSES} classes.* {CLASSES + 1}"):
            methods.make(name, other)
    else:
        methods.make(name, other)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no method 'rewiewkd'\. Did you mean 'reviewkd'\?"):
        methods.make("rewiewkd", CONTEXT)

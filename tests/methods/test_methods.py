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
    CLASSES,
    HEADED,
    IMAGES,
    LABELS,
    SETTING,
    STUDENT,
    TEACHER,
    batch,
    changed,
    leaves,
    mean,
    share,
    tensors,
)
from torch import Tensor
from torch.testing import assert_close

from raykd import methods
from raykd.batch import Setting, Step, no_view
from raykd.maths.gather import num_ranks
from raykd.methods import Method, MethodConfig
from raykd.spec import Dimension, Range, Scalar, apply, called_for, declared

UNLIKE_DEFAULT = {
    "crd": [{"draw": "per_sample"}, {"negatives": 9}],
    "ckd": [{"standardize": True}],
    "sdd": [{"divergence": {"kind": "dkd"}}],
    "dcd": [{"stop_gradient": True}],
    "mcld": [{"sample": "teacher_anchor"}, {"sample": "similarity", "classes": "present"}],
    "msdcrd": [{"align": "class_scores", "selection": "weighted"}, {"keys": 30, "stride": "half"}],
    "pckd": [{"preview": {"kind": "curriculum"}}],
    "wcord": [{"solver": "ipot", "critic": "sn_mlp2"}, {"spectral_norm": "power", "draw": "per_sample"}],
}  # arms that no range draws

EQUAL = SETTING._replace(student=STUDENT._replace(embedding=TEACHER.embedding))  # widths
SETTINGS = {"fitnet": HEADED, "pckd": EQUAL}  # of methods that cannot serve steps.SETTING
ROTATIONS = {"sskd": [4]}  # of methods that need rotated views
REUSED = ("sdd", "simkd")  # methods that read logits off a head
RESTING = {"sskd": "teacher_head"}  # a term and head that rest at the steps' progress (test_baselines.py)

pytestmark = pytest.mark.filterwarnings("ignore:wcord. ipot did not converge")  # at some draws

each_method = pytest.mark.parametrize("name", methods.names())
each_rotation = pytest.mark.parametrize(
    ("name", "rotations"), [(n, r) for n in methods.names() for r in ROTATIONS.get(n, [1, 4])]
)


def setting(name: str) -> Setting:
    return SETTINGS.get(name, SETTING)


def step_for(name: str, seed: int = 0, rotations: int | None = None) -> Step:
    return batch(seed, rotations or ROTATIONS.get(name, [1])[0], setting(name))


def made(name: str, config: MethodConfig | None = None, seed: int = 0) -> Method:
    torch.manual_seed(seed)
    return methods.make(name, setting(name), config)


def configs(name: str) -> list[MethodConfig]:
    """The paper's point and the arms of UNLIKE_DEFAULT."""
    config = methods.config(name)
    return [config(), *(config(**arm) for arm in UNLIKE_DEFAULT.get(name, []))]


def total(terms: dict[str, Tensor]) -> Tensor:
    return sum(terms.values(), torch.zeros(()))


def backward(loss: Tensor) -> None:
    if loss.requires_grad:
        loss.backward()


def term_names(name: str) -> set[str]:
    return set(type(methods.config(name)().weights).model_fields) - {"task"}


@each_rotation
def test_terms_are_the_weights_and_gradients_reach_what_learns(name: str, rotations: int) -> None:
    for config in configs(name):
        method, step = made(name, config), leaves(step_for(name, rotations=rotations))
        terms = method(step)
        assert set(terms) == term_names(name)
        for key, term in terms.items():
            assert term.shape == () and term.dtype == torch.float32 and term.isfinite()
            assert key == RESTING.get(name) or any(g is not None and g.any() for g in torch.autograd.grad(
                term, tensors(step.student), retain_graph=True, allow_unused=True
            ))  # fmt: skip
        backward(total(terms))
        assert all(x.grad is None for x in tensors(step.teacher))
        for path, weight in method.named_parameters():
            assert weight.grad is not None or not weight.requires_grad, path
            assert weight.grad is None or weight.grad.isfinite().all(), path
            rests = path.split(".")[0] == RESTING.get(name)
            assert weight.grad is None or weight.dim() == 0 or rests or weight.grad.any(), path


def drawn_from(dimension: Dimension, rng: random.Random) -> Scalar:
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
    drawn: dict[str, Scalar] = {}
    for path, dimension in declared(methods.config(name)).items():
        if called_for(dimension, drawn):
            drawn[path] = drawn_from(dimension, rng)
    return methods.config(name).model_validate(apply(methods.config(name)().model_dump(), drawn))


@each_method
def test_any_draw_is_a_config_that_round_trips_and_teaches(name: str) -> None:
    rng = random.Random(0)
    for count in range(30):
        config = random_config(name, rng)
        assert type(config).model_validate_json(config.model_dump_json()) == config
        assert type(config).model_validate(json.loads(config.model_dump_json())) == config
        if count < 4:
            assert all(term.isfinite() for term in made(name, config)(step_for(name)).values())


@each_method
def test_the_default_lies_inside_every_range(name: str) -> None:
    default = methods.config(name)().model_dump()
    assert default["name"] == name
    for path, dimension in declared(methods.config(name)).items():
        value: Any = default
        for part in path.split("/"):
            value = value.get(part) if value is not None else None
        assert dimension.holds(value) or dimension.when, f"{path} = {value} is not in {dimension}"


def taught(name: str, config: MethodConfig, steps: list[Step]) -> dict[str, Any]:
    """Losses, gradients and state of two steps on this rank's share of the batches, as DDP has them."""
    method, ranks = made(name, config), num_ranks()
    answer: dict[str, Any] = {"losses": [], "views": []}
    for joined in steps:
        method.zero_grad()
        step = leaves(share(joined))
        loss = total(method(step))
        backward(loss)
        answer["losses"].append(mean(loss.detach()))
        answer["views"].append(
            [None if x.grad is None else x.grad / ranks for x in tensors(step.student)[:-2]]
        )
        answer["heads"] = [None if w.grad is None else mean(w.grad) for w in method.parameters()]
    return answer | {"state": method.state_dict()}


@each_rotation
def test_two_ranks_are_one_process_with_the_joined_batch(name: str, rotations: int) -> None:
    steps = [step_for(name, seed, rotations) for seed in (0, 1)]
    for config in configs(name):
        alone = taught(name, config, steps)
        ranks = gloo.run(taught, name, config, steps)
        joined = [
            [None if None in pair else torch.cat(pair) for pair in zip(*views, strict=True)]
            for views in zip(*(rank["views"] for rank in ranks), strict=True)
        ]
        for rank in ranks:
            rank["views"] = joined
            assert_close(rank, alone, rtol=1e-4, atol=1e-6)


@each_method
def test_state_round_trips_into_the_same_third_step(name: str) -> None:
    for config in configs(name):
        method = made(name, config)
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True), *method.parameters()], lr=0.1)
        for seed in (0, 1):
            optimizer.zero_grad()
            backward(total(method(leaves(step_for(name, seed)))))
            optimizer.step()
        file = io.BytesIO()
        torch.save(method.state_dict(), file)
        file.seek(0)
        resumed = made(name, config, seed=1)
        resumed.load_state_dict(torch.load(file, weights_only=True))
        assert_close(resumed(step_for(name, 2)), method(step_for(name, 2)), rtol=0, atol=0)


@each_rotation
def test_half_precision_views_give_the_loss_within_tolerance(name: str, rotations: int) -> None:
    step = step_for(name, rotations=rotations)
    half = replace(
        step,
        student=changed(step.student, lambda x: x.bfloat16()),
        teacher=changed(step.teacher, lambda x: x.bfloat16()),
    )
    terms = made(name)(half)
    assert all(term.dtype == torch.float32 for term in terms.values())
    assert_close(terms, made(name)(step), rtol=0.05, atol=0.01)


@each_rotation
def test_a_teacher_with_only_what_the_method_needs_gives_the_same_loss(name: str, rotations: int) -> None:
    step, needs = step_for(name, rotations=rotations), type(made(name)).needs
    nothing = no_view(len(step.labels), step.labels.device)
    cached = step.teacher._replace(**{f: v for f, v in nothing._asdict().items() if f not in needs})
    assert_close(made(name)(replace(step, teacher=cached)), made(name)(step), rtol=0, atol=0)


@each_rotation
def test_a_method_never_writes_into_its_inputs(name: str, rotations: int) -> None:
    step, same = (step_for(name, rotations=rotations) for _ in range(2))
    labels = LABELS.clone()
    made(name)(step)
    assert_close([*step.student, *step.teacher], [*same.student, *same.teacher], rtol=0, atol=0)
    assert step.labels.equal(same.labels) and step.index.equal(same.index) and labels.equal(LABELS)


@each_method
def test_a_method_is_built_on_no_device_at_all(name: str) -> None:
    with torch.device("meta"):
        method = methods.make(name, setting(name)._replace(labels=torch.zeros(IMAGES, dtype=torch.int64)))
    assert all(w.is_meta for w in method.parameters())
    assert method.paper and method.status in ("official", "reconstruction")


@each_method
def test_logits_over_other_classes_are_refused(name: str) -> None:
    teacher = setting(name).teacher._replace(classes=CLASSES + 1)
    other = setting(name)._replace(teacher=teacher)
    if "logits" in type(made(name)).needs or name in REUSED:
        with pytest.raises(ValueError, match=f"{CLASSES} classes.* {CLASSES + 1}"):
            methods.make(name, other)
    else:
        methods.make(name, other)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no method 'rewiewkd'\. Did you mean 'reviewkd'\?"):
        methods.make("rewiewkd", SETTING)

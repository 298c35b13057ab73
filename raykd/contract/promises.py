"""The promises that every method keeps, each a function that raises BrokenPromise."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.testing import assert_close

from raykd import methods, plugins
from raykd.batch import MethodBatch, empty_outputs
from raykd.contract import gloo
from raykd.contract.subject import BrokenPromise, Subject
from raykd.contract.synthetic_batch import (
    CLASSES,
    IMAGES,
    average_over_ranks,
    list_tensors,
    map_outputs,
    map_tensors,
    require_gradients,
    take_rank_share,
)
from raykd.maths.gather import num_ranks
from raykd.maths.unit_space import UnitSpace
from raykd.methods import MethodConfig
from raykd.spec import Scalar, apply_params, collect_dimensions, is_active

DRAWS, TRAINED_DRAWS = 30, 4


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise BrokenPromise(message)


def _require_close(actual: Any, expected: Any, rtol: float, atol: float, message: str) -> None:
    assert_close(actual, expected, rtol=rtol, atol=atol, msg=lambda text: f"{message}: {text}")


def _sum_terms(terms: dict[str, Tensor]) -> Tensor:
    return sum(terms.values(), torch.zeros(()))


def _backward(loss: Tensor) -> None:
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]


def check_terms_and_gradients(subject: Subject) -> None:
    """The terms are the weights, and gradients reach the student and the method's own parts, no teacher."""
    for config in subject.configs:
        for rotations in subject.rotations:
            _check_terms(subject, config, require_gradients(subject.batch(rotations=rotations)))


def _check_terms(subject: Subject, config: MethodConfig, batch: MethodBatch) -> None:
    method = subject.make(config)
    terms, weights = method(batch), set(type(config.weights).model_fields) - {"task"}
    resting = {part for part, rate in method.learning_rates.items() if rate(float(batch.progress), 1.0) == 0}
    _require(set(terms) == weights, f"terms {sorted(terms)}, weights {sorted(weights)}")
    for key, term in terms.items():
        _require(term.shape == () and term.dtype == torch.float32, f"{key}: should be a float32 scalar")
        _require(bool(term.isfinite()), f"{key} = {term.item()}")
        inputs = list_tensors(*batch.students)
        reached = term.requires_grad and any(
            gradient is not None and gradient.any()
            for gradient in torch.autograd.grad(term, inputs, retain_graph=True, allow_unused=True)
        )
        _require(reached or key in resting, f"{key}: no gradient reaches the student")
    _backward(_sum_terms(terms))
    _require(all(x.grad is None for x in list_tensors(batch.teacher)), "a gradient reaches the teacher")
    for path, weight in method.named_parameters():
        gradient, rests = weight.grad, path.split(".")[0] in resting
        _require(gradient is not None or not weight.requires_grad, f"{path}: no gradient")
        if gradient is not None:
            _require(bool(gradient.isfinite().all()), f"{path}: its gradient is not finite")
            _require(weight.dim() == 0 or rests or bool(gradient.any()), f"{path}: its gradient is 0")


def draw_config(name: str, rng: np.random.Generator) -> MethodConfig:
    """Returns a config with each searched field drawn from its range."""
    config_class = methods.get_config_class(name)
    space, params = collect_dimensions(config_class), dict[str, Scalar]()
    drawn = UnitSpace(space).to_params(rng.random(len(space)))
    for path, dimension in space.items():
        if is_active(dimension, params):
            params[path] = drawn[path]
    return config_class.model_validate(apply_params(methods.get_default(name).model_dump(), params))


def check_draws(subject: Subject) -> None:
    """Any draw from the ranges is a config that survives JSON, and teaches with finite terms."""
    rng = np.random.default_rng(0)
    for count in range(DRAWS):
        config = draw_config(subject.name, rng)
        text = config.model_dump_json()
        copies = (type(config).model_validate_json(text), type(config).model_validate(json.loads(text)))
        _require(all(copy == config for copy in copies), f"does not survive JSON: {text}")
        if count < TRAINED_DRAWS:
            terms = subject.make(config)(subject.batch())
            _require(all(bool(term.isfinite()) for term in terms.values()), f"not finite at {text}")


def check_defaults(subject: Subject) -> None:
    """The default, which is the paper's point, lies inside every range."""
    config_class = methods.get_config_class(subject.name)
    default = methods.get_default(subject.name).model_dump()
    _require(default["name"] == subject.name, f"the config's name is {default['name']}")
    for path, dimension in collect_dimensions(config_class).items():
        value: Any = default
        for part in path.split("/"):
            value = value.get(part) if value is not None else None
        _require(dimension.contains(value) or bool(dimension.conditions), f"{path} = {value}, {dimension}")


def _run_steps(sources: plugins.Sources, name: str, settings: str, rotations: int) -> dict[str, Any]:
    """Losses, gradients and state after two batches, of each this rank's share, as DDP has them."""
    plugins.use(sources)
    subject, ranks = Subject(name), num_ranks()
    method = subject.make(methods.get_config_class(name).model_validate_json(settings))
    record: dict[str, Any] = {"losses": [], "views": []}
    for seed in (0, 1):
        method.zero_grad()
        batch = require_gradients(take_rank_share(subject.batch(seed, rotations)))
        loss = _sum_terms(method(batch))
        _backward(loss)
        record["losses"].append(average_over_ranks(loss.detach()))
        gradients = [x.grad for student in batch.students for x in list_tensors(student)[:-2]]
        record["views"].append([None if grad is None else grad / ranks for grad in gradients])
        record["heads"] = [
            None if w.grad is None else average_over_ranks(w.grad) for w in method.parameters()
        ]
    return record | {"state": method.state_dict()}


def check_two_ranks(subject: Subject) -> None:
    """Two processes that share a batch have the losses, gradients and state of one that has it whole."""
    for config in subject.configs:
        for rotations in subject.rotations:
            arguments = (plugins.get_sources(), subject.name, config.model_dump_json(), rotations)
            alone, ranks = _run_steps(*arguments), gloo.run(_run_steps, *arguments)
            all_views = [
                [None if None in pair else torch.cat(pair) for pair in zip(*views, strict=True)]
                for views in zip(*(rank["views"] for rank in ranks), strict=True)
            ]
            for rank in ranks:
                rank["views"] = all_views
                _require_close(rank, alone, 1e-4, 1e-6, "two processes differ from one")


def check_state(subject: Subject) -> None:
    """After saving and loading, the third step is the same, bit for bit."""
    for config in subject.configs:
        method = subject.make(config)
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True), *method.parameters()], lr=0.1)
        for seed in (0, 1):
            optimizer.zero_grad()
            _backward(_sum_terms(method(require_gradients(subject.batch(seed)))))
            optimizer.step()
        file = io.BytesIO()
        torch.save(method.state_dict(), file)
        file.seek(0)
        resumed = subject.make(config, seed=1)
        resumed.load_state_dict(torch.load(file, weights_only=True))
        expected = method(subject.batch(2))
        _require_close(resumed(subject.batch(2)), expected, 0, 0, "differs after loading its state")


def check_bfloat16(subject: Subject) -> None:
    """Outputs in bfloat16 give the terms of float32 within 5 %, in float32."""
    for rotations in subject.rotations:
        batch = subject.batch(rotations=rotations)
        rounded = map_outputs(batch, lambda outputs: map_tensors(outputs, lambda x: x.bfloat16()))
        terms = subject.make()(rounded)
        _require(all(term.dtype == torch.float32 for term in terms.values()), "terms should be float32")
        _require_close(terms, subject.make()(batch), 0.05, 0.01, "differs from float32")


def check_needs(subject: Subject) -> None:
    """A teacher that gives only what `needs` names gives the same terms."""
    for rotations in subject.rotations:
        batch, needs = subject.batch(rotations=rotations), methods.get_class(subject.name).needs
        nothing = empty_outputs(len(batch.labels), batch.labels.device)
        unused: dict[str, Any] = {key: value for key, value in nothing._asdict().items() if key not in needs}
        needed = replace(batch, teacher=batch.teacher._replace(**unused))
        _require_close(subject.make()(needed), subject.make()(batch), 0, 0, "reads what it does not need")


def check_inputs_unchanged(subject: Subject) -> None:
    """It never writes into its inputs."""
    for rotations in subject.rotations:
        batch, same = (subject.batch(rotations=rotations) for _ in range(2))
        labels = subject.context.labels.clone()
        subject.make()(batch)
        tensors, expected = (list_tensors(*each.students, each.teacher) for each in (batch, same))
        _require_close(tensors, expected, 0, 0, "writes into a net's outputs")
        positions = batch.labels.equal(same.labels) and batch.index.equal(same.index)
        _require(positions and labels.equal(subject.context.labels), "writes into labels or positions")


def check_meta(subject: Subject) -> None:
    """It is built on no device at all, as a plan does, and says its paper and status."""
    with torch.device("meta"):
        labels = torch.zeros(IMAGES, dtype=torch.int64)
        method = methods.make(subject.name, subject.context._replace(labels=labels))
    _require(all(w.is_meta for w in method.parameters()), "its weights are not made on the default device")
    _require(bool(method.paper) and bool(method.status), "says no paper or status")


def check_class_counts(subject: Subject) -> None:
    """Nets of different numbers of classes are refused in one line where logits are compared."""
    teacher = subject.context.teacher._replace(classes=CLASSES + 1)
    try:
        methods.make(subject.name, subject.context._replace(teacher=teacher))
    except ValueError as error:
        _require(str(CLASSES) in str(error) and str(CLASSES + 1) in str(error), f"says not why: {error}")
    else:
        _require("logits" not in methods.get_class(subject.name).needs, "takes logits over other classes")


CHECKS: tuple[Callable[[Subject], None], ...] = (
    check_terms_and_gradients, check_draws, check_defaults, check_two_ranks, check_state, check_bfloat16,
    check_needs, check_inputs_unchanged, check_meta, check_class_counts,
)  # fmt: skip

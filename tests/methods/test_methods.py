"""Every method keeps the contract (raykd/contract). A file in raykd/methods is picked up by its name."""

from collections.abc import Callable
from typing import Any

import pytest

from raykd import methods
from raykd.contract.promises import CHECKS, check_two_ranks
from raykd.contract.subject import Subject
from raykd.contract.synthetic_batch import CLASSES, CONTEXT

UNLIKE_DEFAULT: dict[str, list[dict[str, Any]]] = {
    "crcd": [{"sampling": "per_sample"}],
    "crd": [{"sampling": "per_sample"}, {"negatives": 9}],
    "ckd": [{"standardize": True}],
    "eed": [{"divergence": {"kind": "kl"}}],
    "sdd": [{"divergence": {"kind": "dkd"}}],
    "dcd": [{"stop_gradient": True}],
    "blockkd": [{"kernel": 3, "relu": False, "standardize": True}],
    "iakd": [{"schedule": {"kind": "constant"}, "kernel": 3}],
    "intra_class": [{"loss": "hinge", "margin": 0.5}],
    "mcl_okd": [{"sampling": "per_sample", "negatives": 9}],
    "mcld": [{"sample": "teacher_anchor"}, {"sample": "similarity", "classes": "present"}],
    "msdcrd": [{"align": "conv", "selection": "weighted"}, {"keys": 30, "stride": "half"}],
    "pckd": [{"preview": {"kind": "curriculum"}}],
    "wcord": [{"solver": "ipot", "critic": "sn_mlp2"}, {"spectral_norm": "bound", "sampling": "per_sample"}],
}  # arms that no range draws
REUSED = ("sdd", "simkd", "msdcrd")  # methods that read logits off a head

pytestmark = pytest.mark.filterwarnings("ignore:wcord. ipot did not converge")  # at some draws


@pytest.mark.parametrize(
    "check",
    [pytest.param(check, marks=pytest.mark.slow) if check is check_two_ranks else check for check in CHECKS],
    ids=lambda check: check.__name__,
)
@pytest.mark.parametrize("name", methods.names())
def test_each_method_keeps_the_contract(name: str, check: Callable[[Subject], None]) -> None:
    check(Subject(name, tuple(UNLIKE_DEFAULT.get(name, ()))))


@pytest.mark.parametrize("name", REUSED)
def test_a_head_over_other_classes_is_refused(name: str) -> None:
    context = Subject(name).context
    with pytest.raises(ValueError, match=f"{CLASSES} classes.* {CLASSES + 1}"):
        methods.make(name, context._replace(teacher=context.teacher._replace(classes=CLASSES + 1)))


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no method 'rewiewkd'\. Did you mean 'reviewkd'\?"):
        methods.make("rewiewkd", CONTEXT)

"""The contract: `check_method` tries every promise (promises.py) on a method.

Shipped methods are held to the same by tests/methods/test_methods.py, at settings that no range draws, too.
"""

from collections.abc import Callable
from typing import NamedTuple

from raykd import methods
from raykd.contract.promises import CHECKS
from raykd.contract.subject import BrokenPromise, Subject
from raykd.errors import first_line


class CheckResult(NamedTuple):
    """Whether a method keeps one promise."""

    promise: str
    fault: str  # in one line; "" where it is kept


def check_method(name: str) -> list[CheckResult]:
    """Tries every promise on a method, and returns a result each.

    Raises:
        UserError: There is no such method, or a plugin's cannot be imported or lacks what a method has.
    """
    methods.get_class(name)
    try:
        subject = Subject(name)
    except BrokenPromise as error:
        return [CheckResult("It serves nets.", str(error))]
    return [
        CheckResult((check.__doc__ or "").split("\n")[0], _find_fault(check, subject)) for check in CHECKS
    ]


def _find_fault(check: Callable[[Subject], None], subject: Subject) -> str:
    try:
        check(subject)
    except BrokenPromise as error:
        return str(error)
    except Exception as error:  # somebody's own code may raise anything
        return f"{type(error).__name__}: {first_line(error)}"
    return ""

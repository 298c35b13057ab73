"""How many students a method trains, and what a recipe must say for it."""

from collections.abc import Sequence

from torch import nn

from raykd import methods, models
from raykd.batch import MakeBranch
from raykd.methods import Method
from raykd.study.nets import NetSpec


def check_students(name: str, method: type[Method], copies: int, num_peers: int, num_teachers: int) -> None:
    """ValueError in one line where a recipe's students are not those of its method.

    Args:
        name: Of the method.
        method: Its class.
        copies: `student/copies`.
        num_peers: How many nets `peers` names.
        num_teachers: How many `teachers` names.
    """
    place = f"student/copies = {copies}" if copies > 1 else f"peers ({num_peers})"
    if method.students != "peers" and copies + num_peers > 1:
        needs = "needs a teacher and " if method.needs else ""
        raise ValueError(
            f"{place}: method '{name}' {needs}trains one student; students teach one another by "
            f"{', '.join(list_methods('peers'))}"
        )
    if method.students == "peers" and copies + num_peers < 2:
        raise ValueError(
            f"method '{name}' needs students that teach one another: say student/copies (2 or more) or peers"
        )
    if method.students == "members" and num_teachers < 2:
        raise ValueError(
            f"method '{name}' has a member of the student for each teacher: say teachers (2 or more)"
        )


def check_teachers_method(name: str) -> None:
    """ValueError in one line where a method cannot be a teacher's own training."""
    method = methods.get_class(name)
    if method.needs or method.students != "one":
        why = "needs a teacher itself" if method.needs else "trains several students"
        known = [one for one in list_methods("one") if not methods.get_class(one).needs]
        raise ValueError(f"method '{name}' {why}: a teacher's own training takes {', '.join(known)}")


def list_methods(students: str) -> list[str]:
    """Returns the names of the methods of such students, in alphabetical order."""
    return [name for name in methods.names() if methods.get_class(name).students == students]


def bind_branches(students: Sequence[NetSpec], classes: int) -> MakeBranch:
    """Returns what makes the last stages of a student, by its number, with fresh weights."""

    def make_branch(student: int, first: int) -> nn.Module:
        spec = students[student]
        return models.make_branch(spec.net, classes, spec.options, first)

    return make_branch

"""What learns beside the student in one trial: other nets, each with weights of its own."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from raykd import models
from raykd.batch import Outputs
from raykd.study.recipe import Recipe

Start = Mapping[str, Tensor] | None  # the weights that a net begins with; None: random ones


class Peers(nn.Module):
    """The other students."""

    def __init__(self, nets: Sequence[models.Net]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, student: models.Net, images: Tensor) -> list[Outputs]:
        """Returns the outputs of all students for images [n, 3, size, size], the first student's first."""
        return [student(images), *(net(images) for net in self.nets)]

    def list_nets(self, student: nn.Module) -> list[models.Net]:
        """Returns the other students beside the first, each as a net by itself."""
        return list(self.nets)  # type: ignore[arg-type]


def make_students(recipe: Recipe, classes: int, starts: Sequence[Start]) -> tuple[models.Net, Peers | None]:
    """Returns the student that is deployed, and its peers, if any, with their starts (empty: all random).

    The student has a member for each teacher, if the method trains these.
    """
    nets = []
    for number, spec in enumerate(recipe.list_students()):
        nets.append(models.make(spec.net, classes, spec.options))
        if starts and (start := starts[number]) is not None:
            models.load_weights(nets[-1], start, spec.head == "new")
    if recipe.num_members:
        models.add_members(nets[0], recipe.num_members)
    return nets[0], Peers(nets[1:]) if len(nets) > 1 else None

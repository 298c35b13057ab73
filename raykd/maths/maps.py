"""The maps of two nets, stage by stage, for methods that compare them.

RepDistiller's feat[1:-1] is Outputs.maps[1:] here: every stage, without the stem and the pooled features.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from raykd.batch import MethodContext, Outputs


def check_stages(context: MethodContext) -> None:
    """ValueError when the two nets' maps cannot be paired stage by stage."""
    student, teacher = context.student.maps, context.teacher.maps
    if len(student) != len(teacher) or len(student) < 2:
        raise ValueError(
            f"stages cannot be paired: the student's maps are {_format_shapes(student)}, "
            f"the teacher's {_format_shapes(teacher)}"
        )


def _format_shapes(maps: tuple[tuple[int, int, int], ...]) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in maps) or "none"


def stage_maps(outputs: Outputs) -> list[Tensor]:
    """The maps of every stage in float32, shallow to deep, without the stem's."""
    return [x.float() for x in outputs.maps[1:]]


def match_sizes(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """The larger map average-pooled to the size of the smaller. [n, c, h, w], [n, k, y, x] -> the same size.

    Read in RepDistiller, distiller_zoo/AT.py and VID.py.
    """
    return pool_down(student, teacher.shape[2:]), pool_down(teacher, student.shape[2:])


def pool_down(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps [n, c, h, w] average-pooled to `size` (rows, columns) where they are higher, else as they are."""
    return F.adaptive_avg_pool2d(maps, (size[0], size[1])) if maps.shape[2] > size[0] else maps


def check_equal_sizes(method: str, context: MethodContext) -> None:
    """ValueError, in one line, when the two nets' stages do not have maps of the same sizes."""
    student, teacher = ([shape[1:] for shape in net.maps] for net in (context.student, context.teacher))
    if student != teacher:
        sizes = (", ".join(f"{h} x {w}" for h, w in net) for net in (student, teacher))
        raise ValueError(
            f"{method}: the stages' maps differ in size: student {next(sizes)}; teacher {next(sizes)}"
        )

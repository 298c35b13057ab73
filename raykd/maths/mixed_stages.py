"""What nets need whose stages are mixed: maps of equal sizes, and connectors between unequal widths."""

from torch import nn

from raykd.batch import MethodContext
from raykd.maths.norm import AnyDeviceSyncBatchNorm


def check_stages(method: str, context: MethodContext) -> None:
    """ValueError, in one line, when the two nets' stages do not have maps of the same sizes."""
    student, teacher = ([shape[1:] for shape in net.maps] for net in (context.student, context.teacher))
    if student != teacher:
        sizes = (", ".join(f"{h} x {w}" for h, w in net) for net in (student, teacher))
        raise ValueError(
            f"{method}: the stages' maps differ in size: student {next(sizes)}; teacher {next(sizes)}"
        )


def make_connector(channels_in: int, channels: int, kernel: int) -> nn.Sequential:
    """Returns a convolution, which keeps the size of a map, and a batch norm over all ranks' rows."""
    conv = nn.Conv2d(channels_in, channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, AnyDeviceSyncBatchNorm(channels))

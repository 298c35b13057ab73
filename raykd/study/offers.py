"""All that plugins offer, imported and checked at once."""

from collections.abc import Callable, Iterable

from raykd import data, methods, models
from raykd.errors import UserError
from raykd.study.search import get_sampler, list_samplers


def check_offers() -> None:
    """Raises UserError with a line for each thing that a plugin offers and that cannot be used as it is."""
    groups: tuple[tuple[Callable[[], Iterable[str]], Callable[[str], object]], ...] = (
        (models.names, models.check_name), (methods.names, methods.get_class), (data.names, data.get_spec),
        (list_samplers, get_sampler),
    )  # fmt: skip
    lines = []
    for names, get in groups:
        try:
            for name in names():
                get(name)
        except UserError as error:
            lines += error.lines
    if lines:
        raise UserError(lines)

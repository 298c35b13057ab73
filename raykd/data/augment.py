"""RandAugment and TrivialAugment as torchvision.transforms.v2 has them, on batches.

arXiv:1909.13719 and arXiv:2103.10158 (Wide). Which operation an image gets is given, and images that get the
same one are done together, so that a view stays a function of (image, view id), and a GPU is kept busy.

Legend: n images.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from raykd.spec import Range, Spec

NUM_BINS = 31  # magnitudes are 0 ... 30


class NoAugment(Spec):
    """Views are crops and flips."""

    kind: Literal["none"] = "none"


class RandAugment(Spec):
    """So many operations, drawn for each view, all of one magnitude."""

    kind: Literal["randaugment"] = "randaugment"
    num_ops: Annotated[int, Field(ge=1, le=8), Range(1, 3)] = 2
    magnitude: Annotated[int, Field(ge=0, lt=NUM_BINS), Range(1, 15)] = 9


class TrivialAugment(Spec):
    """One operation, drawn for each view with its magnitude, of wider ranges."""

    kind: Literal["trivialaugment"] = "trivialaugment"


Augment = Annotated[NoAugment | RandAugment | TrivialAugment, Field(discriminator="kind")]


class Operation(NamedTuple):
    """What may be done to an image."""

    name: str
    is_signed: bool  # its magnitude is negative for half of the images
    has_magnitude: bool = True


OPERATIONS = (
    Operation("identity", False, False),
    *(Operation(name, True) for name in ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")),
    *(Operation(name, True) for name in ("brightness", "color", "contrast", "sharpness")),
    *(Operation(name, False) for name in ("posterize", "solarize")),
    *(Operation(name, False, False) for name in ("autocontrast", "equalize")),
)


def find_magnitude(name: str, is_wide: bool, magnitude_bin: int, side: int) -> float:
    """Returns an operation's magnitude, as the papers' ranges have it.

    Args:
        name: Of the operation.
        is_wide: TrivialAugment's ranges, not RandAugment's.
        magnitude_bin: 0 ... 30.
        side: Pixels of the images' sides.
    """
    if name == "posterize":
        return 8 - round(magnitude_bin * (6 if is_wide else 4) / (NUM_BINS - 1))  # bits that are kept
    if name == "solarize":
        return 255 * float(torch.linspace(1.0, 0.0, NUM_BINS)[magnitude_bin])
    if name.startswith("translate"):
        high = 32.0 if is_wide else 150.0 / 331.0 * side
    else:
        low_high = {"shear_x": (0.3, 0.99), "shear_y": (0.3, 0.99), "rotate": (30.0, 135.0)}
        high = low_high.get(name, (0.9, 0.99))[is_wide]
    return float(torch.linspace(0.0, high, NUM_BINS)[magnitude_bin])


def apply_operation(images: Tensor, name: str, magnitude: float) -> Tensor:
    """Returns images [n, 3, side, side], uint8, after an operation; what comes in from outside is black."""
    from torchvision.transforms.v2 import functional as T  # here: it takes seconds, and few studies need it

    def transform(shear: tuple[float, float], translate: tuple[int, int], center: list[float] | None) -> Any:
        degrees = [float(np.degrees(np.arctan(tangent))) for tangent in shear]
        return T.affine(images, angle=0.0, translate=list(translate), scale=1.0, shear=degrees, center=center)

    operations: dict[str, Callable[[], Any]] = {
        "identity": lambda: images,
        "shear_x": lambda: transform((magnitude, 0.0), (0, 0), [0.0, 0.0]),
        "shear_y": lambda: transform((0.0, magnitude), (0, 0), [0.0, 0.0]),
        "translate_x": lambda: transform((0.0, 0.0), (int(magnitude), 0), None),
        "translate_y": lambda: transform((0.0, 0.0), (0, int(magnitude)), None),
        "rotate": lambda: T.rotate(images, magnitude),
        "brightness": lambda: T.adjust_brightness(images, 1.0 + magnitude),
        "color": lambda: T.adjust_saturation(images, 1.0 + magnitude),
        "contrast": lambda: T.adjust_contrast(images, 1.0 + magnitude),
        "sharpness": lambda: T.adjust_sharpness(images, 1.0 + magnitude),
        "posterize": lambda: T.posterize(images, int(magnitude)),
        "solarize": lambda: T.solarize(images, magnitude),
        "autocontrast": lambda: T.autocontrast(images),
        "equalize": lambda: T.equalize(images),
    }
    result: Tensor = operations[name]()
    return result


def augment(
    pixels: Tensor,
    is_wide: bool,
    operations: NDArray[np.int64],
    is_negative: NDArray[np.bool_],
    bins: NDArray[np.int64],
) -> Tensor:
    """Returns pixels [n, side, side, 3], uint8, each image after its operation; the device is not waited for.

    Args:
        pixels: Of the images.
        is_wide: TrivialAugment's ranges, not RandAugment's.
        operations: [n], of OPERATIONS.
        is_negative: [n], the sign of the magnitude, where it has one.
        bins: [n], of the magnitude, 0 ... 30.
    """
    has_magnitude = np.array([operation.has_magnitude for operation in OPERATIONS])[operations]
    is_negative = is_negative & np.array([operation.is_signed for operation in OPERATIONS])[operations]
    keys = (operations * 2 + is_negative) * NUM_BINS + bins * has_magnitude
    order = np.argsort(keys, kind="stable")
    groups, sizes = np.unique(keys, return_counts=True)
    images = pixels.permute(0, 3, 1, 2)[torch.from_numpy(order).to(pixels.device)]
    done = []
    for key, group in zip(groups.tolist(), torch.split(images, sizes.tolist()), strict=True):
        name = OPERATIONS[key // (2 * NUM_BINS)].name
        sign = -1 if key // NUM_BINS % 2 else 1
        magnitude = sign * find_magnitude(name, is_wide, key % NUM_BINS, pixels.shape[1])
        done.append(apply_operation(group, name, magnitude))
    back = torch.from_numpy(np.argsort(order)).to(pixels.device)
    return torch.cat(done)[back].permute(0, 2, 3, 1)

"""Crops of images of any sizes, resized on their device: a few operations for all, however many they are.

As torchvision's antialiased bilinear resize of floats, rounded: an output pixel is the mean of the pixels in
its reach, by weights that fall linearly with the distance. Sums are taken a neighbour at a time, so that a
crop is the same in any batch. Legend: n crops, k neighbours.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from raykd.batch import send

CHUNK = 2**25  # numbers that the crops worked on at once take, at most, once their rows are resized


class Window(NamedTuple):
    """What a crop shows of one side of an image; pixels."""

    start: int
    length: int
    resized: int  # what `length` becomes
    first: int  # of the resized ones, the first that is kept
    step: int  # to the next: 1, or -1 where the crop is flipped


View = tuple[Window, Window]  # of rows, of columns


class Crop(NamedTuple):
    """What is cut from one of several images."""

    image: int
    rows: Window
    columns: Window


def resample(images: list[Tensor], views: list[list[View]], size: int) -> Tensor:
    """Returns the views of images [3, height, width]: [views, size, size, 3]; all uint8, on one device."""
    crops = [Crop(k, *view) for k, image_views in enumerate(views) for view in image_views]
    at_once = max(1, CHUNK // (3 * size * max(crop.columns.length for crop in crops)))
    flat = torch.cat([image.flatten() for image in images])
    begins = torch.tensor([0, *(image.numel() for image in images)]).cumsum(0)
    chunks = [crops[k : k + at_once] for k in range(0, len(crops), at_once)]
    return torch.cat([_resample(flat, begins, images, chunk, size) for chunk in chunks])


def _resample(flat: Tensor, begins: Tensor, images: list[Tensor], crops: list[Crop], size: int) -> Tensor:
    """Of images that lie one after another in `flat`, each where `begins` says."""
    rows, row_weights = _find_neighbours([crop.rows for crop in crops], size)
    columns, column_weights = _find_neighbours([crop.columns for crop in crops], size)
    shapes = torch.tensor([images[crop.image].shape[1:] for crop in crops])[:, :, None]
    height, width = shapes[:, :1], shapes[:, 1:]
    top, left, lengths = torch.tensor([(c.rows.start, *c.columns[:2]) for c in crops]).T[:, :, None]
    widest = torch.arange(int(lengths.max()))  # what lies beyond a crop gets no weight
    across = torch.minimum(widest, lengths - 1) + left + begins[[crop.image for crop in crops]][:, None]
    planes = height * width * torch.arange(3)[:, None]
    rows = (rows + top) * width[..., 0]
    rows, planes, across, columns, row_weights, column_weights = (
        send(x, flat.device) for x in (rows, planes, across, columns, row_weights, column_weights)
    )
    place = planes[..., None] + across[:, None, None]  # [n, 3, 1, widest]
    resized = torch.zeros(len(crops), 3, size, place.shape[-1], device=flat.device)
    for row, weight in zip(rows, row_weights, strict=True):
        resized.addcmul_(flat[place + row[:, None, :, None]].float(), weight[:, None, :, None])
    result = torch.zeros(len(crops), 3, size, size, device=flat.device)
    for column, weight in zip(columns, column_weights, strict=True):
        neighbours = resized.gather(3, column[:, None, None].expand(result.shape))
        result.addcmul_(neighbours, weight[:, None, None])
    return result.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _find_neighbours(windows: list[Window], size: int) -> tuple[Tensor, Tensor]:
    """What an output pixel is the mean of: places [k, n, size] from the window's start on, and weights."""
    _, length, resized, first, step = torch.tensor(windows).T[:, :, None]
    scale = length.double() / resized
    reach = scale.clamp(min=1)
    centre = scale * (first + step * torch.arange(size) + 0.5)
    lowest = (centre - reach + 0.5).floor().long()
    places = lowest + torch.arange(int((2 * reach).max().ceil()) + 1)[:, None, None]
    weights = (1 - (places + 0.5 - centre).abs() / reach).clamp(min=0)
    weights *= (places >= 0) & (places < length)
    return places.clamp(min=0).minimum(length - 1), (weights / weights.sum(0)).float()

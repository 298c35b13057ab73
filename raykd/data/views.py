"""What a view has beside its crop: numbers that depend on (image, view id) alone, and what they decide.

A mixed view's partner is a training image that is drawn by (image, view id) as well, not the neighbour in the
batch: so workers, batches and resumption change nothing, and a teacher's answers can be kept.

Legend: n images of a batch, r rotations.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raykd.batch import Batch
from raykd.data._base import DataSpec
from raykd.data.augment import NUM_BINS, OPERATIONS, augment

NUM_VIEWS = 2**31
# streams of numbers; whatever is added later takes a new one
SEED, PARTNER, PARTNER_SEED, KIND, SHARE, MIX_X, MIX_Y, ERASE, AREA, RATIO, ERASE_X, ERASE_Y = range(12)
AUGMENT = 16  # of each operation three: which, its sign, its magnitude
ERASED_AREA, ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)  # torchvision's RandomErasing


def draw_uniform(images: Tensor, view_ids: Tensor, stream: int) -> NDArray[np.float64]:
    """Returns a number in [0, 1) for each (image, view id), int64 alike in shape: splitmix64 of both."""
    state = _mix(images.numpy().astype(np.uint64) + np.uint64(stream << 40))
    state = _mix(state ^ view_ids.numpy().astype(np.uint64))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


class ViewMaker:
    """Makes views of training images by the settings of a data set.

    Args:
        spec: The settings.
        images: [training images], int64, where each stands in the whole training set.
    """

    def __init__(self, spec: DataSpec, images: Tensor) -> None:
        self._spec, self._images = spec, images

    def list_crops(self, positions: Tensor, view_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the crops that views take: positions [n or 2n], seeds [n or 2n, r], the partners' behind.

        Args:
            positions: Of the images, [n].
            view_ids: [n, r].
        """
        seeds = self._draw_seeds(positions, view_ids)
        if not self._spec.mixes:
            return positions, seeds
        images = self._images[positions]
        partners = draw_uniform(images, seeds[:, 0], PARTNER) * len(self._images)
        partner_seeds = draw_uniform(images, seeds[:, 0], PARTNER_SEED) * NUM_VIEWS
        return (
            torch.cat([positions, torch.from_numpy(partners).long()]),
            torch.cat([seeds, torch.from_numpy(partner_seeds).long()[:, None]]),
        )

    def _draw_seeds(self, positions: Tensor, view_ids: Tensor) -> Tensor:
        """View ids as numbers below 2^31; of `views` ids an image has its own. Odd ones stay odd."""
        if self._spec.views is None:
            return view_ids
        images = self._images[positions][:, None].expand_as(view_ids)
        seeds = torch.from_numpy(draw_uniform(images, view_ids, SEED) * NUM_VIEWS).long()
        return seeds - seeds % 2 + view_ids % 2 if self._spec.rotations > 1 else seeds

    def augment(self, pixels: Tensor, positions: Tensor, seeds: Tensor) -> Tensor:
        """Returns the pixels [n * r, side, side, 3], uint8, of crops of `list_crops`, augmented."""
        spec = self._spec.augment
        if spec.kind == "none":
            return pixels
        images, seeds = self._images[positions].repeat_interleave(seeds.shape[1]), seeds.flatten()
        for place in range(spec.num_ops if spec.kind == "randaugment" else 1):
            which, sign, draw = (draw_uniform(images, seeds, AUGMENT + 3 * place + k) for k in range(3))
            bins = np.full(len(draw), spec.magnitude) if spec.kind == "randaugment" else draw * NUM_BINS
            operations = (which * len(OPERATIONS)).astype(np.int64)
            is_wide = spec.kind == "trivialaugment"
            pixels = augment(pixels, is_wide, operations, sign < 0.5, bins.astype(np.int64))
        return pixels

    def finish(self, batch: Batch, positions: Tensor, view_ids: Tensor, row: Tensor | None) -> Batch:
        """Returns the batch of the views: crops of `list_crops` mixed with their partners, and erased."""
        count, spec = view_ids.numel(), self._spec
        images, side = batch.images[:count], batch.images.shape[-1]
        seeds = self._draw_seeds(positions, view_ids).flatten()
        places = self._images[positions].repeat_interleave(view_ids.shape[1])
        partner_labels, share = None, None
        if spec.mixes:
            weight, shares = self._draw_weights(places, seeds, side)
            images = torch.lerp(batch.images[count:], images, weight.to(images.device))
            partner_labels, share = batch.labels[count:], shares.to(images.device)
        if spec.erasing:
            images = images.masked_fill(_draw_erased(places, seeds, side, spec.erasing).to(images.device), 0)
        return replace(
            batch,
            images=images.contiguous(memory_format=torch.channels_last),
            labels=batch.labels[:count],
            index=batch.index[:count],
            view=view_ids.flatten().to(images.device),
            row=row,
            partner_labels=partner_labels,
            share=share,
        )

    def _draw_weights(self, images: Tensor, seeds: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """The image's own weight at each pixel [n, 1, side, side], and its share [n], at least a half."""
        from scipy.special import betaincinv  # here: few studies mix

        mixup, cutmix = self._spec.mixup, self._spec.cutmix
        cuts = draw_uniform(images, seeds, KIND) * ((mixup > 0) + (cutmix > 0)) < (cutmix > 0)
        alpha = np.where(cuts, cutmix, mixup)
        share = betaincinv(alpha, alpha, draw_uniform(images, seeds, SHARE))
        share = np.maximum(share, 1 - share)
        x, y = (np.floor(draw_uniform(images, seeds, stream) * side) for stream in (MIX_X, MIX_Y))
        is_cut = fill_boxes(x, y, *(np.sqrt(1 - share) * side / 2,) * 2, side)
        is_cut &= torch.from_numpy(cuts)[:, None, None, None]
        shares = torch.where(
            torch.from_numpy(cuts), 1 - is_cut.float().mean((1, 2, 3)), torch.from_numpy(share).float()
        )
        uncut = torch.where(torch.from_numpy(cuts), 1.0, shares)[:, None, None, None]
        return torch.where(is_cut, 0.0, uncut), shares


def fill_boxes(x: Any, y: Any, half_width: Any, half_height: Any, side: int) -> Tensor:
    """Returns masks [n, 1, side, side] of boxes around pixels (x, y), cut off at the edges."""
    pixels = np.arange(side)
    half_width, half_height = np.floor(half_width), np.floor(half_height)
    columns, rows = (
        (pixels >= (centre - half)[:, None]) & (pixels < (centre + half)[:, None])
        for centre, half in ((x, half_width), (y, half_height))
    )
    return torch.from_numpy(rows[:, None, :, None] & columns[:, None, None, :])


def _draw_erased(images: Tensor, seeds: Tensor, side: int, probability: float) -> Tensor:
    """Masks [n, 1, side, side] of what random erasing (arXiv:1708.04896) takes; whole boxes lie inside."""

    def draw(stream: int, low: float = 0.0, high: float = 1.0) -> NDArray[np.float64]:
        return low + (high - low) * draw_uniform(images, seeds, stream)

    ratio = np.exp(draw(RATIO, *map(math.log, ERASED_RATIO)))
    area = side * side * draw(AREA, *ERASED_AREA)
    height, width = (np.minimum(np.rint(np.sqrt(a)), side) for a in (area * ratio, area / ratio))
    top, left = np.floor(draw(ERASE_Y) * (side - height + 1)), np.floor(draw(ERASE_X) * (side - width + 1))
    pixels = np.arange(side)
    rows = (pixels >= top[:, None]) & (pixels < (top + height)[:, None])
    columns = (pixels >= left[:, None]) & (pixels < (left + width)[:, None])
    is_erased = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.from_numpy(is_erased & (draw(ERASE) < probability)[:, None, None, None])

"""What loaders and the device do to one image after another: read, decode, crop by view ids.

Of an image that cannot be read, another of its class stands in.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from raykd.data import pictures
from raykd.data.encoded import EncodedImages
from raykd.data.resample import View, Window, resample

Item = tuple[int, list[int]]  # position of an image, its view ids; without any, it is cropped for evaluation
Fetched = tuple[Item, bytes | None, list[View]]  # its bytes, if they could be had; its crops
LoadedItem = tuple[
    Tensor | None, list[str]
]  # pixels, if they could be had; what is wrong with files on the way


class Augmentation:
    """An image as the nets see it: at random for training, by a view id; in one way for evaluation.

    Args:
        size: Pixels of the sides of a view.
        side: Pixels of an image's shorter side for evaluation, before its centre is cut out.
        area: The least part of an image that a random crop takes.
        flip: Whether views of odd ids are flipped.
    """

    def __init__(self, size: int, side: int, area: float, flip: bool) -> None:
        from torchvision.transforms import v2  # here: it takes seconds, and small data sets need it not

        self.size, self._side, self._flip = size, side, flip
        self._crop = v2.RandomResizedCrop(size, scale=(area, 1), antialias=True)
        self._evaluation = v2.Compose([v2.Resize(side, antialias=True), v2.CenterCrop(size)])

    def __call__(self, image: Tensor, view_ids: list[int]) -> Tensor:
        """Returns views of an image [3, height, width]: [views or 1, size, size, 3], uint8, on its device."""
        crops = [self._make_view(image, view_id) for view_id in view_ids] or [self._evaluation(image)]
        return torch.stack(crops).permute(0, 2, 3, 1)

    def _make_view(self, image: Tensor, view_id: int) -> Tensor:
        with _seed(view_id):
            view: Tensor = self._crop(image)
        return view.flip(2) if self._is_flipped(view_id) else view

    def _is_flipped(self, view_id: int) -> bool:
        return self._flip and view_id % 2 == 1

    def list_windows(self, sides: tuple[int, int], view_ids: list[int]) -> list[View]:
        """Returns what the same views show of the rows and columns of an image of (height, width)."""
        if view_ids:
            return [self._draw_windows(sides, view_id) for view_id in view_ids]
        resized = (int(self._side * side / min(sides)) for side in sides)
        rows, columns = (
            Window(0, side, after, round((after - self.size) / 2), 1)
            for side, after in zip(sides, resized, strict=True)
        )
        return [(rows, columns)]

    def _draw_windows(self, sides: tuple[int, int], view_id: int) -> View:
        with _seed(view_id):
            crop = self._crop.make_params([torch.empty(1, *sides, device="meta")])
        first, step = (self.size - 1, -1) if self._is_flipped(view_id) else (0, 1)
        rows = Window(crop["top"], crop["height"], self.size, 0, 1)
        return rows, Window(crop["left"], crop["width"], self.size, first, step)


@contextmanager
def _seed(view_id: int) -> Iterator[None]:
    """Draws for a `with` block by a view id, on the CPU for any device; other draws are not touched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(view_id)
        yield


class ImageReader(torch.utils.data.Dataset[LoadedItem]):
    """What a loader does: reads items and makes pixels [views, size, size, 3], uint8, of each."""

    def __init__(self, part: EncodedImages, augmentation: Augmentation, max_corrupt: int) -> None:
        self._part, self._max_corrupt, self.augmentation = part, max_corrupt, augmentation

    def __getitems__(self, items: list[Item]) -> list[LoadedItem]:
        contents = self._part.read_many([position for position, _ in items])
        return [self.load(item, encoded) for item, encoded in zip(items, contents, strict=True)]

    def load(self, item: Item, encoded: bytes | None) -> LoadedItem:
        """Returns views of one item, or of another image of its class; `encoded` as for `decode`."""
        image, unreadable = self.decode(item[0], encoded)
        return (None if image is None else self.augmentation(image, item[1])), unreadable

    def decode(self, position: int, encoded: bytes | None) -> LoadedItem:
        """Returns an image [3, height, width], or another of its class; `encoded`: its bytes, if known."""
        unreadable: list[str] = []
        for candidate in self._part.same_class(position):
            try:
                content = encoded if candidate == position else None
                image = pictures.decode(self._part.read(candidate) if content is None else content)
            except pictures.UnreadableImage as error:
                unreadable.append(f"{self._part.name(candidate)}: {error}")
                if len(unreadable) > self._max_corrupt:
                    break
                continue
            return image, unreadable
        return None, unreadable


class BytesReader(torch.utils.data.Dataset[Fetched]):
    """What a loader does when the device decodes: reads items, and draws what is to be seen of each."""

    def __init__(self, part: EncodedImages, augmentation: Augmentation) -> None:
        self._part, self._augmentation = part, augmentation

    def __getitems__(self, items: list[Item]) -> list[Fetched]:
        contents = self._part.read_many([position for position, _ in items])
        return [
            (item, encoded, self._list_windows(item, encoded))
            for item, encoded in zip(items, contents, strict=True)
        ]

    def _list_windows(self, item: Item, encoded: bytes | None) -> list[View]:
        try:
            sides = None if encoded is None else pictures.read_sides(encoded)
        except pictures.UnreadableImage:  # the reader, which will load it, says so
            sides = None
        return [] if sides is None else self._augmentation.list_windows(sides, item[1])


def decode_on_device(batch: list[Fetched], reader: ImageReader, device: torch.device) -> LoadedItem:
    """Returns views of items, cropped on the device; what it cannot decode the reader does, here."""
    decoded = pictures.decode_jpegs([encoded if views else None for _, encoded, views in batch], device)
    images: list[Tensor] = []
    all_views, all_unreadable = list[list[View]](), list[str]()
    for image, ((position, view_ids), encoded, views) in zip(decoded, batch, strict=True):
        if image is None:
            loaded, unreadable = reader.decode(position, encoded)
            all_unreadable += unreadable
            if loaded is None:
                return None, all_unreadable
            image = loaded.to(device)
            views = reader.augmentation.list_windows((image.shape[1], image.shape[2]), view_ids)
        images.append(image)
        all_views.append(views)
    return resample(images, all_views, reader.augmentation.size), all_unreadable


def collate(items: list[LoadedItem]) -> LoadedItem:
    """Returns items as one; without pixels when any image could not be had."""
    pixels = [one for one, _ in items if one is not None]
    unreadable = [line for _, lines in items for line in lines]
    return (torch.cat(pixels) if len(pixels) == len(items) else None), unreadable

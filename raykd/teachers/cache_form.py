"""In which form a cache keeps a teacher's outputs, and what is given back of them.

Legend: n views, c classes, d width of the embedding, k logits that are kept, b bytes of a view.
"""

import math
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from raykd.batch import OutputShapes
from raykd.spec import Spec

TAIL_TEMPERATURE = 4.0  # KD's usual one: at it the softmax of what is given back has the true mass outside
INT8_STEPS, SCALE_BYTES = 255, 8


class CacheForm(Spec):
    """What a trial sees of a teacher's logits and embedding; the default is all of them, in float16.

    `top_logits` keeps the k largest logits of a view and one number for all others together: each of these is
    given the same logit, by which the classes outside the k have, as a whole, their true probability in the
    softmax at temperature 4. At other temperatures it is about right; how the rest is shared among them is
    lost, which costs accuracy where a teacher is unsure (studies/RECORDS.md). `embedding: int8` keeps eight
    bits a number, between the smallest and the largest of the view.
    """

    top_logits: Annotated[int, Field(ge=1)] | None = None
    embedding: Literal["float16", "int8", "none"] = "float16"

    @property
    def is_exact(self) -> bool:
        """Whether it is float16 alone that outputs lose."""
        return self.top_logits is None and self.embedding == "float16"

    def describe(self) -> str:
        """Returns the form in words."""
        logits = "all logits" if self.top_logits is None else f"top {self.top_logits} logits"
        return f"{logits}, {'no' if self.embedding == 'none' else self.embedding} embedding"

    def check(self, shapes: OutputShapes) -> None:
        """ValueError where a teacher has no more logits than are kept."""
        if self.top_logits is not None and self.top_logits >= shapes.classes:
            raise ValueError(
                f"cache/top_logits = {self.top_logits}: the teacher has {shapes.classes} logits; "
                "without top_logits all are kept"
            )

    def count_bytes(self, shapes: OutputShapes) -> int:
        """Returns the bytes of a view."""
        k, classes = self.top_logits, shapes.classes
        logit_bytes = 2 * classes if k is None else k * _index_type(classes).itemsize + 2 * (k + 1)
        return logit_bytes + self._count_embedding_bytes(shapes.embedding)

    def _count_embedding_bytes(self, width: int) -> int:
        return {"float16": 2 * width, "int8": SCALE_BYTES + width, "none": 0}[self.embedding]

    def encode(self, logits: Tensor, embedding: Tensor) -> Tensor:
        """Returns logits [n, c] and embedding [n, d], float32, as bytes [n, b], uint8."""
        parts = [logits.half()] if self.top_logits is None else _encode_top(logits, self.top_logits)
        if self.embedding == "float16":
            parts.append(embedding.half())
        elif self.embedding == "int8":
            parts += _encode_int8(embedding)
        return torch.cat([_to_bytes(part) for part in parts], dim=1)

    def decode(self, rows: Tensor, shapes: OutputShapes) -> tuple[Tensor, Tensor]:
        """Returns what is given back of bytes [n, b], float32: logits [n, c], embedding [n, d] (none: 0)."""
        split = rows.shape[1] - self._count_embedding_bytes(shapes.embedding)
        first, last = rows[:, :split], rows[:, split:]
        k, classes = self.top_logits, shapes.classes
        logits = _from_bytes(first, torch.float16).float() if k is None else _decode_top(first, k, classes)
        if self.embedding == "int8":
            return logits, _decode_int8(last)
        return logits, _from_bytes(last, torch.float16).float()

    def apply(self, logits: Tensor, embedding: Tensor, shapes: OutputShapes) -> "KeptOutputs":
        """Returns outputs as they are kept, and as they are given back.

        Those of a view that the form cannot hold (float16: beyond 65504) are given as they are.
        """
        logits, embedding = logits.float(), embedding.float()
        rows = self.encode(logits, embedding)
        kept = self.decode(rows, shapes)
        is_lost = ~(kept[0].isfinite().all(dim=1) & kept[1].isfinite().all(dim=1))[:, None]
        embedding = embedding[:, : kept[1].shape[1]]  # empty where none is kept
        given = torch.where(is_lost, logits, kept[0]), torch.where(is_lost, embedding, kept[1])
        return KeptOutputs(rows, is_lost, *given)


class KeptOutputs(NamedTuple):
    """Outputs in a form."""

    rows: Tensor  # [n, b], uint8
    is_lost: Tensor  # [n, 1]: whether the form cannot hold them
    logits: Tensor  # [n, c], float32
    embedding: Tensor  # [n, d], float32; [n, 0] where none is kept


EXACT = CacheForm()


def _encode_top(logits: Tensor, k: int) -> list[Tensor]:
    """Indices and values of the k largest, and the one logit of the others: [n, k], [n, k], [n, 1]."""
    values, indices = logits.topk(k, dim=1)
    rest = logits.scatter(1, indices, -math.inf) / TAIL_TEMPERATURE
    tail = (rest.logsumexp(dim=1, keepdim=True) - math.log(logits.shape[1] - k)) * TAIL_TEMPERATURE
    return [indices.to(_index_type(logits.shape[1])), values.half(), tail.half()]


def _decode_top(rows: Tensor, k: int, classes: int) -> Tensor:
    index_type = _index_type(classes)
    split = k * index_type.itemsize
    first, last = rows[:, :split], rows[:, split:]
    values = _from_bytes(last, torch.float16).float()
    indices = _from_bytes(first, index_type).long()
    return values[:, k:].repeat(1, classes).scatter(1, indices, values[:, :k])


def _encode_int8(embedding: Tensor) -> list[Tensor]:
    """Smallest value and step, float32, and the steps of each number, uint8: [n, 1], [n, 1], [n, d]."""
    low, high = embedding.aminmax(dim=1, keepdim=True)
    step = ((high - low) / INT8_STEPS).clamp_min(torch.finfo(torch.float32).tiny)
    return [low, step, ((embedding - low) / step).round().to(torch.uint8)]


def _decode_int8(rows: Tensor) -> Tensor:
    scale = _from_bytes(rows[:, :SCALE_BYTES], torch.float32)
    return torch.addcmul(scale[:, :1], rows[:, SCALE_BYTES:].float(), scale[:, 1:])


def _index_type(classes: int) -> torch.dtype:
    return torch.int16 if classes <= torch.iinfo(torch.int16).max else torch.int32


def _to_bytes(numbers: Tensor) -> Tensor:
    return numbers.contiguous().view(torch.uint8)


def _from_bytes(rows: Tensor, dtype: torch.dtype) -> Tensor:
    return rows.contiguous().view(dtype)

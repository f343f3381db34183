"""How the tensors of a published layout lie, beside our variables: numbers moved, never changed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bert4x.checkpoints.tensors import LazyTensor, copy, empty

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """How the tensors of a rule relate to our variables, whose kernels are (in, out).

    `transpose`: theirs is (out, in). `lead`: theirs has an extra first axis of length 1. `shard`: the axis of ours that
    is divided over model-parallel ranks; None: every rank holds all of it. Several variables of ours are joined along
    their last axis, inside each rank. `ahead`: rows of theirs before the first of ours, of no use to a model.
    `axes`: the sizes into which that last axis of ours is divided, where theirs has them in another `order`; one is a
    number, -1 for what is left, or a field of the config (see `Table.sized`).
    """

    transpose: bool = False
    lead: bool = False
    shard: int | None = None
    ahead: int = 0
    axes: tuple[int | str, ...] = ()
    order: tuple[int, ...] = ()

    def piece(self, shape: Shape, ranks: int) -> Shape:
        """Shape of the part of one variable of ours that one rank holds."""
        if self.shard is None or ranks == 1:
            return shape
        shape = list(shape)
        shape[self.shard] //= ranks
        return tuple(shape)

    def shape(self, ours: Sequence[Shape], ranks: int = 1) -> Shape:
        """Shape of their tensor (the same in every rank)."""
        pieces = [self.piece(shape, ranks) for shape in ours]
        shape = (*pieces[0][:-1], sum(piece[-1] for piece in pieces))
        shape = shape[::-1] if self.transpose else shape
        shape = (shape[0] + self.ahead, *shape[1:]) if self.ahead else shape
        return (1, *shape) if self.lead else shape

    def divides(self, ours: Sequence[Shape], ranks: int) -> bool:
        """Whether the variables can be divided over so many ranks, and then into `axes`."""
        whole = self.shard is None or all(shape[self.shard] % ranks == 0 for shape in ours)
        joined = sum(self.piece(shape, ranks)[-1] for shape in ours)
        return whole and joined % math.prod(size for size in self.axes if size != -1) == 0

    def load(self, theirs: Sequence[np.ndarray], ours: Sequence[Shape]) -> list[np.ndarray]:
        """Our variables from their tensors, one of each rank. Copies only what must move."""
        if self.order:
            return replace(self, order=()).load([self._ordered(tensor, back=True) for tensor in theirs], ours)
        ranks = len(theirs)
        theirs = [self._as_ours(tensor) for tensor in theirs]
        if len(ours) == 1 and (self.shard is None or ranks == 1):
            return [theirs[0]]
        out = [empty(shape, theirs[0].dtype) for shape in ours]
        for rank, tensor in enumerate(theirs if self.shard is not None else theirs[:1]):
            for whole, part in zip(out, self._parts(tensor, ours, ranks), strict=True):
                copy(whole[self._slice(whole, rank, ranks)], part)
        return out

    def part(
        self, theirs: Sequence[LazyTensor], ours: Sequence[Shape], which: int, index: tuple[slice, ...]
    ) -> np.ndarray:
        """Some of one of our variables, a slice with bounds for each axis, from their tensors, of which it reads no
        more than it must. May be a view.
        """
        if self.order:
            return self.load([tensor.read() for tensor in theirs], ours)[which][index]
        ranks = len(theirs) if self.shard is not None else 1
        pieces = [self.piece(shape, ranks) for shape in ours]
        before = sum(piece[-1] for piece in pieces[:which])  # columns of other variables
        axis = self.shard % len(pieces[which]) if ranks > 1 else 0
        size, found = pieces[which][axis], []
        for rank, tensor in enumerate(theirs[:ranks]):
            inside = list(index)
            start, stop = index[axis].start - rank * size, index[axis].stop - rank * size
            inside[axis] = slice(max(start, 0), min(stop, size))
            if inside[axis].start >= inside[axis].stop:
                continue
            inside[-1] = slice(inside[-1].start + before, inside[-1].stop + before)
            inside = inside[::-1] if self.transpose else inside
            inside[0] = slice(inside[0].start + self.ahead, inside[0].stop + self.ahead)
            values = tensor.part((slice(0, 1), *inside) if self.lead else tuple(inside))
            found.append(replace(self, ahead=0)._as_ours(values))
        return found[0] if len(found) == 1 else np.concatenate(found, axis)

    def save(self, ours: Sequence[np.ndarray], rank: int = 0, ranks: int = 1) -> np.ndarray:
        """Their tensor of one rank from our variables."""
        if self.order:
            return self._ordered(replace(self, order=()).save(ours, rank, ranks))
        shapes = [array.shape for array in ours]
        if len(ours) == 1 and not (self.transpose or self.lead or self.ahead):
            return ours[0][self._slice(ours[0], rank, ranks)]
        tensor = (np.zeros if self.ahead else np.empty)(self.shape(shapes, ranks), ours[0].dtype)
        for part, whole in zip(self._parts(self._as_ours(tensor), shapes, ranks), ours, strict=True):
            copy(part, whole[self._slice(whole, rank, ranks)])
        return tensor

    def _ordered(self, tensor: np.ndarray, back: bool = False) -> np.ndarray:
        """A tensor of theirs with the axes that `axes` makes of one of its axes in their order, or `back` in ours."""
        axis = 0 if self.transpose else tensor.ndim - 1
        left = tensor.shape[axis] // -math.prod(self.axes) if -1 in self.axes else 0
        sizes = [left if size == -1 else size for size in self.axes]
        order = np.argsort(self.order) if back else np.array(self.order)
        sizes = [sizes[i] for i in self.order] if back else sizes
        before, after = tensor.shape[:axis], tensor.shape[axis + 1 :]
        moved = (*range(axis), *(order + axis), *range(axis + len(sizes), axis + len(sizes) + len(after)))
        return tensor.reshape(*before, *sizes, *after).transpose(moved).reshape(tensor.shape)

    def _as_ours(self, tensor: np.ndarray) -> np.ndarray:
        tensor = tensor[0] if self.lead else tensor
        tensor = tensor[self.ahead :] if self.ahead else tensor
        return tensor.T if self.transpose else tensor

    def _parts(self, tensor: np.ndarray, ours: Sequence[Shape], ranks: int) -> list[np.ndarray]:
        ends = np.cumsum([self.piece(shape, ranks)[-1] for shape in ours])
        return np.split(tensor, ends[:-1], axis=-1)

    def _slice(self, whole: np.ndarray, rank: int, ranks: int) -> tuple[slice, ...]:
        if self.shard is None or ranks == 1:
            return (slice(None),)
        size = whole.shape[self.shard] // ranks
        part = slice(rank * size, (rank + 1) * size)
        return (slice(None), part) if self.shard % whole.ndim == 1 else (part,)


SAME, TRANSPOSED = Layout(), Layout(transpose=True)

"""Which bytes of a new file are taken from which bytes of an old one: tensors are paired first, then what lies between.

A tensor is paired by its bytes (it only moved), else by name, type and shape, else by its place among those of its
kind. What lies between tensors is graph structure, mostly the same; it is matched like any other bytes.
How residuals are coded is in `edge_fleet.releases.deltas.residuals`, how a delta is written in
`edge_fleet.releases.deltas.encoder`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Sequence

import msgspec
import numpy as np

from edge_contracts.delta import Copy, Difference, Insert, Lane, Operation
from edge_fleet.releases.deltas.model_tensors import ModelTensor, find_tensors
from edge_fleet.releases.deltas.residuals import Bytes, byte_planes, entropy_bits, residual_planes

WINDOW = 16
"""Bytes that must be equal before bytes between tensors are copied from elsewhere in the base."""

SHORTEST_COPY = 8
"""Bytes below which an operation costs more than it saves."""

SEARCHED_BYTES = 4 * 1024 * 1024
"""Most bytes of one stretch between tensors that are looked for anywhere in the base; above it only its ends are."""

SMALLEST_DIFFERENCE = 64
"""Bytes of a tensor below which its new bytes are sent: a scale, a zero point."""

SAMPLED_LANES = 1 << 13
"""Numbers of one tensor looked at to see whether its difference is worth more than its bytes."""

WORTH = 0.97
"""A difference must have at most this share of the entropy of the bytes themselves."""


def plan(base: Bytes, target: Bytes) -> list[Operation]:
    """Return the operations that make `target` from `base`, both uint8 and one-dimensional."""
    olds, news = find_tensors(base.data), find_tensors(target.data)
    matcher = _Matcher(base, target, _between(olds, len(base)))
    position = 0
    for new, old in zip(news, pair(base, target, olds, news), strict=True):
        matcher.stretch(position, new.offset, None if old is None else old.offset)
        matcher.tensor(new, old)
        position = new.offset + new.length
    matcher.stretch(position, len(target), len(base))
    return matcher.operations


def pair(
    base: Bytes, target: Bytes, olds: Sequence[ModelTensor], news: Sequence[ModelTensor]
) -> list[ModelTensor | None]:
    """Return for each new tensor the old one to compare it with, of the same length and lane, or None."""
    keys: tuple[Callable[[Bytes, ModelTensor], Hashable], ...] = (
        lambda data, tensor: hashlib.sha256(_of(data, tensor).data).digest(),
        lambda _, tensor: (tensor.name, tensor.kind) if tensor.name else tensor,
        lambda _, tensor: tensor.kind,
        lambda _, _tensor: (),
    )
    found: list[ModelTensor | None] = [None] * len(news)
    left = list(olds)
    for key in keys:
        known: dict[Hashable, deque[ModelTensor]] = defaultdict(deque)
        for old in left:
            known[old.length, old.lane, key(base, old)].append(old)
        for index, new in enumerate(news):
            if found[index] is None and (queue := known.get((new.length, new.lane, key(target, new)))):
                found[index] = queue.popleft()
        left = [old for queue in known.values() for old in queue]
        left.sort(key=lambda old: old.offset)
    return found


class _Matcher:
    """Writes down operations from the target's first byte to its last."""

    def __init__(self, base: Bytes, target: Bytes, between: Sequence[range]) -> None:
        self.operations: list[Operation] = []
        self._base = base
        self._target = target
        self._between = between
        self._index: dict[bytes, int] | None = None
        self._next = 0  # where in the base the last operation ended: the likeliest place to go on

    def tensor(self, new: ModelTensor, old: ModelTensor | None) -> None:
        """Write down how a whole tensor is made."""
        if old is None:
            self._insert(new.length)
            return
        fresh, known = _of(self._target, new), _of(self._base, old)
        if np.array_equal(fresh, known):
            self._copy(old.offset, new.length)
            return
        if new.length >= SMALLEST_DIFFERENCE and _worth(known, fresh, new.lane):
            lane = msgspec.convert(new.lane, Lane)
            self.operations.append(Difference(length=new.length, offset=old.offset, lane=lane))
        else:
            self._insert(new.length)
        self._next = old.offset + old.length

    def stretch(self, start: int, end: int, before: int | None) -> None:
        """Write down how the bytes from `start` to `end` of the target are made. In the base the next ones are those
        at `before`, if that is known."""
        head = _common(self._target[start:end], self._base[self._next :])
        if head >= SHORTEST_COPY or head == end - start:
            self._copy(self._next, head)
            start += head
        tail = 0
        if before is not None:
            tail = _common(self._target[start:end][::-1], self._base[:before][::-1])
            tail = tail if tail >= SHORTEST_COPY else 0
        self._search(start, end - tail)
        self._copy((before or 0) - tail, tail)

    def _search(self, start: int, end: int) -> None:
        if end - start < WINDOW or end - start > SEARCHED_BYTES:
            self._insert(end - start)
            return
        index = self._blocks()
        data = self._target[start:end].tobytes()
        position = done = 0
        while position + WINDOW <= len(data):
            found = index.get(data[position : position + WINDOW])
            if found is None:
                position += 1
                continue
            length = _common(self._target[start + position : end], self._base[found:])
            self._insert(position - done)
            self._copy(found, length)
            position += length
            done = position
        self._insert(len(data) - done)

    def _blocks(self) -> dict[bytes, int]:
        """Return where in the base, between its tensors, each block of WINDOW bytes lies; the first of equal ones."""
        if self._index is None:
            self._index = {}
            for place in self._between:
                data = self._base[place.start : min(place.stop, place.start + SEARCHED_BYTES)].tobytes()
                for offset in range(0, len(data) - WINDOW + 1, WINDOW):
                    self._index.setdefault(data[offset : offset + WINDOW], place.start + offset)
        return self._index

    def _copy(self, offset: int, length: int) -> None:
        if not length:
            return
        last = self.operations[-1] if self.operations else None
        if isinstance(last, Copy) and last.offset + last.length == offset:
            self.operations[-1] = Copy(length=last.length + length, offset=last.offset)
        else:
            self.operations.append(Copy(length=length, offset=offset))
        self._next = offset + length

    def _insert(self, length: int) -> None:
        if not length:
            return
        last = self.operations[-1] if self.operations else None
        if isinstance(last, Insert):
            self.operations[-1] = Insert(length=last.length + length)
        else:
            self.operations.append(Insert(length=length))


def _of(data: Bytes, tensor: ModelTensor) -> Bytes:
    return data[tensor.offset : tensor.offset + tensor.length]


def _between(tensors: Sequence[ModelTensor], size: int) -> list[range]:
    ends = [0, *(tensor.offset + tensor.length for tensor in tensors)]
    starts = [*(tensor.offset for tensor in tensors), size]
    return [range(end, start) for end, start in zip(ends, starts, strict=True) if start > end]


def _common(one: Bytes, other: Bytes) -> int:
    """Return how many first bytes are equal."""
    size = min(len(one), len(other))
    done, step = 0, 256
    while done < size:
        differs = one[done : min(size, done + step)] != other[done : min(size, done + step)]
        if differs.any():
            return done + int(differs.argmax())
        done, step = done + step, min(2 * step, 1 << 20)
    return size


def _worth(known: Bytes, fresh: Bytes, lane: int) -> bool:
    """Return whether the difference compresses better than the bytes, by a sample spread over the tensor."""
    step = max(1, len(fresh) // lane // SAMPLED_LANES)
    sample = [np.ascontiguousarray(data.reshape(-1, lane)[::step]).reshape(-1) for data in (known, fresh)]
    return entropy_bits(residual_planes(sample[0], sample[1], lane)) <= WORTH * entropy_bits(
        byte_planes(sample[1], lane)
    )

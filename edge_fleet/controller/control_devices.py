"""Devices that a candidate may be compared with, the likest first, found without a look at the whole fleet."""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Callable, Iterator, Mapping

from edge_fleet.database.rollouts import SlotChange

_Kind = tuple[str, tuple[tuple[str, str], ...]]
"""Board and tags."""


class ControlDevices:
    """The devices of a channel by board and tags, within each by their place in the rollout."""

    def __init__(self, place: Callable[[str], float]) -> None:
        """`place` is a device's in the rollout, the same each time."""
        self._place = place
        self._kinds: dict[str, _Kind] = {}
        self._devices: dict[_Kind, list[tuple[float, str]]] = {}

    def put(self, report: SlotChange) -> None:
        """Take a device in, or among those that it is like now."""
        kind = _kind(report)
        if self._kinds.get(report.device) == kind:
            return
        self.drop(report.device)
        self._kinds[report.device] = kind
        bisect.insort(self._devices.setdefault(kind, []), (self._place(report.device), report.device))

    def drop(self, device: str) -> None:
        """Take a device out for good: it runs the candidate, was compared already, or is gone."""
        kind = self._kinds.pop(device, None)
        if kind is not None:
            among = self._devices[kind]
            del among[bisect.bisect_left(among, (self._place(device), device))]
            if not among:
                del self._devices[kind]

    def likest(self, mine: SlotChange, roster: Mapping[str, SlotChange]) -> Iterator[SlotChange]:
        """Yield the devices that are online: of the same board and tags, of the same board, of the same tags, then the
        others, each by their places."""
        board, tags = _kind(mine)
        groups: list[list[list[tuple[float, str]]]] = [[], [], [], []]
        for (its_board, its_tags), among in self._devices.items():
            groups[2 * (its_board != board) + (its_tags != tags)].append(among)
        for group in groups:
            for _, device in heapq.merge(*group):
                if roster[device].online:
                    yield roster[device]


def _kind(report: SlotChange) -> _Kind:
    return report.board, tuple(sorted(report.tags.items()))

"""What waits on a slot's data topic, and whether anything still arrives there. Pure; topics are in
`edge_agent.supervisor.mqtt_gateway.gateway`.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, Literal, TypeVar

from msgspec import Struct, field

T = TypeVar("T")


class BoundedQueue(Struct, Generic[T], kw_only=True):
    """A queue of at most `limit` items and `max_bytes` bytes. When it is full, `drop` says which item gives way."""

    limit: int
    max_bytes: int
    drop: Literal["oldest", "newest"]
    _waiting: deque[tuple[T, int]] = field(default_factory=deque)
    _bytes: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, item: T, size: int) -> int:
        """Let `item` of `size` bytes wait; return how many items were dropped for it, itself included."""
        dropped = 0
        while self._waiting and self._full(size):
            dropped += 1
            if self.drop == "newest":
                return dropped
            self.take()
        self._waiting.append((item, size))
        self._bytes += size
        return dropped

    def take(self) -> T:
        """Return the item that has waited longest. Raises IndexError when there is none."""
        item, size = self._waiting.popleft()
        self._bytes -= size
        return item

    def _full(self, size: int) -> bool:
        return len(self._waiting) >= self.limit or self._bytes + size > self.max_bytes

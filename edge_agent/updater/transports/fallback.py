"""Several transports, each asked when the one before cannot be reached."""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.errors import RetryAfterError, UnreachableError
from edge_agent.ports import ObjectKind, Transport


class FallbackTransport:
    """Asks the carriers in turn; one that does not answer goes to the end. Chunks are named by hash, so it does not
    matter which carrier brings which."""

    def __init__(self, carriers: Sequence[Transport]) -> None:
        self._carriers = tuple(carriers)

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        order = self._carriers
        for carrier in order[:-1]:
            try:
                return carrier.read(kind, name, offset, length)
            except (UnreachableError, RetryAfterError):
                self._carriers = (*(c for c in order if c is not carrier), carrier)
        return order[-1].read(kind, name, offset, length)

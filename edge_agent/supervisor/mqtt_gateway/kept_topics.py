"""Which retained messages of this device a data broker holds, so that they are taken away when nobody tells them anew.

Remembered in the state folder: the broker may be away when `[home_assistant]` or a slot is taken out, and the agent may
be restarted before it is back. Retained messages on a broker that is configured no more stay there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from edge_agent.storage.durable import StateError, write_durably
from edge_contracts.codec import Record, decode, encode
from edge_contracts.errors import ContractError
from edge_contracts.limits import MAX_DOCUMENT_BYTES

MAX_BROKERS = 4
"""Brokers remembered; the oldest go first."""

_log = logging.getLogger(__name__)


class _Kept(Record, frozen=True, kw_only=True):
    """Topics by the broker's HOST:PORT."""

    brokers: dict[str, tuple[str, ...]] = {}


class KeptTopics:
    """Of one broker. What cannot be read is taken for empty, and what cannot be written is said in the log: neither
    keeps a device from answering."""

    def __init__(self, path: Path, broker: str) -> None:
        self._path = path
        self._broker = broker
        self._brokers = _read(path)

    @property
    def topics(self) -> frozenset[str]:
        """The topics on which the broker may hold a message of ours."""
        return frozenset(self._brokers.get(self._broker, ()))

    def remember(self, topics: Iterable[str]) -> None:
        """Set the topics; writes only what has changed."""
        wanted = tuple(sorted(topics))
        if wanted == self._brokers.get(self._broker, ()):
            return
        others = {name: kept for name, kept in self._brokers.items() if name != self._broker}
        self._brokers = others | ({self._broker: wanted} if wanted else {})
        self._brokers = dict(list(self._brokers.items())[-MAX_BROKERS:])
        try:
            write_durably(self._path, encode(_Kept(brokers=self._brokers)))
        except StateError as error:
            _log.warning("what is retained on the data broker is not remembered: %s", error)


def _read(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        data = path.read_bytes()
        return dict(decode(data, _Kept, limit=MAX_DOCUMENT_BYTES, what="kept topics").brokers)
    except (OSError, ContractError):
        return {}

"""What devices publish, parsed and checked before it may enter the store. Pure: bytes in, typed messages out."""

from __future__ import annotations

from typing import Literal

from edge_contracts.codec import Record, decode
from edge_contracts.errors import ContractError
from edge_contracts.limits import MAX_MESSAGE_BYTES
from edge_contracts.state import parse_presence, parse_reported
from edge_contracts.telemetry import Tombstone, parse_event, parse_window
from edge_contracts.topics import parse_device_topic
from edge_fleet.database.telemetry import Arrival, Message

MAX_NUMBER = 2**53 - 1
"""Largest sequence number taken: exact in every JSON reader, and fits the database's integers."""

MAX_BOOT_CHARS = 128
"""Length of a boot's identity, which is part of a database key."""


class _Kind(Record, frozen=True, kw_only=True):
    kind: Literal["window", "event", "dropped"]


def parse_arrival(topic: str, payload: bytes) -> Arrival:
    """Parse what arrived on a device's topic.

    Raises ContractError naming topic or field, also when the payload names another device than the topic: the
    broker's access rules cover topics, so the topic is what counts.
    """
    address = parse_device_topic(topic)
    if address.topic == "presence":
        arrival: Arrival = parse_presence(payload)
    elif address.topic == "reported":
        arrival = parse_reported(payload)
    elif address.topic == "tele":
        arrival = _parse_telemetry(payload)
    else:
        raise ContractError("unexpected topic", subject=topic)
    if arrival.device != address.device:
        raise ContractError(f"the payload says it is from {arrival.device!r}", subject=topic)
    _check_keys(arrival)
    return arrival


def _check_keys(arrival: Arrival) -> None:
    """Refuse what no database could hold as a key, so that one message never spoils its batch."""
    if not arrival.boot_id.isprintable() or not 0 < len(arrival.boot_id) <= MAX_BOOT_CHARS:
        raise ContractError(f"not from 1 to {MAX_BOOT_CHARS} printable characters", subject="boot_id")
    for name in ("sequence", "first", "count"):
        if getattr(arrival, name, 0) > MAX_NUMBER:
            raise ContractError(f"over {MAX_NUMBER}", subject=name)


def _parse_telemetry(payload: bytes) -> Message:
    kind = decode(payload, _Kind, limit=MAX_MESSAGE_BYTES, what="telemetry").kind
    if kind == "window":
        return parse_window(payload)
    if kind == "event":
        return parse_event(payload)
    return decode(payload, Tombstone, limit=MAX_MESSAGE_BYTES, what="tombstone")

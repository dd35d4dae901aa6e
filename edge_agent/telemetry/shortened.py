"""What a message may lose where the broker takes only short ones: pure, bytes in, bytes out.

The numbers of a message stay, so that no gap opens; who shortens says so in an event.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from msgspec import structs

from edge_contracts.codec import encode
from edge_contracts.errors import ContractError
from edge_contracts.state import ReportedState, SlotState
from edge_contracts.telemetry import Event, TelemetryWindow, parse_event, parse_window


def shorten_telemetry(body: bytes, room: int) -> bytes | None:
    """Return a window or an event in at most `room` bytes, or None where that cannot be.

    A window gives up the histograms of its tags first, then all of them, then readings, drift and latencies; its
    counters stay. An event gives up its log, oldest lines first, its readings, then the end of its text.
    """
    with suppress(ContractError):
        return _first_fitting(map(encode, _windows(parse_window(body))), room)
    with suppress(ContractError):
        return _first_fitting(map(encode, _events(parse_event(body))), room)
    return None


def shorten_reported(state: ReportedState, room: int) -> bytes | None:
    """Return a reported state in at most `room` bytes, or None where that cannot be.

    The longest tags go first, then what slots compare and explain, then the trusted versions; what each slot runs
    stays.
    """
    return _first_fitting(map(encode, _reported(state)), room)


def _first_fitting(bodies: Iterator[bytes], room: int) -> bytes | None:
    return next((body for body in bodies if len(body) <= room), None)


def _windows(window: TelemetryWindow) -> Iterator[TelemetryWindow]:
    untagged = {name: counts for name, counts in window.histograms.items() if "@" not in name}
    yield structs.replace(window, histograms=untagged)
    bare = structs.replace(window, histograms={})
    yield bare
    bare = structs.replace(bare, drift={}, resources={}, shadow=None)
    yield bare
    yield structs.replace(bare, served_by={}, latency_log2_us=())


def _events(event: Event) -> Iterator[Event]:
    for kept in (4000, 1000):
        if len(event.log) > kept:
            yield structs.replace(event, log=event.log[-kept:].partition("\n")[2])
    if event.log:
        yield structs.replace(event, log="")
    bare = structs.replace(event, detail={}, log="")
    yield bare
    for length in (500, 200, 80, 0):
        yield structs.replace(bare, text=event.text[:length])


def _reported(state: ReportedState) -> Iterator[ReportedState]:
    tags = sorted(state.tags.items(), key=lambda tag: len(tag[0]) + len(tag[1]))
    while tags:
        yield structs.replace(state, tags=dict(sorted(tags)))
        tags.pop()
    bare = structs.replace(state, tags={})
    yield bare
    bare = structs.replace(bare, slots=tuple(structs.replace(slot, shadow=None, reason=None) for slot in state.slots))
    yield bare
    bare = structs.replace(bare, trusted={})
    yield bare
    yield structs.replace(bare, slots=tuple(map(_least, state.slots)))


def _least(slot: SlotState) -> SlotState:
    return SlotState(
        slot=slot.slot, state=slot.state, serving=slot.serving, served_by=slot.served_by, channel=slot.channel
    )

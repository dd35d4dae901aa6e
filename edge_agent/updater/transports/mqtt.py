"""The carrier over MQTT: requests to a depot and its responses, QoS 0, asked again when the connection was lost or
nothing comes.

QoS 0 because chunks are named by hash: asking again by name does all that QoS 1 would, at a fraction of its cost. How
long to wait and how much to have in flight follow from the round trips (`edge_agent.backoff`), so that a link of a
few kilobytes a second is neither overrun nor asked twice. The connection is the updater's own, beside the supervisor's.
Other transports are in `edge_agent.updater.transports`.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer
from dataclasses import dataclass, field

from edge_agent.backoff import InFlight, RoundTrip
from edge_agent.config.agent_toml import BrokerConfig
from edge_agent.errors import NotFoundError, RetryAfterError, UnreachableError
from edge_agent.mqtt.client import MqttLink
from edge_agent.ports import ObjectKind
from edge_agent.updater.transports.directory import repository_path
from edge_contracts.errors import ContractError
from edge_contracts.limits import KIB, MAX_CHUNK_BYTES
from edge_contracts.topics import device_topic
from edge_contracts.transfer import Request, Response, pack, unpack_response
from edge_io.mqtt.words import Acknowledged, Connected, Disconnected, Granted, LinkEvent, MessageReceived, Refused

SMALL_BYTES = 8 * KIB
"""Answers up to this size take a link no longer than its latency, give or take."""

RESPONSE_BYTES = 64
"""What a response holds besides the bytes that were asked for, at most."""

_UNKNOWN = RoundTrip()


@dataclass(kw_only=True)
class _Pending:
    """A request that waits for its answer, and how often it was asked."""

    request: bytes
    subject: str
    tries: int = 0
    future: Future[Response] = field(default_factory=Future)


@dataclass(kw_only=True)
class _Pace:
    """How long answers of one size take, how many may be in flight, and how many are."""

    round_trip: RoundTrip
    window: InFlight = field(default_factory=InFlight)
    flying: int = 0


class MqttTransport:
    """`timeout_s` bounds one answer over all its tries; a depot's wish to wait is granted within `patience_s`. `timer`
    is what is believed of round trips before the first one."""

    def __init__(
        self,
        settings: BrokerConfig,
        tenant: str,
        device: str,
        *,
        timeout_s: float,
        patience_s: float = 600.0,
        timer: RoundTrip = _UNKNOWN,
    ) -> None:
        self._request_topic = device_topic(tenant, device, "req")
        self._reply_topic = device_topic(tenant, device, "rsp", secrets.token_hex(8))
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._waiting: dict[int, _Pending] = {}
        self._repeated: dict[int, _Pending] = {}
        self._refused = self._trouble = ""
        self._next_id = 0
        # Chunks and what is small are timed apart: what quick answers teach would ask twice for slow ones.
        self._small, self._bulk = _Pace(round_trip=timer), _Pace(round_trip=timer)
        client_id = f"ew-{device}-update-{secrets.token_hex(4)}"
        self._link = MqttLink(settings, client_id, ((self._reply_topic, 0),), self._heard)
        self._link.start()

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        repository_path(kind, name)  # refuses a name no object can have before it is sent
        if not self._link.wait_connected(self._timeout_s):  # and only then it is known what the broker takes
            raise self._unreachable("no connection to the broker", f"{kind} {name}")
        got = b""
        while True:
            piece, total = self._read(kind, name, offset + len(got), min(length - len(got), self._most()))
            got += piece
            if not piece or len(got) >= length or offset + len(got) >= total:
                return got, total

    def _most(self) -> int:
        """Return how many bytes a response may bring over this broker."""
        room = self._link.limits.payload_room(self._reply_topic)
        return MAX_CHUNK_BYTES if room is None else max(1, room - RESPONSE_BYTES)

    def _read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        patience_ends = time.monotonic() + self._patience_s
        while True:
            pace = self._bulk if kind == "blob" and length > SMALL_BYTES else self._small
            with self._place(pace):
                response = self._answer(pace, self._register(kind, name, offset, length))
            if response.status == "retry_after" and time.monotonic() + response.retry_after < patience_ends:
                time.sleep(max(0.05, response.retry_after))
                continue
            return _body(response, f"{kind} {name}", offset, length)

    def close(self) -> None:
        self._link.stop()

    @contextlib.contextmanager
    def _place(self, pace: _Pace) -> Iterator[None]:
        """Wait for a place in the window of requests in flight, and hold it."""
        with self._changed:
            self._changed.wait_for(lambda: pace.flying < pace.window.limit)
            pace.flying += 1
        try:
            yield
        finally:
            with self._changed:
                pace.flying -= 1
                self._changed.notify_all()

    def _answer(self, pace: _Pace, registered: tuple[int, _Pending]) -> Response:
        """Ask until an answer comes, late ones to an earlier try included. Raises UnreachableError."""
        deadline = time.monotonic() + self._timeout_s
        number, pending = registered
        try:
            while (left := deadline - time.monotonic()) > 0:
                if not self._link.wait_connected(left):
                    break
                sent = time.monotonic()
                self._send(pending)
                with contextlib.suppress(NoAnswer):
                    response = pending.future.result(min(pace.round_trip.timeout_s, max(0.0, deadline - sent)))
                    self._observe(pace, None if pending.tries > 1 else time.monotonic() - sent)
                    return response
                self._miss(pace)
        finally:
            with self._changed:
                del self._waiting[number]
        what = f"no reply from a depot in {self._timeout_s:g} s" if pending.tries else "no connection to the broker"
        raise self._unreachable(what, pending.subject)

    def _unreachable(self, what: str, subject: str) -> UnreachableError:
        return UnreachableError(f"{what} ({self._trouble})" if self._trouble else what, subject=subject)

    def _send(self, pending: _Pending) -> None:
        """Send a request; again with QoS 1, because then a broker with MQTT 5 says what becomes of it."""
        if self._refused:
            text = f"the broker refuses the subscription to replies: {self._refused}"
            raise UnreachableError(text, subject=pending.subject)
        pending.tries += 1
        number = self._link.publish(self._request_topic, pending.request, qos=int(pending.tries > 1))
        if number is not None and pending.tries > 1:
            with self._changed:
                self._repeated[number] = pending

    def _register(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[int, _Pending]:
        with self._changed:
            self._next_id += 1
            number, reply = self._next_id, self._reply_topic
            request = Request(id=number, reply=reply, kind=kind, name=name, offset=offset, length=length)
            self._waiting[number] = pending = _Pending(request=pack(request), subject=f"{kind} {name}")
        return number, pending

    def _observe(self, pace: _Pace, sample_s: float | None) -> None:
        """Learn from an answer; one that was asked for twice says nothing about the time (Karn's rule)."""
        if sample_s is not None:
            with self._changed:
                pace.round_trip = pace.round_trip.observed(sample_s)
                pace.window = pace.window.observed(sample_s)
                self._changed.notify_all()  # there may be one place more

    def _miss(self, pace: _Pace) -> None:
        with self._changed:
            pace.round_trip = pace.round_trip.missed()
            pace.window = pace.window.missed()

    def _heard(self, event: LinkEvent) -> None:
        if isinstance(event, Connected):
            self._refused = next((one.reason for one in event.refused), "")
            self._ask_again()
        elif isinstance(event, Disconnected):
            self._trouble = event.reason
            with self._changed:
                self._repeated.clear()
        elif isinstance(event, Acknowledged):
            with self._changed:
                self._repeated.pop(event.number, None)
            self._trouble = "nobody is subscribed to requests: no depot is connected" if event.unheard else ""
        elif isinstance(event, Refused):
            self._request_refused(event)
        elif isinstance(event, MessageReceived) and event.topic == self._reply_topic:
            self._answered(event)
        elif isinstance(event, Granted):
            self._refused = next((one.reason for one in event.left), "")
            self._ask_again()

    def _request_refused(self, event: Refused) -> None:
        """Give up a request that the broker does not pass on; asking again would not change it."""
        with self._changed:
            pending = self._repeated.pop(event.number, None)
            if pending is not None and not pending.future.done():
                text = f"the broker refuses requests: {event.reason}"
                pending.future.set_exception(UnreachableError(text, subject=pending.subject))

    def _answered(self, event: MessageReceived) -> None:
        try:
            response = unpack_response(event.payload)
        except ContractError:
            return  # not from a depot of ours; the request is asked again
        with self._changed:
            pending = self._waiting.get(response.id)
            if pending is not None and not pending.future.done():
                pending.future.set_result(response)

    def _ask_again(self) -> None:
        """Whatever was on its way is lost with the connection it was on."""
        with self._changed:
            lost = [pending for pending in self._waiting.values() if pending.tries and not pending.future.done()]
        for pending in lost:
            with contextlib.suppress(UnreachableError):  # whoever waits for it is told at the next try
                self._send(pending)


def _body(response: Response, subject: str, offset: int, length: int) -> tuple[bytes, int]:
    if response.status == "not_found":
        raise NotFoundError("not found at the depot", subject=subject)
    if response.status == "retry_after":
        raise RetryAfterError(response.retry_after)
    if response.status == "refused" or response.offset != offset or len(response.body) > length:
        raise UnreachableError("the depot's reply does not match the request", subject=subject)
    return response.body, response.total

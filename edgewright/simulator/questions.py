"""A simulated device's questions to a depot: sent, waited for, asked again, and answered to the one who looks.

Waiting follows the agent's own round-trip timer (`edge_agent.backoff`); a depot that says "later" is believed, as in
`edge_agent.updater.transports.mqtt`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from edge_agent.backoff import RoundTrip
from edge_agent.errors import RetryAfterError, UnreachableError
from edge_agent.update.record import HOUR_S
from edge_contracts.errors import ContractError, TransportError
from edge_contracts.limits import CHUNK_BYTES
from edge_contracts.topics import device_topic
from edge_contracts.transfer import Request, Response, pack, unpack_response
from edgewright.simulator.looking import Ask, Asking

TIMEOUT_S = 30.0
"""How long one answer may take over all its tries: the agent's `updates.timeout_s`."""

PATIENCE_S = 600.0
"""How long a depot may put a device off."""


class DeviceSurroundings(Protocol):
    """What a device has of the world: time, timers, and a link that may be gone."""

    @property
    def now(self) -> float: ...

    def later(self, delay_s: float, act: Callable[[], None]) -> None: ...

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None: ...


@dataclass(kw_only=True)
class _Open:
    """A question that waits for its answer: the place in the list of asks, and what came of the object so far."""

    place: int
    ask: Ask
    got: bytes = b""
    number: int = 0
    sent: float = 0.0
    tries: int = 0
    patience_until: float = 0.0
    until: float = 0.0


@dataclass(kw_only=True)
class Questions:
    """Drives one look of one device after the other. `done` is called when a look has ended."""

    around: DeviceSurroundings
    tenant: str
    device: str
    done: Callable[[], None]
    missed: int = 0
    _look: Asking[None] | None = None
    _open: dict[int, _Open] = field(default_factory=dict)
    _answers: list[bytes | None] = field(default_factory=list)
    _left: int = 0
    _number: int = 0
    _timer: RoundTrip = field(default_factory=RoundTrip)

    def __post_init__(self) -> None:
        self.reply = device_topic(self.tenant, self.device, "rsp", "look")
        self._topic = device_topic(self.tenant, self.device, "req")

    @property
    def busy(self) -> bool:
        return self._look is not None

    def begin(self, look: Asking[None]) -> None:
        """Carry on a look; one before it is superseded."""
        self.drop()
        self._look = look
        self._go(None, None)

    def drop(self) -> None:
        """Give up the look that is under way."""
        self._look = None
        self._open.clear()

    def heard(self, payload: bytes) -> None:
        """Take in what came on the reply topic."""
        try:
            response = unpack_response(payload)
        except ContractError:
            return
        one = self._open.pop(response.id, None)
        if one is not None:
            self._answered(one, response)

    def _go(self, answers: list[bytes | None] | None, error: TransportError | None) -> None:
        look = self._look
        assert look is not None
        try:
            asks = look.throw(error) if error is not None else next(look) if answers is None else look.send(answers)
        except StopIteration:
            if self._look is look:
                self._look = None
                self.done()
            return
        if self._look is not look:
            return  # what it said made the device begin another one
        self._answers, self._left = [None] * len(asks), len(asks)
        now = self.around.now
        for place, ask in enumerate(asks):
            self._send(_Open(place=place, ask=ask, patience_until=now + PATIENCE_S, until=now + TIMEOUT_S))

    def _send(self, one: _Open) -> None:
        self._number += 1
        one.number, one.sent, one.tries = self._number, self.around.now, one.tries + 1
        self._open[one.number] = one
        ask, offset = one.ask, one.ask.offset + len(one.got)
        length = CHUNK_BYTES if ask.length is None else ask.length - len(one.got)
        request = Request(id=one.number, reply=self.reply, kind=ask.kind, name=ask.name, offset=offset, length=length)
        self.around.publish(self._topic, pack(request), qos=int(one.tries > 1), retain=False)
        number = one.number
        self.around.later(self._timer.timeout_s, lambda: self._late(number))

    def _late(self, number: int) -> None:
        """Ask again what was not answered in time."""
        one = self._open.pop(number, None)
        if one is None:
            return
        self._timer = self._timer.missed()
        self.missed += 1
        if self.around.now >= one.until:
            self._fail(UnreachableError(f"no reply from a depot in {TIMEOUT_S:g} s", subject=one.ask.name))
            return
        self._send(one)

    def _answered(self, one: _Open, response: Response) -> None:
        now = self.around.now
        if one.tries == 1:
            self._timer = self._timer.observed(now - one.sent)
        if response.status == "retry_after":
            self._put_off(one, response.retry_after, now)
            return
        if response.status == "not_found":
            self._finish(one, None)
            return
        if response.status == "refused":
            self._fail(UnreachableError("the depot refuses the request", subject=one.ask.name))
            return
        one.got += response.body
        wanted = response.total - one.ask.offset if one.ask.length is None else one.ask.length
        if len(one.got) >= wanted or not response.body:
            self._finish(one, one.got)
            return
        one.tries, one.until = 0, now + TIMEOUT_S
        self._send(one)

    def _put_off(self, one: _Open, delay_s: float, now: float) -> None:
        if now + delay_s > one.patience_until:
            self._fail(RetryAfterError(min(delay_s, HOUR_S)))
            return
        look = self._look

        def again() -> None:
            if self._look is look:
                one.tries, one.until = 0, self.around.now + TIMEOUT_S
                self._send(one)

        self.around.later(max(0.05, delay_s), again)

    def _finish(self, one: _Open, data: bytes | None) -> None:
        self._answers[one.place] = data
        self._left -= 1
        if not self._left:
            self._go(self._answers, None)

    def _fail(self, error: TransportError) -> None:
        self._open.clear()
        self._go(None, error)

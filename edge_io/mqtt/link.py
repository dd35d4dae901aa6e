"""A client's lasting link to its broker: connect, subscribe, send, notice the end, and connect again.

What travels over it, and how long to wait between attempts, is its owner's to say. One thread does everything: its
owner's own (`run`) or one of the link's (`start`). Messages can be published from any thread. A single connection is
`edge_io.mqtt.session`.
"""

from __future__ import annotations

import logging
import math
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from edge_io.mqtt.session import BrokerSession, LinkSettings, Manner, Outgoing, SettingsError
from edge_io.mqtt.words import (
    QOS_NOT_SUPPORTED,
    RETAIN_NOT_SUPPORTED,
    SESSION_TAKEN_OVER,
    UNSUPPORTED_VERSION,
    BrokerLimits,
    Connected,
    Disconnected,
    LinkEvent,
    MessageReceived,
)

STEADY_S = 10.0
"""A connection that held for so long counts as a success: the next wait is a first one."""

UNCONTESTED_S = 600.0
"""The same after another client took the connection over: it will come back, and so would we, for ever."""

STEP_S = 0.5
"""Longest wait for the network before the owner's work gets its turn."""

DRAIN_S = 3.0
"""How long a connection that is ended here waits for the broker to acknowledge what was published last."""

STUCK_S = 120.0
"""A thread that has not had a turn for so long hangs: look-ups of names and TLS handshakes take less."""

REFUSAL_S = 2.0
"""How long a broker that closed without a word is listened to for its reason."""

MAX_WAITING = 1000
"""Messages that wait for the broker's window at most; then none is taken any more."""

_log = logging.getLogger(__name__)


EXCHANGED = 1
"""The latest attempt that follows a short connection over which messages went both ways: a network that breaks every
few seconds still carries something in each of them."""


def next_attempt(attempt: int, lasted_s: float, code: int | None, *, exchanged: bool = False) -> int:
    """Return which attempt comes after a connection that held for `lasted_s` seconds and ended with the broker's
    reason `code`: the first again after a success, an early one when messages were `exchanged` and the broker gave no
    reason to end it, else one more."""
    steady = UNCONTESTED_S if code == SESSION_TAKEN_OVER else STEADY_S
    if lasted_s >= steady:
        return 0
    return min(attempt, EXCHANGED) if exchanged and code is None else attempt


class BrokerLink:
    """See the module. `tell` gets every event on the link's thread and hands it on quickly; what it raises is logged.
    `wait` returns the seconds to wait before attempt number 0, 1, 2, ..."""

    def __init__(self, settings: LinkSettings, tell: Callable[[LinkEvent], None], wait: Callable[[int], float]) -> None:
        self._settings = settings
        self._tell_owner = tell
        self._wait = wait
        self._manner = Manner(version5=settings.protocol != "3.1.1")
        self._greeted = False
        self._sent = self._exchanged = False
        self._lock = threading.Lock()
        self._outgoing: deque[Outgoing] = deque()
        self._number = 0
        self._connection: BrokerSession | None = None
        self._ready = threading.Event()
        self._leave = False
        self._anew = False
        self._bell: int | None = None
        self._thread: threading.Thread | None = None
        self._turn = 0.0

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us and has answered every subscription."""
        return self._ready.is_set()

    @property
    def limits(self) -> BrokerLimits:
        """What the broker says of itself; the standard's limits without a connection."""
        connection = self._connection
        return BrokerLimits() if connection is None else connection.limits

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, correlation: bytes | None = None
    ) -> int | None:
        """Hand over a message; return its number, or None when it cannot be taken now: there is no connection, or too
        many wait. `Acknowledged` or `Refused` comes with its number; after `Disconnected` neither does any more, and
        what was not acknowledged is lost. `correlation` travels on MQTT 5 only."""
        with self._lock:
            if not self._ready.is_set() or len(self._outgoing) >= MAX_WAITING:
                return None
            self._number += 1
            number = self._number
            self._outgoing.append(
                Outgoing(number=number, topic=topic, payload=payload, qos=qos, retain=retain, correlation=correlation)
            )
        self._ring()
        return number

    def start(self) -> None:
        """Do all this in a thread of the link's own, until `stop`. A machine that has no thread to spare gets it at a
        later `watch`."""
        self._turn = time.monotonic()
        self._thread = threading.Thread(target=self._run_on, name=f"mqtt-{self._settings.client_id}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            _log.error("the link to the broker has no thread: %s", error)

    def watch(self) -> str:
        """Start the link's thread anew if it has died; return what is wrong with it, "" if it does its work. To be
        called from time to time by whoever called `start`."""
        if self._thread is None or self._leave:
            return ""
        if not self._thread.is_alive():
            self.start()
            return "" if self._thread.is_alive() else "no thread for the connection to the broker"
        still = time.monotonic() - self._turn
        return f"the connection's thread has hung for {still:.0f} s" if still > STUCK_S else ""

    def wait_connected(self, timeout_s: float) -> bool:
        """Return whether the connection stands, after waiting at most `timeout_s` seconds for it."""
        return self._ready.wait(timeout_s)

    def stop(self) -> None:
        """Wait at most `DRAIN_S` until the broker has what was published, say goodbye, and end."""
        self._leave = True
        self._ring()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(DRAIN_S + self._settings.handshake_s)

    def reconnect(self) -> None:
        """Connect anew, and at once: files have changed."""
        self._anew = True
        self._ring()

    def run(self, stopped: Callable[[], bool], work: Callable[[], float] | None = None) -> None:
        """Work until `stopped` or `stop`. `work` is done between steps, connected or not, and returns how many seconds
        the next one may wait. What it raises ends the link."""
        bell = self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        attempt = 0
        turn = work or _no_work
        try:
            while not self._leaving(stopped):
                began = time.monotonic()
                ended = self._session(stopped, turn)
                self._forget()
                if self._leaving(stopped):
                    return
                self._tell(ended)
                lasted_s = time.monotonic() - began
                following = next_attempt(attempt, lasted_s, ended.code, exchanged=self._exchanged)
                attempt = 0 if self._anew else following
                self._rest(stopped, turn, 0.0 if self._anew else self._wait(attempt))
                attempt, self._anew = attempt + 1, False
        finally:
            self._forget()
            with self._lock:
                self._bell = None
                os.close(bell)

    def _run_on(self) -> None:
        """Do what `run` does; an error of this program is logged and ends the connection, and not the thread."""
        while not self._leave:
            try:
                self.run(lambda: False)
            except Exception as error:
                _log.exception("the link to the broker failed and starts again")
                self._tell(Disconnected(reason=f"an error in this program: {error}"))
                time.sleep(STEP_S)

    def _session(self, stopped: Callable[[], bool], work: Callable[[], float]) -> Disconnected:
        """Have one connection from start to end; return why it ended."""
        self._sent = self._exchanged = False
        connection = self._opened()
        if isinstance(connection, Disconnected):
            return connection
        self._connection = connection
        step, leave_by = STEP_S, 0.0
        while connection.socket is not None:
            readable = self._await_network(connection, step)
            connection.process(readable, time.monotonic())
            self._send_waiting(connection)
            step = min(STEP_S, work())
            if self._anew or self._leaving(stopped):
                leave_by = leave_by or time.monotonic() + DRAIN_S
                step = min(step, 0.05)
                drained = not self._outgoing and connection.idle
                if drained or not connection.accepted or time.monotonic() > leave_by:
                    break
        if connection.socket is not None:
            connection.leave()
        connection.end(connection.ending)  # CONNECT itself may have found nobody any more
        return self._learned(connection)

    def _opened(self) -> BrokerSession | Disconnected:
        """Return a new connection, CONNECT sent, or why there is none."""
        try:
            connection = BrokerSession(self._settings, self._manner, self._tell_event)
            connection.open(time.monotonic())
        except OSError as error:
            tls = self._settings.tls is not None and type(error).__module__ == "ssl"
            reason = f"no connection: {'TLS: ' if tls else ''}{error}"
            return Disconnected(reason=reason, ending="tls" if tls else "unreachable")
        except ValueError as error:
            return Disconnected(reason=f"no connection: {error}", ending="settings")
        return connection

    def _learned(self, connection: BrokerSession) -> Disconnected:
        """Return why the connection ended; the next one may be tried in another manner."""
        ending, manner = connection.ending, self._manner
        if connection.refusal_code in (RETAIN_NOT_SUPPORTED, QOS_NOT_SUPPORTED):
            self._manner = Manner(version5=manner.version5, retained_will=False)
        unspoken = ending.ending == "silent" and not self._greeted
        if self._settings.protocol == "auto" and (unspoken or ending.code == UNSUPPORTED_VERSION):
            self._manner = Manner(version5=not manner.version5, retained_will=manner.retained_will)
        if ending.ending == "silent" and self._settings.tls is not None:
            alert = self._alert()
            if alert:
                return Disconnected(reason=f"{ending.reason}: {alert}", ending="tls")
        return ending

    def _alert(self) -> str:
        """Return what the broker says about our certificate, "" if nothing."""
        from edge_io.mqtt.tls import tls_refusal

        settings = self._settings
        try:
            context = None if settings.tls is None else settings.tls()
        except SettingsError:
            return ""
        return "" if context is None else tls_refusal((settings.host, settings.port), context, REFUSAL_S)

    def _await_network(self, connection: BrokerSession, timeout_s: float) -> bool:
        """Wait until there is something to read or write, or somebody rings; return whether there is something to
        read."""
        stream = connection.socket
        pending = getattr(stream, "pending", None)
        held = pending is not None and pending() > 0  # TLS has more than the socket shows
        poller = select.poll()
        poller.register(stream, select.POLLIN | (select.POLLOUT if connection.wants_write else 0))
        ready = self._poll(poller, 0 if held else timeout_s)
        return held or bool(ready.get(stream.fileno(), 0) & ~select.POLLOUT)

    def _send_waiting(self, connection: BrokerSession) -> None:
        """Send what was handed over, in order, as far as the broker's window goes."""
        while self._outgoing and connection.stage == "ready":
            if self._outgoing[0].qos and not connection.room:
                return
            connection.send(self._outgoing.popleft(), time.monotonic())
            self._sent = True

    def _rest(self, stopped: Callable[[], bool], work: Callable[[], float], seconds: float) -> None:
        """Wait between two connections; work goes on, and whoever wants a new connection ends the wait."""
        until = time.monotonic() + seconds
        while not self._leaving(stopped) and not self._anew and (left := until - time.monotonic()) > 0:
            self._poll(select.poll(), min(left, STEP_S, work()))

    def _poll(self, poller: select.poll, timeout_s: float) -> dict[int, int]:
        """Wait for `poller`, at most `timeout_s` seconds, or until somebody rings; return what is ready."""
        self._turn = time.monotonic()
        bell = self._bell
        if bell is not None:
            poller.register(bell, select.POLLIN)
        ready = dict(poller.poll(math.ceil(1000 * max(0.0, timeout_s))))
        if bell is not None and ready.pop(bell, 0):
            with suppress(BlockingIOError):
                os.eventfd_read(bell)
        return ready

    def _leaving(self, stopped: Callable[[], bool]) -> bool:
        return self._leave or stopped()

    def _forget(self) -> None:
        with self._lock:
            self._ready.clear()
            self._connection = None
            self._outgoing.clear()

    def _tell_event(self, event: LinkEvent) -> None:
        if isinstance(event, Connected):
            self._greeted = True
            self._ready.set()
        if isinstance(event, MessageReceived):
            self._exchanged = self._exchanged or (self._sent and not event.retained)
            self._tell_owner(event)  # the connection knows what to do with a message that its owner cannot handle
        else:
            self._tell(event)

    def _tell(self, event: LinkEvent) -> None:
        try:
            self._tell_owner(event)
        except Exception:
            _log.exception("%s could not be handled", type(event).__name__)

    def _ring(self) -> None:
        with self._lock:
            if self._bell is not None:
                os.eventfd_write(self._bell, 1)


def _no_work() -> float:
    return STEP_S

"""The supervisor's eye on the device's identity: notices a new one, has it renewed in time, says how it stands.

A certificate gives a voice on the broker and nothing else, so that none of this ever touches what is served. Renewing
is done by `edge_agent.enrollment`, a process of its own; `edgewright agent enroll` may put in a new identity at any
time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from edge_agent.backoff import doubling
from edge_agent.config.agent_toml import BrokerConfig
from edge_agent.device_event import Detail, DeviceEvent
from edge_agent.identity.files import IdentityFolder
from edge_agent.identity.validity import (
    ENROL_HINT,
    PAUSE,
    RETRY_BASE_S,
    RETRY_CAP_S,
    Enrolled,
    IdentityStatus,
    believed_time,
    standing,
)
from edge_agent.ipc.renewal import RenewalOutcome, RenewalPlan
from edge_agent.storage.durable import StateError
from edge_agent.storage.time_floor import read_floor
from edge_agent.supervisor.child_process import start_child

LOOK_S = 2.0
"""How often the record on the disk is read, in seconds."""


_log = logging.getLogger(__name__)
_random = random.SystemRandom()


class IdentityMonitor:
    """Made and used on the supervisor's event loop. `floor` is the file with the newest time ever verified; `changed`
    is called when another identity is in use."""

    def __init__(
        self, broker: BrokerConfig | None, floor: Path, tell: Callable[[DeviceEvent], None], changed: Callable[[], None]
    ) -> None:
        enrolls = broker is not None and broker.tls and broker.certificate_file is None and broker.identity is not None
        self._broker = broker if enrolls else None
        self._floor = floor
        self._tell = tell
        self._changed = changed
        self._chance = _random.random()
        self._current = self._read()
        self._advice = ""
        self._expired = False
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self._look_after = 0.0
        self._renew_after = 0.0
        self._failures = 0

    def tick(self, connected: bool) -> None:
        """Look whether there is another identity, and renew what is due. To be called about once a second."""
        now = asyncio.get_running_loop().time()
        if self._broker is None or now < self._look_after:
            return
        self._look_after = now + LOOK_S
        found = self._read()
        if found is not None and found != self._current:
            self._take(found)
        how = standing(self._current, self._time(), self._chance)
        if how == "expired" and not self._expired:
            self._expired = True
            text = f"this device's certificate has expired; {ENROL_HINT}"
            self._tell(DeviceEvent(event="identity-expired", severity="warning", text=text))
        may_renew = connected and self._task is None and now >= self._renew_after
        if self._current is not None and how == "due" and may_renew:
            pause_s = (self._current.end - self._current.begin) * PAUSE
            self._task = asyncio.create_task(self._renew(self._broker, pause_s))

    def status(self) -> IdentityStatus | None:
        """Return how the identity stands; None where the device is known by other means."""
        current = self._current
        if self._broker is None or (current is None and self._broker.username is not None):
            return None
        if current is None:
            return IdentityStatus(standing="none", advice=f"not enrolled: {ENROL_HINT}")
        how = standing(current, self._time())
        return IdentityStatus(
            standing=how,
            device=current.device,
            serial=current.serial,
            expires=_utc(current.end),
            advice=f"expired: {ENROL_HINT}" if how == "expired" else self._advice,
        )

    async def stop(self) -> None:
        """End a renewal; the next one gets the same certificate."""
        self._stopped = True
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        if self._task is not None:
            await self._task

    def _take(self, found: Enrolled) -> None:
        self._current, self._advice, self._expired, self._failures = found, "", False, 0
        text = f"{found.device} has a certificate valid until {_utc(found.end)}"
        self._tell(DeviceEvent(event="identity-changed", text=text, detail={"serial": found.serial}))
        self._changed()

    async def _renew(self, broker: BrokerConfig, pause_s: float) -> None:
        outcome = await self._run(RenewalPlan(identity=broker.identity or "", broker=broker))
        self._task = self._process = None
        if self._stopped:
            return
        now = asyncio.get_running_loop().time()
        if outcome.renewed:
            self._look_after, self._renew_after = 0.0, now + pause_s
            return
        delay = doubling(self._failures, base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S) * (0.5 + _random.random())
        self._renew_after = now + delay
        self._failures += 1
        advice = f"certificate not renewed: {outcome.text}" + (f"; {outcome.hint}" if outcome.hint else "")
        if advice != self._advice:
            self._advice = advice
            detail: Detail = {"reason": outcome.reason}
            self._tell(DeviceEvent(event="identity-not-renewed", severity="warning", text=advice, detail=detail))

    async def _run(self, plan: RenewalPlan) -> RenewalOutcome:
        try:
            # Its standard input is a pipe that nobody writes to: it ends when this process does.
            self._process = process = await start_child(
                "-m",
                "edge_agent.enrollment",
                msgspec.json.encode(plan).decode(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            assert process.stdout is not None
            line = await process.stdout.readline()
            await process.wait()
            return msgspec.json.decode(line, type=RenewalOutcome)
        except (OSError, msgspec.MsgspecError) as error:
            return RenewalOutcome(renewed=False, reason="process", text=f"the renewal process failed: {error}")

    def _read(self) -> Enrolled | None:
        if self._broker is None or self._broker.identity is None:
            return None
        try:
            return IdentityFolder(Path(self._broker.identity)).current()
        except StateError as error:
            _log.error("%s", error)
            return None

    def _time(self) -> float:
        return believed_time(time.time(), read_floor(self._floor), self._current)


def _utc(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

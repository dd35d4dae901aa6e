"""When the updater runs and what its words mean for the slots. One updater at a time, for all slots.

It runs at start, when the broker connects or hints at something new, on a timer with jitter, and for imports. What it
says becomes events of the slots' update tables; the process itself is `edge_agent.updater`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec
from msgspec import Struct, field

from edge_agent.backoff import doubling
from edge_agent.config.agent_toml import AgentConfig
from edge_agent.device_event import Detail, DeviceEvent
from edge_agent.ipc.updater import (
    GOVERNOR,
    CarrierFailed,
    Checking,
    Damaged,
    DeltaUnused,
    DeltaUsed,
    Fetching,
    FromUpdater,
    Hold,
    Offer,
    Repaired,
    SlotPlan,
    Stored,
    Trouble,
    Trusted,
    UpdatePlan,
    Withdraw,
    parse_from_updater,
)
from edge_agent.run_clock import RunClock
from edge_agent.storage.state_dir import StateFolder
from edge_agent.supervisor.event_log import EventLog
from edge_agent.supervisor.process_output import start_heard
from edge_agent.supervisor.repair_policy import RepairPolicy
from edge_agent.supervisor.slots.slot import Slot
from edge_agent.supervisor.staged_imports import read_imports
from edge_agent.update.events import Began, Downloaded, Fits, Held, Interrupted, UpdateFailed, Wished, Withdrawn
from edge_agent.update.state_machine import FETCHING, SETTLED

RETRY_BASE_S = 5.0
"""First wait after trouble on the way, in seconds; doubled up to the poll interval."""

HINT_BASE_S = 5.0
"""What a hint leaves a running updater, in seconds, and the wait after a false hint; doubled for each up to the poll
interval, because anybody who may publish can hint."""

SHORTAGES = frozenset({"disk", "disk-full", "memory", "state"})
"""What the device lacks today and may have tomorrow: the candidate waits for it, and is looked at again each time."""

ABSENT = frozenset({"unreachable", "retry-after"})
"""Reasons of a carrier that brought nothing."""

_log = logging.getLogger(__name__)
_random = random.SystemRandom()


def _outcome() -> asyncio.Future[list[Trouble]]:
    return asyncio.get_running_loop().create_future()


class Errand(Struct, frozen=True, kw_only=True):
    """What one run of the updater is for, and what went wrong with it: an import from `folder`, or a look at every
    byte of the installed releases, or neither."""

    folder: str | None = None
    verify: bool = False
    outcome: asyncio.Future[list[Trouble]] = field(default_factory=_outcome)


class UpdateController:
    """Runs updaters. All methods run on the supervisor's event loop."""

    def __init__(self, config: AgentConfig, state: StateFolder, slots: Mapping[str, Slot], journal: EventLog) -> None:
        self.trusted: dict[str, int] = {}
        self.facts: dict[str, str] = {}
        self.may_install = True
        self.connected = False
        self._config = config
        self._state = state
        self._slots = _updated(slots)
        self._journal = journal
        self._tell = journal.tell
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._due = 0.0
        self._run_clock = RunClock(0.0)
        self._deadline = 0.0
        self._again = False
        self._failures = 0
        self._hint: int | None = None
        self._hints_after = 0.0
        self._false_hints = 0
        self._announced = 0
        self._failed: dict[str, str] = {}
        self._failing: dict[str, str] = {}
        self._importing = False
        self._refusals: dict[str | None, Trouble] = {}
        self.storage_trouble = ""
        self._held: dict[str, str] = {}
        self._holding = False
        self._waiting: list[str] = []
        self._level = ""
        self._errands: list[Errand] = []
        self._damage = RepairPolicy()
        self._troubles: list[Trouble] = []

    @property
    def running(self) -> bool:
        return self._task is not None

    @property
    def pid(self) -> int | None:
        """The updater's process, while there is one."""
        return None if self._process is None else self._process.pid

    def configure(self, config: AgentConfig, slots: Mapping[str, Slot]) -> None:
        """Go by this configuration and for these slots from now on, and look anew; an import goes on."""
        self._config = config
        self._slots = _updated(slots)
        if not self._importing:
            self.look()

    def allow(self, may_install: bool, level: str = "") -> None:
        """Install or only look from now on; `level` says in words why not.

        Where that changes, an updater that runs is superseded: its download pauses, and what had to wait goes on at
        once, an import that found something to wait for among it. An import that runs goes on."""
        changed, self.may_install, self._level = may_install != self.may_install, may_install, level
        if may_install and self._waiting:
            self._errands += [Errand(folder=folder) for folder in self._waiting]
            self._waiting.clear()
        if changed and not self._importing:
            self.look()

    def look(self) -> None:
        """Look soon; something may be new. An updater that runs is superseded: what it is after may be old."""
        if self._task is not None:
            self._again = True
            self._kill()
        self._failures = 0
        self._due = 0.0
        self.tick()

    def hinted(self, timestamp_version: int) -> None:
        """Somebody says that there is this timestamp version: look, the later the more such hints were false."""
        self._hint = timestamp_version
        self.tick()

    def bring(self, folder: str) -> asyncio.Future[list[Trouble]]:
        """Look into an exported repository next; the result is what went wrong there."""
        return self._ask(Errand(folder=folder))

    def repair(self) -> asyncio.Future[list[Trouble]]:
        """Look at every byte of the installed releases next, and have what is wrong fetched again; the result is what
        went wrong with that."""
        return self._ask(Errand(verify=True))

    def _ask(self, errand: Errand) -> asyncio.Future[list[Trouble]]:
        self._errands.append(errand)
        self.tick()
        return errand.outcome

    def bring_staged(self) -> None:
        """Do the imports that were asked for while no agent ran, and tell what came of each. They are forgotten only
        once they are done, so that a power cut meanwhile does not lose them."""
        staged = []
        for folder in read_imports(self._state.imports):
            staged.append(outcome := self.bring(folder))
            outcome.add_done_callback(partial(self._tell_import, folder))
        if staged:
            asyncio.gather(*staged).add_done_callback(lambda _: self._forget_staged())

    def _forget_staged(self) -> None:
        with contextlib.suppress(OSError):
            self._state.imports.unlink(missing_ok=True)

    def _tell_import(self, folder: str, outcome: asyncio.Future[list[Trouble]]) -> None:
        if not outcome.cancelled():
            self._tell(import_event(folder, outcome.result()))

    def tick(self) -> None:
        """Start an updater that is due, end one that is over its time. To be called about once a second."""
        now = asyncio.get_running_loop().time()
        self._run_clock.tick(now)
        if self._hint is not None and not self._importing and now >= self._hints_after:
            self._follow_hint(now)
        if self._task is not None:
            if self._run_clock.now > self._deadline and self._run_clock.judging:
                _log.warning("the updater timed out")
                self._kill()
            return
        if self._nobody_to_update() or self._storage_refuses():
            return
        damaged = {sha256 for slot in self._slots.values() for sha256 in slot.damaged}
        self._due = min(self._due, self._damage.look(damaged, now))
        if self._errands:
            self._launch(self._errands.pop(0))
        elif now >= self._due and self._reachable():
            self._launch(Errand())

    def _nobody_to_update(self) -> bool:
        """Return whether no slot takes updates; whoever asked for an errand is told. There is nothing to repair."""
        if self._slots:
            return False
        text = "no slot takes updates: name a `channel` in agent.toml"
        none = Trouble(fault="operator", reason="no-channel", text=text)
        self._end_errands(lambda errand: [] if errand.verify else [none])
        return True

    def _end_errands(self, troubles: Callable[[Errand], list[Trouble]]) -> None:
        """Answer whoever waits for an errand that no updater will be started for."""
        for errand in self._errands:
            if not errand.outcome.done():
                errand.outcome.set_result(troubles(errand))
        self._errands.clear()

    def _storage_refuses(self) -> bool:
        """Return whether the disk takes nothing, so that no updater can work; whoever asked for an errand is told."""
        if not self.storage_trouble:
            return False
        self._end_errands(lambda _: [Trouble(fault="device", reason="state", text=self.storage_trouble)])
        return True

    def _follow_hint(self, now: float) -> None:
        hint, self._hint = self._hint, None
        if hint == self.trusted.get("timestamp"):
            return
        wait = doubling(self._false_hints, base_s=HINT_BASE_S, cap_s=self._config.updates.poll_s)
        self._hints_after = now + wait
        self._false_hints += 1
        self._announced = hint or 0
        self.look()

    async def stop(self) -> None:
        """End a running updater; it goes on next time from the chunks it has."""
        if self._task is not None:
            self._kill()
            await self._task

    def _reachable(self) -> bool:
        """Return whether an updater would find somebody; without a connection of ours it would only wait for one."""
        return self._config.updates.http is not None or (self._config.broker is not None and self.connected)

    def _launch(self, errand: Errand) -> None:
        now = asyncio.get_running_loop().time()
        self._deadline = self._run_clock.now + self._config.updates.deadline_s
        self._hints_after = max(self._hints_after, now + HINT_BASE_S)
        self._importing = errand.folder is not None or errand.verify
        self._again = False
        self._task = asyncio.create_task(self._run(errand))

    async def _run(self, errand: Errand) -> None:
        self._troubles, self._failing, self._holding = [], {}, False
        try:
            await self._follow(self._plan(errand))
        except OSError as error:
            self._troubles.append(Trouble(fault="device", reason="process", text=str(error)))
        for slot in self._slots.values():
            if slot.record.state in ("preflight", "downloading"):
                slot.apply(Interrupted(reason="updater-died"))
        self._task = self._process = None
        if self._holding and errand.folder is not None and errand.folder not in self._waiting:
            self._waiting.append(errand.folder)  # nobody but the stick has it: it is brought again once it may be
        if not self._again:
            self._failed, self._announced = self._failing, 0
        self._importing = False
        if not errand.outcome.done():
            errand.outcome.set_result(self._troubles)
        self._schedule()

    def _schedule(self) -> None:
        """Set when to look again: soon and backing off after trouble on the way, else after the poll interval."""
        poll = self._config.updates.poll_s
        delay = poll * (0.9 + 0.2 * _random.random())
        if any(trouble.fault in ("transport", "trust") for trouble in self._troubles):
            delay = min(delay, doubling(self._failures, base_s=RETRY_BASE_S, cap_s=poll) * (0.5 + _random.random()))
            self._failures += 1
        else:
            self._failures = 0
        now = asyncio.get_running_loop().time()
        damaged = any(slot.damaged for slot in self._slots.values())
        self._due = 0.0 if self._again else min(now + delay, self._damage.tried(now, damaged=damaged))

    def _plan(self, errand: Errand) -> UpdatePlan:
        config = self._config
        assert config.trust is not None
        slots = tuple(
            SlotPlan(
                slot=name,
                channel=slot.config.channel or "",
                running=tuple(sorted(slot.record.running)),
                ready=tuple(sorted(slot.record.ready)),
                rejected=slot.record.rejected,
                serial=slot.record.serial,
                refused_under=slot.record.refused_under,
                retried=slot.record.retried,
                reason=slot.record.reason if slot.record.state in SETTLED else None,
                since=slot.record.since,
                installed=slot.installed,
                damaged=tuple(sorted(slot.damaged)),
                factory=slot.config.factory,
            )
            for name, slot in self._slots.items()
        )
        return UpdatePlan(
            state=str(self._state.root),
            root=config.trust.root,
            device=config.device.id,
            tenant=config.device.tenant,
            tags=config.device.tags,
            profile=config.device.profile,
            slots=slots,
            broker=config.broker,
            http=config.updates.http,
            directory=errand.folder,
            verify=errand.verify,
            announced=self._announced,
            timeout_s=config.updates.timeout_s,
            may_install=self.may_install,
        )

    async def _follow(self, plan: UpdatePlan) -> None:
        # Its standard input is a pipe that nobody writes to: it ends when this process does, and the updater with it.
        words, pipe = ("-m", "edge_agent.updater", msgspec.json.encode(plan).decode()), asyncio.subprocess.PIPE
        self._process, log = await start_heard(self._said, *words, stdin=pipe, stdout=pipe)
        try:
            await self._listen(self._process)
        finally:
            log.end()

    def _said(self, line: str) -> None:
        """Keep a line of the updater's log for every slot: it works for all of them."""
        for slot in self._slots.values():
            slot.log.add("updater", line)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            try:
                message = parse_from_updater(line)
            except msgspec.MsgspecError:
                _log.error("ignored a malformed message from the updater: %r", line[:200])
                continue
            if not self._again:
                self._hear(message)
        if await process.wait() != 0 and not self._again:
            self._troubles.append(Trouble(fault="transport", reason="updater-died", text=f"exit {process.returncode}"))

    def _kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def _hear(self, message: FromUpdater) -> None:
        if isinstance(message, Trusted):
            if message.versions.get("timestamp") != self.trusted.get("timestamp"):
                self._false_hints, self._hints_after = 0, 0.0
            self.trusted, self.facts = dict(message.versions), dict(message.facts)
            self._refusals.pop(None, None)
            self._journal.trusted()
            return
        if isinstance(message, Trouble):
            self._trouble(message)
            return
        if isinstance(message, CarrierFailed):
            self._carrier_failed(message)
            return
        slot = self._slots.get(message.slot)
        if slot is None:
            return  # it is gone since the updater was started
        state = slot.record.state
        if isinstance(message, Offer):
            self._refusals.pop(message.slot, None)
            self._held.pop(message.slot, None)
            slot.apply(Wished(candidate=message.candidate, retry=message.retry))
        elif isinstance(message, Hold):
            slot.apply(Held(reason=message.reason))
            self._hold(message)
        elif isinstance(message, Withdraw):
            slot.apply(Withdrawn(manifest_sha256=message.manifest_sha256, reason=message.reason))
        elif isinstance(message, Checking) and state == "offered":
            slot.apply(Began(facts=message.facts))
        elif isinstance(message, Fetching) and state in ("preflight", "downloading"):
            if state == "preflight":
                slot.apply(Fits())
            slot.progress = 1.0 if message.total == 0 else min(1.0, message.done / message.total)
        elif isinstance(message, Stored) and state == "downloading":
            slot.apply(Downloaded(saved=message.saved))
        elif isinstance(message, Damaged):
            slot.damage(message.manifest_sha256, message.text)
        elif isinstance(message, Repaired):
            slot.repaired(message.manifest_sha256, message.fetched)
        elif isinstance(message, DeltaUsed | DeltaUnused):
            self._tell(delta_event(message))

    def _hold(self, message: Hold) -> None:
        """Tell once of each version that waits for level NORMAL."""
        if message.reason != GOVERNOR:
            return
        self._holding = True
        if self._held.get(message.slot) == message.version:
            return
        self._held[message.slot] = message.version
        text = f"{message.version or 'the offered release'} waits until the device is at level NORMAL: {self._level}"
        detail: Detail = {"reason": GOVERNOR, "version": message.version}
        news = DeviceEvent(event="update-held", severity="warning", slot=message.slot, text=text, detail=detail)
        self._tell(news)

    def _carrier_failed(self, news: CarrierFailed) -> None:
        """Tell once of a carrier that answers with something wrong, until it has done well for a whole run. One that
        does not answer is in the log only: devices lose their way out every day."""
        _log.info("updater: %s: %s: %s", news.carrier, news.reason, news.text)
        known = self._failing.get(news.carrier, self._failed.get(news.carrier))
        self._failing[news.carrier] = news.reason
        if news.reason not in ABSENT and news.reason != known:
            self._tell(carrier_event(news))

    def _trouble(self, trouble: Trouble) -> None:
        """Tell of it once, and let it count against the candidate if it is the candidate's or the device's fault.

        What is wrong on the way, wrong signatures included, only interrupts: otherwise whoever sits on the wire could
        make a device reject a good release. So do shortages that pass.
        """
        self._troubles.append(trouble)
        final = trouble.fault not in ("transport", "trust") and trouble.reason not in SHORTAGES
        if trouble.fault != "transport" and self._refusals.get(trouble.slot) != trouble:
            self._refusals[trouble.slot] = trouble
            self._tell(trouble_event(trouble))
        _log.info("updater: %s: %s", trouble.reason, trouble.text)
        slot = None if trouble.slot is None else self._slots.get(trouble.slot)
        for concerned in self._slots.values() if trouble.slot is None else filter(None, (slot,)):
            concerned.log.note("updater", f"{trouble.reason}: {trouble.text}")
        if slot is not None and slot.record.state in FETCHING and slot.record.state != "offered":
            slot.apply(UpdateFailed(reason=trouble.reason) if final else Interrupted(reason=trouble.reason))


def _updated(slots: Mapping[str, Slot]) -> dict[str, Slot]:
    return {name: slot for name, slot in slots.items() if slot.config.channel is not None}


def trouble_event(trouble: Trouble) -> DeviceEvent:
    """Return what is told of an updater's trouble."""
    detail: Detail = {"reason": trouble.reason, "fault": trouble.fault}
    return DeviceEvent(event="update-refused", severity="warning", slot=trouble.slot, text=trouble.text, detail=detail)


def import_event(folder: str, troubles: Sequence[Trouble]) -> DeviceEvent:
    """Return what is told of an import that was asked for while no agent ran."""
    if not troubles:
        return DeviceEvent(event="import-done", text=f"{folder} was imported", detail={"reason": folder})
    text = "; ".join(f"{trouble.slot or '*'}: {trouble.reason}: {trouble.text}" for trouble in troubles)
    text = f"{folder}: {text}"[:2000]
    return DeviceEvent(event="import-failed", severity="warning", text=text, detail={"reason": folder})


def carrier_event(failed: CarrierFailed) -> DeviceEvent:
    """Return what is told of a carrier whose bytes were of no use."""
    detail: Detail = {"reason": failed.reason, "carrier": failed.carrier}
    text = f"{failed.carrier}: {failed.text}"[:2000]
    return DeviceEvent(event="carrier-failed", severity="warning", text=text, detail=detail)


def delta_event(message: DeltaUsed | DeltaUnused) -> DeviceEvent:
    """Return what is told of a delta that was tried."""
    if isinstance(message, DeltaUsed):
        text = f"{message.path} was rebuilt from an older release: {message.spared} bytes of download saved"
        spared: Detail = {"path": message.path, "fetched": message.fetched, "spared": message.spared}
        return DeviceEvent(event="delta-used", slot=message.slot, text=text, detail=spared)
    problem: Detail = {"path": message.path, "reason": message.reason}
    return DeviceEvent(event="delta-unused", severity="warning", slot=message.slot, text=message.text, detail=problem)

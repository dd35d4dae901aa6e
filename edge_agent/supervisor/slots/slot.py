"""One model slot: its record, its listening socket, its worker, and the steps that carry an update on.

What may follow what is the table in `edge_agent.update.state_machine`; here the record is advanced, persisted,
reported, and then acted on: try, swap, roll back, restart. Fetching is the updater's, telemetry and the broker are the
supervisor's.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import msgspec
from msgspec import Struct

from edge_agent.config.agent_toml import SlotConfig
from edge_agent.device_event import Detail, DeviceEvent
from edge_agent.fallback_ladder import ABSTAIN, Rung
from edge_agent.ipc.trial import TrialPlan
from edge_agent.ipc.worker import Fault, Heartbeat, Ready
from edge_agent.run_clock import RunClock
from edge_agent.storage.durable import StateError
from edge_agent.storage.state_dir import StateFolder
from edge_agent.supervisor.slots.ladder_source import ladder_of, open_factory, serving_manifest
from edge_agent.supervisor.slots.listen_socket import ListenSocket
from edge_agent.supervisor.slots.shadow_capture import SlotTaps
from edge_agent.supervisor.slots.stale_input_monitor import StaleInputMonitor
from edge_agent.supervisor.slots.trial_process import TrialVerdict, try_release
from edge_agent.supervisor.slots.worker_lifecycle import InheritedSocket, WorkerLifecycle
from edge_agent.supervisor.slots.worker_process import WorkerDeath, WorkerProcess
from edge_agent.telemetry.drift_monitor import DriftMonitor
from edge_agent.telemetry.log_excerpt import RecentLines
from edge_agent.telemetry.window_totals import WindowTotals
from edge_agent.update.events import (
    Crashed,
    Event,
    Expired,
    Restarted,
    ShadowPassed,
    Shifted,
    TrialBegan,
    TrialPassed,
    TurnOver,
    UpdateFailed,
)
from edge_agent.update.gates import judge
from edge_agent.update.record import CandidateRelease, installed
from edge_agent.update.state_machine import advance
from edge_agent.update.transition_event import transition_event
from edge_agent.update.turn_gate import has_overrun, may_serve, may_try
from edge_contracts.errors import BundleError
from edge_contracts.manifest import Manifest
from edge_contracts.profile import DeviceProfile
from edge_contracts.selection import window_open
from edge_contracts.state import Installed, SlotState

DAMAGED = "damaged"
"""The fault of a slot of which an installed release is not what its manifest pins. It is being fetched again."""

NO_MODEL = "no-model"
"""The fault of a slot whose worker runs and has no model that can answer."""

SHORT_OF = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
TRIAL_AGAIN_S = 10.0
"""Where the box is short of processes, memory or files, a trial is started again after so many seconds."""

NO_ADDRESS = "no-address"
"""The fault of a slot whose address cannot be listened on. It is tried again."""

_log = logging.getLogger(__name__)


class Surroundings(Struct, frozen=True, kw_only=True):
    """What a slot works with. `clock` gives seconds since the epoch by the wall clock; when somebody sets that, the
    slot is told (`Slot.shift`). `clock_known` says whether the hour of the day may be believed, `calm` whether the box
    has room for a trial."""

    state: StateFolder
    profile: DeviceProfile
    clock: Callable[[], float]
    tell: Callable[[DeviceEvent], None]
    calm: Callable[[], bool]
    clock_known: Callable[[], bool] = lambda: True


class Slot:
    """The supervisor's side of one slot. All methods run on the supervisor's event loop."""

    def __init__(self, config: SlotConfig, around: Surroundings) -> None:
        self.config = config
        self.window = WindowTotals()
        self.totals = WindowTotals()
        self.progress: float | None = None
        self.drift = DriftMonitor(config.name, around.tell)
        self.input = StaleInputMonitor(config.name, config.stale_after_s, time.monotonic, around.tell)
        self.log = RecentLines(lambda: datetime.fromtimestamp(around.clock(), UTC).strftime("%H:%M:%S"))
        self._around = around
        self.record = self._saved = around.state.read_record(config.name)
        self._unsaved = False
        self._factory = open_factory(config)
        self._soak = WindowTotals()
        self._run = RunClock(0.0)
        self._soaks_since: float | None = None
        self._trial: asyncio.Task[None] | None = None
        self._damaged: set[str] = set()
        self.address = ListenSocket(config)
        self.address.bind()
        self._waiting: asyncio.Task[None] | None = None
        self.taps = SlotTaps(config, around.profile, around.clock, around.tell)
        inherited = InheritedSocket(listener=self.address.socket, mirror=self.taps.shadowing.mirror)
        self.serving = WorkerLifecycle(inherited, config, around.profile, self, str(around.state.cache))

    @property
    def http(self) -> str:
        """HOST:PORT where the slot answers, with the port the system gave."""
        return self.address.http

    @property
    def model(self) -> str | None:
        """Name of the model the slot is for, once a release or a factory bundle has told it."""
        if self.record.candidate is not None:
            return self.record.candidate.model
        return None if self._factory is None else self._factory.manifest.name

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of what serves, where it can be read."""
        return serving_manifest(self.record, self._factory, self._around.state)

    @property
    def installed(self) -> tuple[Installed, ...]:
        """The releases whose bytes have to be here: the one that serves and the one to go back to."""
        both = (self.record.serving, self.record.last_good)
        return tuple(dict.fromkeys(release for release in both if release is not None))

    @property
    def damaged(self) -> frozenset[str]:
        """The manifests of those of them that are not what they should be."""
        return frozenset(self._damaged & {release.manifest_sha256 for release in self.installed})

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong with what is installed here, and with what is asked."""
        abstains = self.serving.served_by == ABSTAIN
        found = {DAMAGED: bool(self.damaged), NO_MODEL: abstains, NO_ADDRESS: bool(self.address.trouble)}
        return (*(fault for fault, here in found.items() if here), *self.input.faults)

    @property
    def factory(self) -> Installed | None:
        return None if self._factory is None else self._factory.release

    def start(self, *, clean: bool, power_cut: bool = False) -> None:
        """Go on from the persisted record; `clean` if the agent had been stopped in order, `power_cut` if the kernel
        has started anew since."""
        if not (clean or self.record.committed):
            what = "the device was restarted" if power_cut else "the agent ended without a stop"
            self._news("unclean-start", "warning", text=f"{what} during the soak, which begins anew")
        self.apply(Restarted(clean=clean, power_cut=power_cut))
        self._serve()
        if not self.address.bound:
            self._waiting = asyncio.create_task(self._await_address())

    def _serve(self, *, urgent: bool = False) -> None:
        """Serve what the record says, once there is an address."""
        if self.address.bound:
            self.serving.serve(self._ladder(), urgent=urgent)

    async def _await_address(self) -> None:
        """Serve once the address can be had; until then nothing that lacks requests is held against a release."""
        if await self.address.wait(lambda text: self._news("address-unavailable", "error", text=text)):
            self._news("address-available", text=f"listens on {self.http}")
        if self.record.state == "active":
            self.apply(Restarted(clean=True))
        self._serve()

    def apply(self, event: Event) -> None:
        """Advance the record, persist it, tell of the transition, and act on it. Raises TransitionError."""
        before, now = self.record, self._around.clock()
        after = advance(before, event, now)
        if after is before or after == before:
            return
        self.record = after
        if after.candidate is not None and (before.candidate is None or _other(before.candidate, after.candidate)):
            self.log.forget()
        self._save()
        if (news := transition_event(before, after)) is not None:
            if after.state in ("rejected", "rolled_back"):
                news = msgspec.structs.replace(news, log=self.log.excerpt())
            self._around.tell(news)
        if after.state not in ("preflight", "downloading"):
            self.progress = None
        if after.serving != before.serving:
            self._soak.clear()
            self._soaks_since = None
            self._serve(urgent=after.state != "active")
        self._drive()

    def shift(self, *, stepped_s: float, lost_s: float) -> None:
        """Follow a wall clock that somebody set by `stepped_s`, and let `lost_s` in which this process did not run
        count against no deadline. To be told before the next tick."""
        if self.record.since or self.record.deadline is not None:
            self.apply(Shifted(stepped_s=stepped_s, lost_s=lost_s))

    def tick(self) -> None:
        """Look at deadlines, gates and the worker. To be called about once a second."""
        self._run.tick(asyncio.get_running_loop().time())
        if self._unsaved:
            self._save()
        if self.record.deadline is not None and (self.address.bound or self.record.state != "active"):
            self.apply(Expired())
        if self._soaks_since is not None:
            served_s = self._run.now - self._soaks_since
            if verdict := judge(self.record, self._soak.requests, self._soak.failures, served_s):
                self.apply(verdict)
        if has_overrun(self.record, self._around.clock()):
            self.apply(TurnOver())
        self.serving.tick()
        self.input.look(self.totals.counters)
        self._drive()
        self._look_aside()

    def unload_if_idle(self, readings: Detail) -> None:
        """Give up the worker of a slot that nobody has asked for as long as is configured, and tell by which readings.
        A release that soaks is not left alone with that. To be called while memory is short."""
        limit_s, idle_s = self.config.idle_unload_s, self.serving.idle_s
        if limit_s is None or idle_s < limit_s or self.record.state == "active":
            return
        self.serving.unload()
        text = f"no request for {idle_s:.0f} s, and memory is low: unloaded; the next request starts a worker"
        self._news("slot-unloaded", text=text, detail=readings | {"idle_s": idle_s})

    def damage(self, manifest_sha256: str, text: str) -> None:
        """Note, and tell once, that an installed release is not what its manifest pins."""
        if manifest_sha256 not in self._damaged and manifest_sha256 in self.record.manifests:
            self._damaged.add(manifest_sha256)
            self._news("release-damaged", "error", text=text, detail={"manifest_sha256": manifest_sha256})

    def repaired(self, manifest_sha256: str, fetched: int) -> None:
        """Serve from a release again that was damaged, now that every byte is right; `fetched` of them came anew."""
        if manifest_sha256 not in self._damaged:
            return
        self._damaged.discard(manifest_sha256)
        text = f"every byte is what the manifest pins again; {fetched} bytes were fetched"
        detail: Detail = {"manifest_sha256": manifest_sha256, "fetched": fetched}
        self._news("release-repaired", text=text, detail=detail)
        self._serve(urgent=True)
        self.serving.renew()

    async def stop(self) -> None:
        """Drain the worker and give the socket back."""
        for task in (self._trial, self._waiting):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self.serving.stop()
        await self.taps.shadowing.stop()
        self.address.close()

    def keeps(self) -> frozenset[str]:
        """Return the manifests that garbage collection must leave alone: also what the record on disk still names when
        a full disk did not take the newer one, for a power cut would go back to it."""
        return self.record.manifests | self._saved.manifests | self.serving.manifests

    def reported(self) -> SlotState:
        """Return the slot as the reported state shows it."""
        record = self.record
        since = datetime.fromtimestamp(record.since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if record.since else None
        candidate = record.candidate
        return SlotState(
            slot=record.slot,
            channel=self.config.channel,
            model=self.model,
            state=record.state,
            reason=record.reason,
            since=since,
            serving=record.serving or self.factory,
            variant=self.serving.variant,
            served_by=self.serving.served_by,
            last_good=record.last_good,
            factory=self.factory,
            candidate=installed(candidate) if candidate else None,
            rollout=candidate.rollout if candidate else None,
            progress=self.progress,
            saved=record.saved,
            shadow=self.taps.shadowing.reported,
        )

    # What the worker side tells (serving.Owner)

    def ready(self, worker: WorkerProcess, ready: Ready) -> None:
        self._news("worker-ready", text=ready.served_by, detail={"pid": ready.pid, "load_ms": ready.load_ms})
        if not self._uncommitted(worker.first):
            return
        served = next((rung for rung in worker.plan.ladder if rung.served_by == ready.served_by), worker.first)
        if self._uncommitted(served):
            self._soaks_since = self._run.now
        else:
            self.apply(Crashed(reason="load"))

    def heartbeat(self, worker: WorkerProcess, heartbeat: Heartbeat) -> None:
        self.window.add(worker.heartbeat, heartbeat)
        self.totals.add(worker.heartbeat, heartbeat)
        if self._uncommitted(worker.first):
            self._soak.add(worker.heartbeat, heartbeat)

    def fault(self, worker: WorkerProcess, fault: Fault) -> None:
        if fault.reason == BundleError.reason:
            for rung in worker.plan.ladder:
                if rung.served_by == fault.served_by and rung.role != "factory":
                    self.damage(rung.manifest_sha256, f"{fault.served_by}: {fault.text}")
        self.log.note("worker", f"{fault.served_by}: {fault.reason}")
        text = f"{fault.served_by}: {fault.text}"
        event = "capture-failed" if fault.reason == "capture" else "rung-failed"
        self._news(event, "warning", text=text, detail={"reason": fault.reason, "fatal": fault.fatal})

    def died(self, worker: WorkerProcess, death: WorkerDeath) -> None:
        expected = worker.draining and (death.drained or death.reason == "superseded")
        for tally in (self.window, self.totals):
            tally.count("lost", death.lost)
            tally.count("deaths", 0 if expected else 1)
        if expected:
            return
        detail: Detail = {
            "pid": death.pid,
            "code": death.code,
            "reason": death.reason,
            "lost": death.lost,
            "connections": death.connections,
            "version": worker.first.version,
            "request_bytes": death.request_bytes,
        }
        text = f"worker {death.pid} of {worker.first.served_by} ended: {death.reason}, {death.lost} requests lost"
        if death.oversized:
            text += f"; it ran a request of {death.request_bytes} bytes, larger than any before: such are refused now"
        self.log.note("worker", text)
        self._news("worker-died", "error", text=text, detail=detail)
        if self._uncommitted(worker.first) and not worker.draining and not death.oversized:
            self._soak.count("lost", death.lost)
            self.apply(Crashed(reason=death.reason))

    def said(self, line: str) -> None:
        self.log.add("worker", line)

    def demoted(self, rung: Rung) -> None:
        self._news(
            "release-quarantined",
            "error",
            text=f"{rung.served_by} is crash-looping; falling back to the next rung for 10 minutes",
        )

    def _ladder(self) -> tuple[Rung, ...]:
        state = self._around.state
        return ladder_of(
            self.record, self._factory, state, lambda release, error: self.damage(release.manifest_sha256, str(error))
        )

    def _uncommitted(self, rung: Rung) -> bool:
        serving = self.record.serving
        return not self.record.committed and serving is not None and rung.manifest_sha256 == serving.manifest_sha256

    def _drive(self) -> None:
        """Take the next step the record's state asks for."""
        record = self.record
        if self._trial is not None and record.state != "trial":
            self._trial.cancel()
            self._trial = None
        if record.state == "verified" and self._trial is None and self._may_try() and self._around.calm():
            self.apply(TrialBegan())
        elif record.state == "trial" and self._trial is None and record.candidate is not None:
            self._trial = asyncio.create_task(self._try(record.candidate.manifest_sha256))
        elif record.state == "shadow" and self._may_go_live():
            self.apply(ShadowPassed())

    def _look_aside(self) -> None:
        """Have a candidate in shadow answer what is answered, captures taken, and both stop in time."""
        captured = self.totals.counters.get("captured_bytes", 0)
        around = self._around
        self.serving.set_tap(self.taps.tick(self.record, self.config, self._factory, around.state, captured))
        if (verdict := self.taps.judge(self.record)) is not None:
            self.apply(verdict)

    def _may_try(self) -> bool:
        candidate, around = self.record.candidate, self._around
        allowed = candidate is not None and may_try(candidate, around.clock(), clock_known=around.clock_known())
        return allowed and self._window_open()

    def _may_go_live(self) -> bool:
        candidate, around = self.record.candidate, self._around
        if candidate is None or candidate.mode != "live" or not self._window_open():
            return False
        return may_serve(candidate, around.clock(), clock_known=around.clock_known())

    def _window_open(self) -> bool:
        """Whether the candidate may be installed at this hour. A device that cannot know the hour waits."""
        candidate = self.record.candidate
        if candidate is None or candidate.window is None:
            return candidate is not None
        clock = datetime.fromtimestamp(self._around.clock(), UTC).strftime("%H:%M")
        return self._around.clock_known() and window_open(candidate.window, clock)

    async def _try(self, manifest_sha256: str) -> None:
        """Try the candidate and advance the record by the verdict."""
        model = self._around.profile.model
        try:
            manifest = self._around.state.read_manifest(manifest_sha256)
            plan = TrialPlan(
                folder=str(self._around.state.release(manifest_sha256)),
                threads=self.config.threads or model.threads,
                latency_ms=model.latency_ms,
                memory_mb=self.config.memory_mb or model.memory_mb,
                load_s=model.load_s,
            )
            verdict = await self._verdict(plan, len(manifest.variants))
        except (OSError, StateError) as error:
            event: Event = UpdateFailed(reason="trial-crash")
            text = str(error)
        else:
            usable, text = verdict.usable, verdict.text
            event = TrialPassed(usable=usable) if usable else UpdateFailed(reason=f"trial-{verdict.reason}")
        candidate = self.record.candidate
        if self.record.state == "trial" and candidate is not None and candidate.manifest_sha256 == manifest_sha256:
            self.log.note("trial", text)
            self._news("trial", "info" if isinstance(event, TrialPassed) else "warning", text=text)
            self._trial = None
            self.apply(event)

    async def _verdict(self, plan: TrialPlan, variants: int) -> TrialVerdict:
        """Return what came of a trial. A box that gives no process, memory or file now says nothing of the release: it
        is asked again, until the state's deadline."""
        while True:
            try:
                return await try_release(plan, variants, partial(self.log.add, "trial"))
            except OSError as error:
                if error.errno not in SHORT_OF:
                    raise
                self.log.note("trial", f"cannot be started now: {error}")
                _log.warning("slot %s: the trial cannot be started now: %s", self.config.name, error)
                await asyncio.sleep(TRIAL_AGAIN_S)

    def _save(self) -> None:
        """Persist the record. When the disk does not take it, answering goes on and saving is tried again."""
        try:
            self._around.state.write_record(self.record)
            self._saved, self._unsaved = self.record, False
        except StateError as error:
            if not self._unsaved:
                _log.error("%s", error)
            self._unsaved = True

    def _news(self, event: str, severity: str = "info", *, text: str = "", detail: Detail | None = None) -> None:
        news = DeviceEvent(event=event, severity=severity, slot=self.config.name, text=text[:2000], detail=detail or {})
        self._around.tell(news)


def _other(one: CandidateRelease, another: CandidateRelease) -> bool:
    return one.manifest_sha256 != another.manifest_sha256

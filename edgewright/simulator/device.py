"""One simulated device: the agent's update table and its words on the broker, without a model behind them.

What may follow what is `edge_agent.update.state_machine`, what a soak's numbers mean `edge_agent.update.gates`; trials,
requests and power are the scenario's. Everything here runs on one thread, in the order of its timers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Protocol

import msgspec

from edge_agent.backoff import doubling
from edge_agent.ipc.updater import (
    Checking,
    Fetching,
    FromUpdater,
    Hold,
    Offer,
    SlotPlan,
    Stored,
    Trouble,
    Trusted,
    Withdraw,
)
from edge_agent.supervisor.update_controller import RETRY_BASE_S, SHORTAGES
from edge_agent.telemetry.collectors import Collectors
from edge_agent.telemetry.uplink import PRESENCE_SPREAD_S, REPORT_S
from edge_agent.update.events import (
    Began,
    Crashed,
    Downloaded,
    Event,
    Expired,
    Fits,
    Held,
    Interrupted,
    Restarted,
    ShadowPassed,
    TrialBegan,
    TrialPassed,
    TurnOver,
    UpdateFailed,
    Wished,
    Withdrawn,
)
from edge_agent.update.gates import judge
from edge_agent.update.record import UpdateRecord, installed
from edge_agent.update.state_machine import FETCHING, SETTLED, advance
from edge_agent.update.turn_gate import has_overrun, may_serve, may_try
from edge_contracts import __version__
from edge_contracts.codec import encode
from edge_contracts.errors import ContractError
from edge_contracts.selection import window_open
from edge_contracts.state import Installed, Presence, ReportedState, SlotState
from edge_contracts.telemetry import TelemetryWindow
from edge_contracts.topics import collector_topic, device_topic, hint_topic
from edge_contracts.transfer import parse_hint
from edgewright.simulator.looking import Looker
from edgewright.simulator.questions import DeviceSurroundings, Questions
from edgewright.simulator.scenario import DeviceFate, FleetScenario

SLOT = "main"
TYPICAL_LOG2_US = 12
"""Answers take 2^12 to 2^13 microseconds, about 6 ms, where nothing is slow."""

TICK_S = 1.0
"""How often a device with something to wait for looks at deadlines and gates, as the supervisor does."""


class SimulationHome(DeviceSurroundings, Protocol):
    """What a device has of the world, and who hears what became of it."""

    def changed(self, device: SimulatedDevice, before: UpdateRecord) -> None: ...

    def cut_power(self, device: SimulatedDevice) -> None: ...


@dataclass(kw_only=True)
class Placing:
    """Where a device is and what is in store for it; `wall` gives the true time in seconds since 1970, `candidate` is
    the manifest of the release that the scenario speaks of."""

    tenant: str
    channel: str
    model: str
    fate: DeviceFate
    scenario: FleetScenario
    candidate: str
    stable: Installed
    wall: Callable[[], float]
    chance: Random


@dataclass(kw_only=True)
class SimulatedDevice:
    """See the module. `connected`, `disconnected` and `heard` are the link's to call."""

    name: str
    place: Placing
    home: SimulationHome
    looker: Looker
    record: UpdateRecord = field(init=False)
    boot: int = 0
    up: bool = False
    powered: bool = True
    windows: int = 0
    _cut_planned: bool = False

    def __post_init__(self) -> None:
        place = self.place
        self.record = UpdateRecord(slot=SLOT, state="committed", serving=place.stable)
        self.looker.complete.add(place.stable.manifest_sha256)
        self.looker.say = self._hear_updater
        self.looker.clock = self.clock
        self.questions = Questions(around=self.home, tenant=place.tenant, device=self.name, done=self._looked)
        self._topics = {name: device_topic(place.tenant, self.name, name) for name in ("presence", "reported", "tele")}
        self._hint = hint_topic(place.tenant)
        self._answer = device_topic(place.tenant, self.name, "collector")
        self.subscriptions: tuple[tuple[str, int], ...] = (
            (self._hint, 1),
            (collector_topic(place.tenant, "+"), 1),
            (self._answer, 1),
        )
        self.subscriptions += ((self._topics["presence"], 1), (self.questions.reply, 0))
        self._boot()

    @property
    def boot_id(self) -> str:
        return f"{self.name}-{self.boot}"

    @property
    def will(self) -> tuple[str, bytes]:
        """Topic and payload of the Last Will."""
        return self._topics["presence"], self._presence(online=False)

    @property
    def bears_candidate(self) -> bool:
        """Whether the release serves, or is on its way."""
        return self.place.candidate in self.record.running

    def clock(self) -> float:
        """Return what the device's own clock says, in seconds since 1970."""
        return self.place.wall() + self.place.fate.clock_off_s

    def _boot(self) -> None:
        """Start from the record alone."""
        self.boot += 1
        self._sequence = self._reports = 0
        self._reported: SlotState | None = None
        self._report_after = 0.0
        self._report_waits = self._ticking = False
        self._collectors = Collectors()
        self._spool: list[bytes] = []
        self._window_began = self.clock()
        self._asked = self._failures_in_row = 0
        self._troubled = False
        self._soaks_since = self.home.now  # what serves is up at once
        self._trial_since: float | None = None
        self._again = False

    def connected(self) -> None:
        """The broker has taken the device, and granted what it listens to."""
        self.up = True
        now = self.home.now
        self._collectors.connected(now)
        self._publish("presence", self._presence(online=True), retain=True)
        self._reported = None
        self._report_after = 0.0
        self.report()
        self.look()

    def disconnected(self) -> None:
        """The connection is gone."""
        self.up = False
        self._collectors.forget()
        self.questions.drop()
        if self.record.state in ("preflight", "downloading"):
            self.apply(Interrupted(reason="unreachable"))

    def heard(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Take a message in."""
        if topic == self.questions.reply:
            self.questions.heard(payload)
        elif topic == self._hint:
            self._hinted(payload)
        elif topic == self._answer:
            if not retained:
                self._collectors.proven(payload.decode("utf-8", "replace"))
                self._pump()
        elif topic != self._topics["presence"]:
            name = topic.rpartition("/")[2]
            if self._collectors.announced(name, here=bool(payload), retained=retained):
                delay = PRESENCE_SPREAD_S * self.place.chance.random()
                self.home.later(delay, lambda: self._publish("presence", self._presence(online=True), retain=True))
            self._pump()

    def lose_power(self) -> None:
        """Forget everything but the record, as it is on the disk."""
        self.powered = self.up = False
        self.questions.drop()
        self.record = msgspec.json.decode(msgspec.json.encode(self.record), type=UpdateRecord)

    def power_up(self) -> None:
        """Start again after a power cut."""
        self.powered = True
        self._boot()
        self.apply(Restarted(clean=False, power_cut=True))
        self._drive()

    # Looking for updates

    def look(self) -> None:
        """Look now; a look that is under way is superseded."""
        if not self.up:
            return
        if self.questions.busy and self.record.state in ("preflight", "downloading"):
            self.questions.drop()
            self.apply(Interrupted(reason="updater-died"))
        self._troubled = False
        self.questions.begin(self.looker.look(self._plan()))

    def _hinted(self, payload: bytes) -> None:
        try:
            hint = parse_hint(payload)
        except ContractError:
            return
        if hint.timestamp_version != self.looker.trusted.versions().get("timestamp"):
            self.look()

    def _looked(self) -> None:
        self._failures_in_row = self._failures_in_row + 1 if self._troubled else 0
        poll = self.place.scenario.poll_s
        delay = poll * (0.9 + 0.2 * self.place.chance.random())
        if self._troubled:
            soon = doubling(self._failures_in_row - 1, base_s=RETRY_BASE_S, cap_s=poll)
            delay = min(delay, soon * (0.5 + self.place.chance.random()))
        self._asked += 1
        turn, boot = self._asked, self.boot

        def due() -> None:
            if (self._asked, self.boot) == (turn, boot) and not self.questions.busy:
                self.look()

        self.home.later(delay, due)

    def _plan(self) -> SlotPlan:
        record = self.record
        return SlotPlan(
            slot=SLOT,
            channel=self.place.channel,
            running=tuple(sorted(record.running)),
            ready=tuple(sorted(record.ready)),
            rejected=record.rejected,
            serial=record.serial,
            refused_under=record.refused_under,
            retried=record.retried,
            reason=record.reason if record.state in SETTLED else None,
            since=record.since,
        )

    def _hear_updater(self, message: FromUpdater) -> None:
        state = self.record.state
        if isinstance(message, Offer):
            self.apply(Wished(candidate=message.candidate, retry=message.retry))
        elif isinstance(message, Hold):
            self.apply(Held(reason=message.reason))
        elif isinstance(message, Withdraw):
            self.apply(Withdrawn(manifest_sha256=message.manifest_sha256, reason=message.reason))
        elif isinstance(message, Checking) and state == "offered":
            self.apply(Began(facts=message.facts))
        elif isinstance(message, Fetching) and state == "preflight":
            self.apply(Fits())
        elif isinstance(message, Stored) and state == "downloading":
            self.apply(Downloaded(saved=message.saved))
        elif isinstance(message, Trouble):
            self._trouble(message)
        elif isinstance(message, Trusted):
            self._failures_in_row = 0

    def _trouble(self, trouble: Trouble) -> None:
        self._troubled |= trouble.fault in ("transport", "trust")
        final = trouble.fault not in ("transport", "trust") and trouble.reason not in SHORTAGES
        if self.record.state in FETCHING and self.record.state != "offered":
            self.apply(UpdateFailed(reason=trouble.reason) if final else Interrupted(reason=trouble.reason))

    # The update itself

    def apply(self, event: Event) -> None:
        """Advance the record, and do what the state asks for."""
        before = self.record
        after = advance(before, event, self.clock())
        if after == before:
            return
        self.record = after
        if after.serving != before.serving:
            self._soaks_since = self.home.now
        self.home.changed(self, before)
        self.report()
        if not self._cut_planned and self._is_cut(before):
            self._cut_planned = True
            self.home.later(self.place.chance.random(), lambda: self.home.cut_power(self))
        self._drive()

    def _is_cut(self, before: UpdateRecord) -> bool:
        moment = self.place.fate.power_cut_in
        entered = self.record.state != before.state and self.record.state == moment
        return entered and self._candidate == self.place.candidate

    @property
    def _candidate(self) -> str | None:
        return None if self.record.candidate is None else self.record.candidate.manifest_sha256

    def _drive(self) -> None:
        """Take the next step the record's state asks for."""
        state = self.record.state
        candidate = self.record.candidate
        if state == "verified" and self._window_open() and candidate is not None and may_try(candidate, self.clock()):
            self.apply(TrialBegan())
        elif state == "trial" and self._trial_since != self.record.since:
            self._trial_since = self.record.since
            self._later(self.place.scenario.trial_s * (0.5 + self.place.chance.random()), self._tried)
        elif state == "shadow" and self._may_go_live():
            self.apply(ShadowPassed())
        if self.record.state not in SETTLED and not self._ticking:
            self._ticking = True
            self.home.later(TICK_S, self._tick)

    def _later(self, delay_s: float, act: Callable[[], None]) -> None:
        """Do something in this very state of this boot, or not at all."""
        record, boot = self.record, self.boot

        def due() -> None:
            same = (self.record.state, self.record.since, self.boot) == (record.state, record.since, boot)
            if self.powered and same:
                act()

        self.home.later(delay_s, due)

    def _tried(self) -> None:
        bad = self._fails and self.place.scenario.failing_by == "trial"
        self.apply(UpdateFailed(reason="trial-quality") if bad else TrialPassed(usable=("sim",)))

    @property
    def _fails(self) -> bool:
        return self.place.fate.fails and self._candidate == self.place.candidate

    def _tick(self) -> None:
        self._ticking = False
        if not self.powered:
            return
        if self.record.deadline is not None:
            self.apply(Expired())
        if has_overrun(self.record, self.clock()):
            self.apply(TurnOver())
        if self.record.state == "active":
            self._soak(self.home.now - self._soaks_since)
        self._drive()

    def _soak(self, served_s: float) -> None:
        by = self.place.scenario.failing_by
        if self._fails and by == "crash":
            self.apply(Crashed(reason="signal 11"))
            return
        requests = int(served_s * self.place.scenario.requests_per_s)
        failures = requests // 2 if self._fails and by == "errors" else 0
        if (verdict := judge(self.record, requests, failures, served_s)) is not None:
            self.apply(verdict)

    def _may_go_live(self) -> bool:
        candidate = self.record.candidate
        live = candidate is not None and candidate.mode == "live" and may_serve(candidate, self.clock())
        return live and self._window_open()

    def _window_open(self) -> bool:
        candidate = self.record.candidate
        clock = datetime.fromtimestamp(self.clock(), UTC).strftime("%H:%M")
        return candidate is not None and window_open(candidate.window, clock)

    # What it tells

    def report(self) -> None:
        """Publish the reported state if it says something new, and not too often."""
        now = self.home.now
        if not self.up or self._report_waits:
            return
        if now < self._report_after:
            self._report_waits = True
            self.home.later(self._report_after - now, self._report_due)
            return
        slot = self._slot_state()
        if slot == self._reported:
            return
        self._reported, self._report_after = slot, now + REPORT_S
        state = ReportedState(
            device=self.name,
            boot_id=self.boot_id,
            sequence=self._reports,
            time=_text(self.clock()),
            agent_version=__version__,
            board=self.looker.facts.board,
            architecture=self.looker.facts.architecture,
            tags=self.looker.facts.tags,
            facts=self.looker.facts.measured,
            slots=(slot,),
            trusted=self.looker.trusted.versions(),
        )
        self._reports += 1
        self._publish("reported", encode(state), retain=True)

    def _report_due(self) -> None:
        self._report_waits = False
        self.report()

    def _slot_state(self) -> SlotState:
        record = self.record
        candidate = record.candidate
        return SlotState(
            slot=SLOT,
            channel=self.place.channel,
            model=self.place.model,
            state=record.state,
            reason=record.reason,
            since=_text(record.since, "%Y-%m-%dT%H:%M:%SZ") if record.since else None,
            serving=record.serving,
            variant="sim",
            last_good=record.last_good,
            candidate=installed(candidate) if candidate else None,
            rollout=candidate.rollout if candidate else None,
        )

    def close_window(self) -> None:
        """Spool a telemetry window about the time since the last one."""
        if not self.powered:
            return
        place, now = self.place, self.clock()
        serving = self.record.serving
        new = serving is not None and serving.manifest_sha256 == place.candidate
        requests = max(int((now - self._window_began) * place.scenario.requests_per_s), 0)
        errors = requests // 2 if new and place.fate.fails and place.scenario.failing_by == "errors" else 0
        window = TelemetryWindow(
            device=self.name,
            boot_id=self.boot_id,
            sequence=self._sequence,
            start=_text(self._window_began),
            end=_text(now),
            slot=SLOT,
            model=place.model,
            version=None if serving is None else serving.version,
            variant="sim",
            counters={"requests": requests, "errors": errors},
            served_by={"sim": requests - errors},
            latency_log2_us=_latency(requests - errors, place.scenario.slow_factor if new and place.fate.slow else 1.0),
            drift={"x/mean": 3.0 if new and place.fate.drifts else 0.5},
        )
        self._window_began = now
        self._sequence += 1
        self.windows += 1
        self._spool.append(encode(window))
        self._pump()

    def _pump(self) -> None:
        if self.up and self._collectors.present:
            for body in self._spool:
                self.home.publish(self._topics["tele"], body, qos=1, retain=False)
            self._spool.clear()

    def _publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if self.up:
            self.home.publish(self._topics[topic], payload, qos=1, retain=retain)

    def _presence(self, *, online: bool) -> bytes:
        time = _text(self.clock()) if online else None
        return encode(Presence(device=self.name, boot_id=self.boot_id, online=online, time=time))


def _latency(answers: int, factor: float) -> tuple[int, ...]:
    """Return a histogram of answers that take `factor` times what is usual, to the nearest power of two."""
    bins = [0] * 32
    bins[min(31, TYPICAL_LOG2_US + round(math.log2(factor)))] = answers
    return tuple(bins)


def _text(seconds: float, form: str = "%Y-%m-%dT%H:%M:%S.%fZ") -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(form)

"""A simulated rollout from the first connection to the last device that has settled."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from edge_contracts.codec import StrictRecord
from edge_fleet.database.rollouts import PlannedRollout, RolloutStore
from edge_fleet.database.telemetry import TelemetryStore
from edge_fleet.rollouts.plan import ApprovalStep, RolloutPlan, ShadowStep, WaveStep
from edge_fleet.rollouts.planned import start_planned
from edgewright.simulator.errors import SimulationError
from edgewright.simulator.outcome import CpuSeconds, CurvePoint, GroupWatch, Outcome, added
from edgewright.simulator.scenario import FleetScenario
from edgewright.simulator.site import SimulatedSite
from edgewright.simulator.words import Begin, FromHost, HostPlan, Tally, Unavailable

LOOK_S = 1.0
"""How often the rollout and the devices are looked at."""

SETTLE_S = 10.0
"""How long the numbers must stand still after the rollout's end, with every device done, for all to be over."""

STILL_S = 120.0
"""How long a wave may stand still before the simulation ends: then it waits for a person, or for reports that nobody
will send."""

Progress = Callable[[str], None]


class Rehearsal(StrictRecord, frozen=True, kw_only=True):
    """What to simulate: `broker` is mosquitto, embedded or the HOST:PORT of one that runs."""

    devices: int
    plan: RolloutPlan
    scenario: FleetScenario
    broker: str = "mosquitto"
    processes: int = 2
    depots: int = 1
    controllers: int = 1
    depot_devices: int = 64
    db: str | None = None


def rehearse(asked: Rehearsal, folder: Path, say: Progress) -> Outcome:
    """Simulate, in an empty folder. Raises SimulationError if the fleet does not come up or a process dies."""
    with contextlib.ExitStack() as stack:
        say("making a fleet and two releases")
        site = stack.enter_context(SimulatedSite(folder, asked.plan, asked.scenario, asked.db))
        if asked.broker in ("mosquitto", "embedded"):
            site.start_broker(asked.broker)  # type: ignore[arg-type]
        else:
            site.use_broker(asked.broker)
        site.start_services(asked.depots, asked.controllers, asked.depot_devices)
        hosts = stack.enter_context(start_hosts(asked, site))
        return _Run(asked, site, hosts, say).run()


class HostProcess:
    """A process of simulated devices, listened to by a thread."""

    def __init__(self, plan: HostPlan, log: Path) -> None:
        words = [sys.executable, "-m", "edgewright.simulator.host", msgspec.json.encode(plan).decode()]
        with log.open("ab") as errors:
            self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        self.tally = Tally()
        self.unavailable: list[Unavailable] = []
        self._log = log
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def begin(self) -> None:
        """Say that the rollout has begun."""
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(Begin()) + b"\n")
        self.process.stdin.flush()

    def check(self) -> None:
        """Raise SimulationError with its last words if it has died."""
        if self.process.poll() is not None:
            lines = self._log.read_text(errors="replace").strip().splitlines() or ["without a word"]
            raise SimulationError(f"a process of devices ended: {lines[-1][:500]}", subject=str(self._log))

    def end(self) -> None:
        """Let the devices say goodbye; SIGKILL after some time."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            word = msgspec.json.decode(line, type=FromHost)
            if isinstance(word, Tally):
                self.tally = word
            else:
                self.unavailable.append(word)


@contextlib.contextmanager
def start_hosts(asked: Rehearsal, site: SimulatedSite) -> Iterator[list[HostProcess]]:
    """Start the processes of devices; end them with a goodbye of every device."""
    number = min(asked.processes, asked.devices)
    borders = [asked.devices * place // number for place in range(number + 1)]
    rate = asked.scenario.connects_per_s / number
    hosts: list[HostProcess] = []
    try:
        for place, (first, last) in enumerate(itertools.pairwise(borders)):
            plan = HostPlan(
                host=site.host,
                port=site.port,
                protocol=site.protocol,
                tenant=site.fleet.tenant,
                channel=asked.plan.channel,
                model=asked.plan.model,
                first=first,
                last=last,
                scenario=msgspec.structs.replace(asked.scenario, connects_per_s=rate),
                root=str(site.root),
                stable=site.stable,
                candidate=site.candidate.manifest_sha256,
                group=limit_of(asked.plan)[0],
            )
            hosts.append(HostProcess(plan, site.folder / f"devices-{place}.log"))
        yield hosts
    finally:
        for host in hosts:
            host.end()


def limit_of(plan: RolloutPlan) -> tuple[str, int | None]:
    """Return the fact that makes the groups of a plan's availability, and how many of a group may change at once."""
    availability = getattr(plan, "availability", None)
    return ("tag.site", None) if availability is None else (availability.group, availability.at_most)


@dataclass
class _Run:
    """One rollout over a fleet whose processes run."""

    asked: Rehearsal
    site: SimulatedSite
    hosts: list[HostProcess]
    say: Progress

    def run(self) -> Outcome:
        self._limit = time.monotonic() + self.asked.scenario.limit_s
        self._come_up()
        self._cpu = self._cpu_now()
        self._signed = self.site.signed_documents()
        self._began = time.monotonic()
        self._curve: list[CurvePoint] = []
        channel = start_planned(self.site.fleet, self.asked.plan, datetime.now(UTC), db=self.asked.db)
        for host in self.hosts:
            host.begin()
        with contextlib.closing(RolloutStore(self.site.store_url)) as store:
            planned = self._follow(store, str(channel.rollout))
            made = store.decisions(planned.rollout)
        return self._outcome(planned, made[-1].why if made else "")

    def _come_up(self) -> None:
        devices = self.asked.devices
        while (there := self._tally().connected) < devices:
            self.say(f"{there} of {devices} devices are connected")
            self._wait("the fleet came up")
        # The controller must know them all, or the first wave by count would be drawn from a part of them.
        with contextlib.closing(TelemetryStore(self.site.store_url)) as store:
            while (known := store.count_reporting()) < devices:
                self.say(f"all connected, {known} of {devices} have reported")
                self._wait("the controller knew the fleet")

    def _wait(self, what: str) -> None:
        for host in self.hosts:
            host.check()
        if time.monotonic() > self._limit:
            limit = self.asked.scenario.limit_s
            raise SimulationError(f"{limit:g} s were over before {what}", subject="limit_s")
        time.sleep(LOOK_S)

    def _tally(self) -> Tally:
        return added(host.tally for host in self.hosts)

    def _follow(self, store: RolloutStore, name: str) -> PlannedRollout:
        """Wait for the end of the rollout and for the last device."""
        still_since, last = time.monotonic(), None
        while True:
            planned = next(one for one in store.planned() if one.rollout == name)
            tally, now = self._tally(), time.monotonic()
            self._note(tally, now)
            self._say(planned, tally)
            self._approve(store, planned)
            over = planned.status not in ("starting", "running")
            standing = (tally.committed, tally.failed, tally.bearing, tally.reverted)
            if standing != last:
                still_since, last = now, standing
            if over and self._done(planned, tally) and now - still_since >= SETTLE_S:
                return planned
            if now > self._limit or (self._waits(store, planned, tally) and now - still_since >= STILL_S):
                return planned
            for host in self.hosts:
                host.check()
            time.sleep(LOOK_S)

    def _done(self, planned: PlannedRollout, tally: Tally) -> bool:
        """Whether nothing is on its way any more."""
        return tally.bearing == (tally.committed if planned.status == "finished" else 0)

    def _waits(self, store: RolloutStore, planned: PlannedRollout, tally: Tally) -> bool:
        """Whether a wave runs in which no device is at work, and the controller knows that, too."""
        wave = isinstance(planned.plan.steps[planned.step], WaveStep | ShadowStep)
        if not wave or planned.status != "running" or tally.bearing != tally.committed:
            return False
        made = store.decisions(planned.rollout)
        return bool(made) and not made[-1].state.progress.busy and not made[-1].state.progress.waiting

    def _note(self, tally: Tally, now: float) -> None:
        self._curve.append(
            CurvePoint(
                seconds=round(now - self._began, 2),
                committed=tally.committed,
                failed=tally.failed,
                bearing=tally.bearing,
                reverted=tally.reverted,
                connected=tally.connected,
            )
        )

    def _say(self, planned: PlannedRollout, tally: Tally) -> None:
        step = f"step {planned.step + 1} of {len(planned.plan.steps)}"
        self.say(
            f"{self._curve[-1].seconds:.0f} s: {planned.status}, {step}; {tally.committed} committed, "
            f"{tally.failed} failed, {tally.bearing - tally.committed} at work, {tally.connected} connected"
        )

    def _approve(self, store: RolloutStore, planned: PlannedRollout) -> None:
        """Say yes in the place of whoever a step waits for."""
        step = planned.plan.steps[planned.step]
        if isinstance(step, ApprovalStep) and store.approval(planned.rollout, planned.step) is None:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            store.approve(planned.rollout, planned.step, step.who or "simulation", now)

    def _cpu_now(self) -> CpuSeconds:
        import psutil

        devices = sum(sum(psutil.Process(host.process.pid).cpu_times()[:2]) for host in self.hosts)
        broker = self.site.cpu_seconds("broker")
        controller, depot = self.site.cpu_seconds("controller"), self.site.cpu_seconds("depot")
        return CpuSeconds(controller=controller or 0.0, depot=depot or 0.0, broker=broker, devices=devices)

    def _outcome(self, planned: PlannedRollout, why: str) -> Outcome:
        cpu, tally = self._cpu_now(), self._tally()
        entered = planned.plan.steps[: planned.step + 1]
        devices, at_most = self.asked.devices, limit_of(self.asked.plan)[1]
        watch = GroupWatch(at_most)
        watch.take(word for host in self.hosts for word in host.unavailable)
        with contextlib.closing(TelemetryStore(self.site.store_url)) as store:
            stored = store.count_messages("window")
        return Outcome(
            devices=devices,
            committed=tally.committed,
            failed=tally.failed,
            halted=planned.status == "stopped",
            why=why,
            reverted=tally.reverted,
            availability_violations=watch.violations,
            at_most=at_most,
            most_at_once=watch.most,
            signed_documents=self.site.signed_documents() - self._signed,
            waves=sum(isinstance(step, WaveStep | ShadowStep) for step in entered),
            seconds=self._seconds(),
            bytes_per_device=(tally.bytes_in + tally.bytes_out) / devices,
            messages_per_device=(tally.messages_in + tally.messages_out) / devices,
            windows_stored=stored,
            windows_sent=tally.windows,
            asked_again=tally.asked_again,
            lost_connections=tally.lost_connections,
            refused=tally.refused,
            release_bytes=self.asked.scenario.release_bytes,
            cpu_s=CpuSeconds(
                controller=round(cpu.controller - self._cpu.controller, 3),
                depot=round(cpu.depot - self._cpu.depot, 3),
                broker=None if cpu.broker is None else round(cpu.broker - (self._cpu.broker or 0.0), 3),
                devices=round(cpu.devices - self._cpu.devices, 3),
            ),
            curve=tuple(self._curve),
        )

    def _seconds(self) -> float:
        """Return when the numbers changed for the last time."""
        last = self._curve[-1]
        standing = (last.committed, last.failed, last.bearing, last.reverted)
        return next(
            point.seconds
            for point in self._curve
            if (point.committed, point.failed, point.bearing, point.reverted) == standing
        )

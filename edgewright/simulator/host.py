"""A process of simulated devices: one thread, one epoll, one heap of timers.

    python -m edgewright.simulator.host <HostPlan JSON>

It ends when its standard input closes, with a goodbye from every device that is online.
"""

from __future__ import annotations

import heapq
import os
import random
import select
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from tuf.api.metadata import Metadata, Root

from edge_agent.backoff import full_jitter
from edge_agent.config.profiles import load_profile
from edge_agent.mqtt.client import RECONNECT_BASE_S, RECONNECT_CAP_S
from edge_agent.update.preflight import DeviceFacts
from edge_agent.update.record import UpdateRecord
from edge_contracts import __version__
from edge_contracts.profile import DeviceProfile
from edge_contracts.selection import Facts
from edge_io.mqtt.words import MessageReceived
from edgewright.simulator.device import Placing, SimulatedDevice
from edgewright.simulator.link import DeviceLink, Traffic
from edgewright.simulator.looking import Looker, ManifestShelf
from edgewright.simulator.scenario import DeviceFate, chance_of, device_name, fate_of
from edgewright.simulator.trust import SharedVerifier, TrustedMetadata
from edgewright.simulator.words import HostPlan, Tally, Unavailable

TELL_S = 1.0
"""How often the numbers are told."""

LOOK_AT_S = 30.0
"""How often each connection is looked at if nothing happens on it: pings, and handshakes that never end."""

SWAPPING = frozenset({"trial", "shadow", "active"})
"""States in which a device is busy with changing what it serves."""

ENGINE = ("onnxruntime", "1.22.0")
"""What a simulated device says it runs models with."""

OPENING = 100
"""Connections that may be on their way at once while the fleet comes up."""

TIMERS_S = 0.05
"""How long timers may take before what has arrived gets its turn."""

DARK_S = (3.0, 10.0)
"""How long a power cut lasts."""


class Loop:
    """Timers and sockets of one process."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._turn = 0
        self._epoll = select.epoll()
        self._links: dict[int, DeviceHome] = {}
        self._reader: tuple[int, Callable[[], None]] | None = None

    def later(self, delay_s: float, act: Callable[[], None]) -> None:
        """Call `act` in `delay_s` seconds."""
        self._turn += 1
        heapq.heappush(self._timers, (self.now + delay_s, self._turn, act))

    def listen(self, number: int, act: Callable[[], None]) -> None:
        """Call `act` whenever a file descriptor can be read."""
        self._reader = number, act
        self._epoll.register(number, select.EPOLLIN | select.EPOLLHUP)

    def watch(self, number: int, home: DeviceHome, *, writing: bool) -> None:
        """Wait for a socket."""
        wanted = select.EPOLLIN | (select.EPOLLOUT if writing else 0)
        if self._links.get(number) is home:
            self._epoll.modify(number, wanted)
        else:
            self._links[number] = home
            self._epoll.register(number, wanted)

    def forget(self, number: int, home: DeviceHome) -> None:
        """Wait for a socket no more that is closed: the kernel has forgotten it."""
        if self._links.get(number) is home:
            del self._links[number]

    def turn(self) -> None:
        """Do what is due, and wait for what comes, not long."""
        self.now = time.monotonic()
        until = self.now + TIMERS_S
        while self._timers and self._timers[0][0] <= self.now and time.monotonic() < until:
            heapq.heappop(self._timers)[2]()
        wait = min(0.25, self._timers[0][0] - self.now) if self._timers else 0.25
        for number, _ in self._epoll.poll(max(wait, 0.0), 512):
            self.now = time.monotonic()
            if self._reader is not None and number == self._reader[0]:
                self._reader[1]()
                continue
            home = self._links.get(number)
            if home is not None:
                home.process(readable=True)


@dataclass(kw_only=True)
class Counts:
    """What the devices of this process have done; `tell` says something to the simulation."""

    traffic: Traffic
    tell: Callable[[Tally | Unavailable], None]
    group: str
    candidate: str
    committed: int = 0
    failed: int = 0
    bearing: int = 0
    reverted: int = 0
    connected: int = 0
    opening: int = 0
    lost_connections: int = 0
    began: bool = False

    def __post_init__(self) -> None:
        self.reasons: Counter[str] = Counter()

    def changed(self, device: SimulatedDevice, before: UpdateRecord) -> None:
        """Take a transition in."""
        after, wanted = device.record, self.candidate
        self.committed += _runs(after, wanted) - _runs(before, wanted)
        self.bearing += (wanted in after.running) - (wanted in before.running)
        about = after.candidate is not None and after.candidate.manifest_sha256 == wanted
        gave_up = after.state in ("rejected", "rolled_back") and after.state != before.state
        if about and gave_up and after.reason not in ("aborted", "revoked"):
            self.failed += 1
            self.reasons[after.reason or ""] += 1
        served = before.serving is not None and before.serving.manifest_sha256 == wanted
        if served and after.serving == device.place.stable:
            self.reverted += 1
        was, now = _swaps(before, wanted), _swaps(after, wanted)
        if was != now:
            group = device.looker.facts.value(self.group) or "-"
            self.tell(Unavailable(group=group, by=1 if now else -1, at=time.time()))


def _runs(record: UpdateRecord, manifest: str) -> bool:
    serving = record.serving
    return record.committed and serving is not None and serving.manifest_sha256 == manifest


def _swaps(record: UpdateRecord, manifest: str) -> bool:
    candidate = record.candidate
    return record.state in SWAPPING and candidate is not None and candidate.manifest_sha256 == manifest


class DeviceHome:
    """What a device has of the world: its link, worse by what the scenario says, and the loop's time."""

    def __init__(self, plan: HostPlan, loop: Loop, counts: Counts, fate: DeviceFate, chance: random.Random) -> None:
        self._plan, self._loop, self._counts, self._fate, self._chance = plan, loop, counts, fate, chance
        self._latency_s = plan.scenario.latency_ms / 1000.0
        self._attempt = 0
        self._away = self._online = self._opening = False
        self._watched: tuple[int, bool] | None = None

    def settle(self, device: SimulatedDevice) -> None:
        """Take the device in."""
        self.device = device
        self.link = DeviceLink(
            host=self._plan.host,
            port=self._plan.port,
            protocol=self._plan.protocol,
            client_id=f"ew-{device.name}",
            subscriptions=device.subscriptions,
            will=lambda: device.will,
            traffic=self._counts.traffic,
            arrived=self._arrived,
            ready=self._ready,
            ended=self._ended,
        )

    @property
    def now(self) -> float:
        return self._loop.now

    def later(self, delay_s: float, act: Callable[[], None]) -> None:
        self._loop.later(delay_s, act)

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        if not qos and self._lost():
            return
        if not self._latency_s:
            self._publish(topic, payload, qos, retain)
        else:
            self.later(self._latency_s, lambda: self._publish(topic, payload, qos, retain))

    def changed(self, device: SimulatedDevice, before: UpdateRecord) -> None:
        self._counts.changed(device, before)

    def cut_power(self, device: SimulatedDevice) -> None:
        device.lose_power()
        self._hang_up()
        self.later(self._chance.uniform(*DARK_S), self._power_up)

    def connect(self) -> None:
        """Connect, or try again later."""
        if self._away or not self.device.powered or self.link.session is not None:
            return
        try:
            self.link.open(self.now)
        except OSError:
            self._again()
            return
        self._counts.opening += 1
        self._opening = True
        self._watch()
        self.later(LOOK_AT_S, self._look)

    def process(self, *, readable: bool) -> None:
        """Go on with the connection."""
        self.link.process(readable, self.now)
        self._watch()

    def spell(self) -> None:
        """Lose the connection for a while, if the scenario has that in store."""
        if self._fate.away_at is not None:
            self.later(self._fate.away_at, self._leave_for_a_while)

    def _leave_for_a_while(self) -> None:
        self._away = True
        self._hang_up()
        self.later(self._fate.away_s, self._come_back)

    def _come_back(self) -> None:
        self._away = False
        self.connect()

    def _hang_up(self) -> None:
        self.link.cut()

    def _power_up(self) -> None:
        self.device.power_up()
        self.connect()

    def _lost(self) -> bool:
        loss = self._plan.scenario.loss
        return bool(loss) and self._chance.random() < loss

    def _publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        self.link.publish(topic, payload, qos=qos, retain=retain, now=self.now)
        self._watch()

    def _watch(self) -> None:
        session = self.link.session
        stream = None if session is None else session.socket
        if session is None or stream is None:
            return
        number, writing = stream.fileno(), session.wants_write
        if (number, writing) != self._watched:
            self._watched = number, writing
            self._loop.watch(number, self, writing=writing)

    def _look(self) -> None:
        if self.link.session is not None:
            self.process(readable=False)
            self.later(LOOK_AT_S, self._look)

    def _arrived(self, message: MessageReceived) -> None:
        answer = message.topic == self.device.questions.reply
        self._counts.traffic.received(message, 0 if answer else 1)
        if answer and self._lost():
            return
        if self._latency_s:
            self.later(self._latency_s, lambda: self._hand_over(message))
        else:
            self._hand_over(message)

    def _hand_over(self, message: MessageReceived) -> None:
        if self.device.up:
            self.device.heard(message.topic, message.payload, retained=message.retained)

    def _opened(self) -> None:
        self._counts.opening -= self._opening
        self._opening = False

    def _ready(self) -> None:
        self._opened()
        self._attempt = 0
        self._online = True
        self._counts.connected += 1
        self.device.connected()

    def _ended(self) -> None:
        self._opened()
        if self._watched is not None:
            self._loop.forget(self._watched[0], self)
        self._watched = None
        if self._online:
            self._online = False
            self._counts.connected -= 1
            self._counts.lost_connections += 1
        if self.device.up:
            self.device.disconnected()
        self._again()

    def _again(self) -> None:
        delay = full_jitter(self._attempt, self._chance.random(), base_s=RECONNECT_BASE_S, cap_s=RECONNECT_CAP_S)
        self._attempt += 1
        self.later(delay, self.connect)


class Host:
    """The devices of one process."""

    def __init__(self, plan: HostPlan) -> None:
        self._plan = plan
        self.loop = Loop()
        self._out = sys.stdout.buffer
        self.counts = Counts(traffic=Traffic(), tell=self._tell, group=plan.group, candidate=plan.candidate)
        root = Metadata[Root].from_bytes(Path(plan.root).read_bytes())
        self._verifier, self._root, self._shelf = SharedVerifier(), root, ManifestShelf()
        self._profiles: dict[str, DeviceProfile] = {}
        self.homes = [self._place(index) for index in range(plan.first, plan.last)]
        self._ended = False

    def run(self) -> None:
        """Bring the devices up, and go on until standard input closes."""
        for home in self.homes:
            self._windows(home)
        self._coming = iter(self.homes)
        self._greet()
        self.loop.later(TELL_S, self._count)
        self.loop.listen(sys.stdin.fileno(), self._told)
        while not self._ended:
            self.loop.turn()
        self._say_all()
        for home in self.homes:
            if home.device.up:
                home.link.leave()

    def _greet(self) -> None:
        """Let the next device connect; on a busy machine not before others have got through."""
        if self.counts.opening < OPENING:
            home = next(self._coming, None)
            if home is None:
                return
            home.connect()
        self.loop.later(1.0 / self._plan.scenario.connects_per_s, self._greet)

    def _place(self, index: int) -> DeviceHome:
        plan, scenario = self._plan, self._plan.scenario
        fate, name = fate_of(scenario, index), device_name(index)
        profile = self._profile(fate.board)
        chance = chance_of(scenario, "device", name)
        home = DeviceHome(plan, self.loop, self.counts, fate, chance)
        board, architecture = profile.board, profile.board.architecture
        measured = {"agent_version": __version__, f"engine.{ENGINE[0]}": ENGINE[1]}
        measured |= {"cpus": f"{board.cores}", "memory_mb": f"{int(board.memory_mb)}"}
        facts = Facts(
            device=name, board=profile.name, architecture=architecture, tags={"site": fate.site}, measured=measured
        )
        looker = Looker(
            device=name,
            facts=facts,
            hardware=DeviceFacts(
                architecture=architecture,
                engines=dict([ENGINE]),
                available_memory_mb=None,
                disk_free_mb=1024.0,
            ),
            profile=profile,
            trusted=TrustedMetadata(verifier=self._verifier, root=self._root),
            shelf=self._shelf,
            clock=time.time,
            say=lambda _: None,
        )
        placing = Placing(
            tenant=plan.tenant,
            channel=plan.channel,
            model=plan.model,
            fate=fate,
            scenario=scenario,
            candidate=plan.candidate,
            stable=plan.stable,
            wall=time.time,
            chance=chance,
        )
        home.settle(SimulatedDevice(name=name, place=placing, home=home, looker=looker))
        return home

    def _profile(self, name: str) -> DeviceProfile:
        if name not in self._profiles:
            self._profiles[name] = load_profile(name)
        return self._profiles[name]

    def _windows(self, home: DeviceHome) -> None:
        """Close the device's telemetry windows for ever; not all devices at once."""
        every = self._plan.scenario.window_s

        def close() -> None:
            home.device.close_window()
            home.later(every, close)

        home.later(every * home.device.place.chance.random(), close)

    def _told(self) -> None:
        """Anything that is said means that the rollout has begun; the end of the input, that all is over."""
        if not os.read(sys.stdin.fileno(), 4096):
            self._ended = True
        elif not self.counts.began:
            self.counts.began = True
            for home in self.homes:
                home.spell()

    def _count(self) -> None:
        self._say_all()
        self.loop.later(TELL_S, self._count)

    def _say_all(self) -> None:
        counts, traffic = self.counts, self.counts.traffic
        self._tell(
            Tally(
                connected=counts.connected,
                committed=counts.committed,
                failed=counts.failed,
                bearing=counts.bearing,
                reverted=counts.reverted,
                bytes_in=traffic.bytes_in,
                bytes_out=traffic.bytes_out,
                messages_in=traffic.messages_in,
                messages_out=traffic.messages_out,
                windows=sum(home.device.windows for home in self.homes),
                asked_again=sum(home.device.questions.missed for home in self.homes),
                lost_connections=counts.lost_connections,
                refused=dict(counts.reasons),
            )
        )

    def _tell(self, word: Tally | Unavailable) -> None:
        self._out.write(msgspec.json.encode(word) + b"\n")
        self._out.flush()


def main(arguments: list[str]) -> int:
    """Run the plan given as the only argument."""
    Host(msgspec.json.decode(arguments[0].encode(), type=HostPlan)).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

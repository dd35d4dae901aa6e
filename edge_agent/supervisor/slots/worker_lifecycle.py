"""Keeping one slot served: which worker answers, which one warms up beside it, which ones drain, and whether any runs.

A new ladder gets a new worker; the old one is drained once the new one is ready, so no request finds nobody. What the
ladder is and what a death means for an update is decided by the owner, `edge_agent.supervisor.slots.slot`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import Collection
from typing import Protocol

import msgspec
from msgspec import Struct

from edge_agent.config.agent_toml import SlotConfig
from edge_agent.errors import RequestMemoryError
from edge_agent.fallback_ladder import Rung, lightest
from edge_agent.ipc.worker import AgentView, Drain, Fault, Heartbeat, Prefer, Ready, Shed, TapSettings, WorkerPlan
from edge_agent.supervisor.slots.leak_detector import LeakState, grow
from edge_agent.supervisor.slots.restart_policy import RestartPolicy
from edge_agent.supervisor.slots.standby_listener import StandbyListener, WakeOnConnect
from edge_agent.supervisor.slots.worker_process import Callbacks, WorkerDeath, WorkerProcess
from edge_contracts.profile import DeviceProfile
from edge_contracts.readings import Shortage

BACKLOG = 128
"""Connections that wait in the kernel while a worker is replaced."""

DEATHS_BY_SIZE = ("engine-memory", "memory", "SIGKILL", "hung")
"""Of what a worker dies whose request was too large: a failed allocation, our own bound, the kernel's, or time."""

RECYCLE_S = 60.0
"""At most so often is a worker replaced because its memory was used up, in seconds."""

RESTARTING = "no worker: the last ones died or could not be started; see `edgewright agent status`"
RESTART_S = 0.5
"""Clients wait this long for a worker that is to be started; with a longer one ahead they are turned away."""

SHEDDING = "overloaded: this device is reducing load"

_log = logging.getLogger(__name__)


class InheritedSocket(Struct, frozen=True, kw_only=True):
    """What every worker of a slot is born with: the socket it answers on, and the way to the slot's shadow."""

    listener: socket.socket
    mirror: socket.socket


class Owner(Protocol):
    """Whom a worker's news goes to."""

    def ready(self, worker: WorkerProcess, ready: Ready) -> None: ...

    def heartbeat(self, worker: WorkerProcess, heartbeat: Heartbeat) -> None: ...

    def fault(self, worker: WorkerProcess, fault: Fault) -> None: ...

    def died(self, worker: WorkerProcess, death: WorkerDeath) -> None: ...

    def demoted(self, rung: Rung) -> None: ...

    def said(self, line: str) -> None: ...


class WorkerLifecycle:
    """The workers of one slot. `serve` says what, everything else follows. While it is `unloaded` there is none."""

    def __init__(
        self, inherited: InheritedSocket, config: SlotConfig, profile: DeviceProfile, owner: Owner, cache: str
    ) -> None:
        """`cache` is the folder of optimized models, given to every worker."""
        self.unloaded = False
        self._listener = inherited.listener
        self._config = config
        self._profile = profile
        self._owner = owner
        self._ladder: tuple[Rung, ...] = ()
        self._current: WorkerProcess | None = None
        self._next: WorkerProcess | None = None
        self._draining: set[WorkerProcess] = set()
        self._starting: asyncio.Task[None] | None = None
        self._restarts = RestartPolicy()
        self._stopping = False
        self._shortages: Collection[Shortage] = ()
        self._wish = Prefer(variant=None, threads=self._threads)
        self._shed_s = 0.0
        self._growth = self._no_growth()
        self._tap = TapSettings(shadow=0.0, capture=False)
        self._mirror = inherited.mirror
        self._standby = StandbyListener(inherited.listener)
        self._wake_on_connect = WakeOnConnect(inherited.listener)
        self._cache = cache
        self._proved_bytes = 0  # of the largest request that any worker has answered
        self._refused_bytes: int | None = None  # a request of that size has ended a worker
        self._recycled_at = -math.inf

    @property
    def workers(self) -> list[WorkerProcess]:
        """Every worker that runs: the serving one first."""
        serving = [worker for worker in (self._current, self._next) if worker is not None]
        return serving + [worker for worker in self._draining if worker not in serving]

    @property
    def served_by(self) -> str | None:
        """The rung answers come from now."""
        worker = self._current
        if worker is None or worker.ready is None:
            return None
        return worker.heartbeat.rung if worker.heartbeat is not None else worker.ready.served_by

    @property
    def nodes(self) -> dict[str, str]:
        """Which rung answered last in each model of a pipeline."""
        heartbeat = None if self._current is None else self._current.heartbeat
        return {} if heartbeat is None else heartbeat.nodes

    @property
    def variant(self) -> str | None:
        """The variant of that rung."""
        return None if self.served_by is None else self.served_by.rpartition("/")[2]

    @property
    def idle_s(self) -> float:
        """Seconds since the last request, by the one worker there is; 0 where there is none or another takes over."""
        worker = self._current
        if worker is None or worker.heartbeat is None or self._next is not None or self._starting is not None:
            return 0.0
        return worker.heartbeat.idle_s

    @property
    def manifests(self) -> frozenset[str]:
        """Manifests of which some worker has files open or may open them."""
        return frozenset(rung.manifest_sha256 for worker in self.workers for rung in worker.plan.ladder)

    def serve(self, ladder: tuple[Rung, ...], *, urgent: bool = False) -> None:
        """Serve from this ladder from now on; `urgent` forgets the backoff, as after a roll back."""
        if urgent:
            self._restarts.forget()
        changed = ladder != self._ladder
        if changed:
            self._refused_bytes = None
        self._ladder = ladder
        self.unloaded = self.unloaded and not changed
        if changed and self._next is not None:
            self._retire(self._next)
            self._next = None
        if not ladder and self._current is not None:
            self._drain(self._current)
            self._current = None
        if not ladder:
            self._wake_on_connect.close()
            self._standby.open()
        elif changed or (self._current is None and self._next is None):
            self._launch()

    def configure(self, config: SlotConfig) -> None:
        """Serve with these limits from now on: a worker that has them takes over from the one that runs."""
        old, self._config = self._config, config
        watched = {"idle_unload_s": old.idle_unload_s, "stale_after_s": old.stale_after_s}  # no worker knows these
        alike = msgspec.structs.replace(config, mqtt=old.mqtt, shadow=old.shadow, **watched)
        if alike != old:
            self.renew()

    def renew(self) -> None:
        """Let a new worker take over from the one that runs, if one does."""
        if self.unloaded:
            return
        if self._next is not None:
            self._retire(self._next)
            self._next = None
        if self._ladder:
            self._launch()

    def tick(self) -> None:
        """Watch the workers and start one that is due. To be called about once a second."""
        for worker in self.workers:
            worker.watch()
        now = asyncio.get_running_loop().time()
        if self._restarts.rested(now) and not self.unloaded:
            self._launch()
        if self.unloaded:
            return
        if self._current is None and self._next is None:
            self._launch()
            self._turn_away_if_late(now)
        elif self._next is None and self._starting is None:
            self._recycle_if_leaking(now)

    def conserve(self, shortages: Collection[Shortage], *, shed_s: float) -> None:
        """Serve from the first release's lightest variant, on one thread, while something is short that this saves;
        shed requests if `shed_s` > 0."""
        self._shortages = shortages
        wish = self._preference()
        if self._current is not None and wish != self._wish:
            self._current.tell(wish)
        if self._current is not None and shed_s != self._shed_s:
            self._current.tell(Shed(retry_after_s=shed_s))
        self._wish, self._shed_s = wish, shed_s
        if self.unloaded:
            self._await_request()

    def unload(self) -> None:
        """Give up the worker, if one serves: it drains, and the next connection starts another, which answers it."""
        if self._current is not None:
            self._drain(self._current)
            self._current = None
            self.unloaded = True
            self._await_request()

    def view(self, gauges: dict[str, float]) -> None:
        """Give the serving worker the agent's own readings, for `/metrics`."""
        if self._current is not None:
            self._current.tell(AgentView(gauges=gauges))

    def set_tap(self, settings: TapSettings) -> None:
        """Have requests shown to the shadow and captured like this."""
        if self._current is not None and settings != self._tap:
            self._current.tell(settings)
        self._tap = settings

    async def stop(self) -> None:
        """Drain every worker; kill what has not ended in time."""
        self._stopping = True
        self._standby.close()
        self._wake_on_connect.close()
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
        workers = self.workers
        for worker in workers:
            self._drain(worker)
        waiting = [asyncio.create_task(worker.ended()) for worker in workers]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=self._config.drain_s + 2.0)
            if late:
                for worker in workers:
                    worker.kill("stop-timeout")
                await asyncio.wait(late)

    # Inside

    @property
    def _threads(self) -> int:
        return 1 if self._shortages else self._config.threads or self._profile.model.threads

    def _preference(self) -> Prefer:
        """Return which variant to serve from, None for the ladder's own first, and on how many threads."""
        rung = lightest(self._ladder, self._shortages)
        preferred = rung is None or rung is self._ladder[0]
        return Prefer(variant=None if rung is None or preferred else rung.variant, threads=self._threads)

    def _no_growth(self) -> LeakState:
        return LeakState(leak_mb=self._config.recycle.growth_mb, window_s=self._config.recycle.window_s)

    def _recycle_if_leaking(self, now: float) -> None:
        """Start a worker beside one that leaks; it takes over when it is ready, so that no request fails."""
        worker = self._current
        memory_mb = None if worker is None else worker.memory_mb
        if worker is None or memory_mb is None:
            return
        self._growth = grow(self._growth, memory_mb, now)
        if self._growth.leaks:
            text = f"memory leak: grew steadily to {memory_mb:.0f} MB; a new worker takes over"
            self._owner.fault(worker, Fault(served_by=self.served_by or "", reason="leak", text=text))
            self._growth = self._no_growth()
            self._launch()

    def _await_request(self) -> None:
        """Unloaded: turn requests away while load is shed, else wait for one."""
        if self._shed_s:
            self._wake_on_connect.close()
            self._standby.open(SHEDDING, self._shed_s)
        else:
            self._standby.close()
            self._wake_on_connect.watch(self._wake)

    def _turn_away_if_late(self, now: float) -> None:
        """Nobody serves, and the next worker is not to be started for a while: say so, rather than let clients wait."""
        wait_s = self._restarts.wait_s(now)
        if self._ladder and self._starting is None and wait_s > RESTART_S:
            self._standby.open(RESTARTING, wait_s)

    def _wake(self) -> None:
        self.unloaded = False
        self._launch()

    def _launch(self) -> None:
        ladder = self._effective()
        due = self._restarts.due(asyncio.get_running_loop().time())
        if self._stopping or self._starting is not None or not ladder or not due:
            return
        self.unloaded = False
        self._standby.close()
        self._wake_on_connect.close()
        self._listener.listen(BACKLOG)
        self._starting = asyncio.create_task(self._start(ladder))

    def _effective(self) -> tuple[Rung, ...]:
        """Return the ladder without a first release that rests, unless it is all there is."""
        if not self._restarts.resting:
            return self._ladder
        others = tuple(rung for rung in self._ladder if rung.manifest_sha256 != self._ladder[0].manifest_sha256)
        return others or self._ladder

    async def _start(self, ladder: tuple[Rung, ...]) -> None:
        model, config = self._profile.model, self._config
        plan = WorkerPlan(
            slot=config.name,
            ladder=ladder,
            threads=self._threads,
            cache=self._cache,
            memory_limit_mb=config.memory_mb or model.memory_mb,
            drain_s=config.drain_s,
            batch=config.batch,
            certainty=config.certainty,
            capture=config.capture,
            mirror_fd=self._mirror.fileno(),
            refused_bytes=self._refused_bytes,
            takes_over=self._current is not None,
        )
        owner = self._owner
        callbacks = Callbacks(
            ready=self._on_ready, heartbeat=owner.heartbeat, fault=self._on_fault, died=self._on_death, said=owner.said
        )
        try:
            self._next = await WorkerProcess.start(plan, self._listener, callbacks)
        except OSError as error:
            _log.error("slot %s: cannot start a worker: %s", self._config.name, error)
            self._restarts.died(asyncio.get_running_loop().time())
        finally:
            self._starting = None
        if ladder != self._effective() or config is not self._config:  # something else was asked for meanwhile
            if self._next is not None:
                self._retire(self._next)
                self._next = None
            self._launch()

    def _on_ready(self, worker: WorkerProcess, ready: Ready) -> None:
        if worker is not self._next:
            return  # it was retired while it warmed up
        old, self._current, self._next = self._current, worker, None
        self._restarts.ready(asyncio.get_running_loop().time())
        self._growth = self._no_growth()
        if old is not None:
            self._drain(old)
        self._wish = self._preference()
        if self._wish.variant is not None or self._threads != worker.plan.threads:
            worker.tell(self._wish)
        if self._shed_s:
            worker.tell(Shed(retry_after_s=self._shed_s))
        worker.tell(self._tap)
        self._owner.ready(worker, ready)

    def _on_death(self, worker: WorkerProcess, death: WorkerDeath) -> None:
        self._draining.discard(worker)
        mine = worker in (self._current, self._next)
        if worker is self._current:
            self._current = None
            if self._next is not None:
                self._next.step_up()
        if worker is self._next:
            self._next = None
        death = self._judged(death)
        if mine and not self._stopping and not death.oversized:
            self._restarts.died(asyncio.get_running_loop().time())
            self._rest_if_hopeless(worker.first)
        self._owner.died(worker, death)
        if mine and self._current is None and self._next is None:
            self._launch()

    def _judged(self, death: WorkerDeath) -> WorkerDeath:
        """Say of a death whether a request like none before it was its cause; from then on half of its size is
        refused, so that not every somewhat smaller one costs a worker as well."""
        proved = max(self._proved_bytes, death.proved_bytes, *(worker.proved_bytes for worker in self.workers), 0)
        self._proved_bytes = proved
        if death.reason not in DEATHS_BY_SIZE or death.request_bytes <= proved:
            return death
        self._refused_bytes = max(death.request_bytes // 2, proved + 1)
        return msgspec.structs.replace(death, oversized=True)

    def _on_fault(self, worker: WorkerProcess, fault: Fault) -> None:
        """Replace a worker whose memory is used up, at most once in a while."""
        now = asyncio.get_running_loop().time()
        short = fault.reason == RequestMemoryError.reason and worker is self._current
        if short and self._next is None and now - self._recycled_at > RECYCLE_S:
            self._recycled_at = now
            self._launch()
        self._owner.fault(worker, fault)

    def _rest_if_hopeless(self, rung: Rung) -> None:
        others = {other.manifest_sha256 for other in self._ladder} - {rung.manifest_sha256}
        if others and self._restarts.rest(asyncio.get_running_loop().time()):
            self._owner.demoted(rung)

    def _retire(self, worker: WorkerProcess) -> None:
        """End a worker that was not ready yet."""
        worker.draining = True
        self._draining.add(worker)
        worker.kill("superseded")

    def _drain(self, worker: WorkerProcess) -> None:
        worker.draining = True
        self._draining.add(worker)
        worker.tell(Drain(deadline_s=self._config.drain_s))

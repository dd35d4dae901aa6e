"""A device for power cuts: the real supervisor, updater, store, spool and audit log in one process on one state folder.

Two things are simulated, because they write nothing to the state folder: the workers (`QuietServing` only notes what
it is to serve) and the trial (it passes). The updater runs inside the supervisor's loop instead of in a process of its
own. Everything that was promised to be durable is noted in a file outside the state folder, to be held against what
a cut has left.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import msgspec
from support.sites.update_site import UpdateSite

from edge_agent.config.agent_toml import AgentConfig, load_config
from edge_agent.fallback_ladder import Rung
from edge_agent.host.governor import Readings
from edge_agent.ipc.updater import UpdatePlan
from edge_agent.ipc.worker import TapSettings
from edge_agent.storage.state_dir import StateFolder
from edge_agent.supervisor.slots.slot import Slot
from edge_agent.supervisor.supervisor import Supervisor
from edge_agent.supervisor.update_controller import Errand
from edge_agent.update.events import Soaked, TrialPassed
from edge_agent.update.record import UpdateRecord
from edge_agent.updater.__main__ import Updater
from edge_agent.updater.transports.directory import DirectoryTransport
from edge_contracts.readings import Shortage

SLOT = "main"


class QuietServing:
    """A slot's serving without workers."""

    workers: tuple[()] = ()
    served_by = variant = None
    manifests: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.ladder: tuple[Rung, ...] = ()

    def serve(self, ladder: tuple[Rung, ...], *, urgent: bool = False) -> None:
        self.ladder = ladder

    def tick(self) -> None:
        pass

    def renew(self) -> None:
        pass

    def conserve(self, _shortages: Collection[Shortage], *, shed_s: float) -> None:
        pass

    def view(self, gauges: dict[str, float]) -> None:
        pass

    def set_tap(self, aside: TapSettings) -> None:
        pass

    async def stop(self) -> None:
        pass


class Promises:
    """What was said to be durable, line by line, in a file that no power cut touches."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, **promise: Any) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(promise) + "\n")

    def of(self, kind: str) -> list[Any]:
        """Return every promise of a kind, oldest first."""
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        return [promise[kind] for promise in map(json.loads, lines) if kind in promise]


def configuration(root: Path, site: UpdateSite) -> Path:
    """Write an agent.toml for a state folder beside it and return its path."""
    path = root.with_name(f"{root.name}.toml")
    path.write_text(
        f'[device]\nid = "dev-1"\nstate = "{root}"\n[trust]\nroot = "{site.folder / "fleet" / "root.json"}"\n'
        f'[[slots]]\nname = "{SLOT}"\nhttp = "127.0.0.1:0"\nchannel = "test"\nfactory = "{site.folder / "factory"}"\n'
    )
    return path


class Device:
    """See the module. `run` starts it, lets `act` do something and stops it in order."""

    def __init__(self, root: Path, site: UpdateSite, promises: Promises) -> None:
        self.config: AgentConfig = load_config(configuration(root, site))
        self.state = StateFolder(root)
        self.site = site
        self.serving = QuietServing()
        self.supervisor: Supervisor
        self._promises = promises

    @property
    def slot(self) -> Slot:
        return self.supervisor._slots[SLOT]

    @property
    def record(self) -> UpdateRecord:
        return self.slot.record

    def run(self, act: Callable[[Device], Awaitable[None]]) -> None:
        """Run the supervisor for as long as `act` takes. Raises whatever either raises."""
        asyncio.run(self._run(act))

    async def update(self) -> None:
        """Fetch what the channel wishes, try it, and soak it."""
        await self.fetch()
        self.soak()

    async def fetch(self) -> None:
        """Fetch what the channel wishes over the network, and try it; what passes is then in its soak."""
        updates = self.supervisor._updates
        updates._troubles = []
        self._fetch_with(updates._plan(Errand()))
        await settle()

    async def repair(self) -> None:
        """Look at every byte of the installed releases, and fetch what is wrong."""
        self._fetch_with(self.supervisor._updates._plan(Errand(verify=True)))
        await settle()

    async def bring(self) -> None:
        """Do the same from an exported folder."""
        await self.supervisor._updates.bring(str(self.site.repository))
        await settle()
        self.soak()

    def soak(self) -> None:
        """Let a soak that is going on be over."""
        if self.record.state == "active":
            self.slot.apply(Soaked())

    def collect(self) -> None:
        """Delete what is not needed any more."""
        self.supervisor._collect()

    async def _run(self, act: Callable[[Device], Awaitable[None]]) -> None:
        self.supervisor = supervisor = Supervisor(self.config)
        self._simulate()
        self._listen()
        running = asyncio.create_task(supervisor.run())
        await settle()
        if running.done():
            running.result()
        await act(self)
        supervisor._stop.set()
        await running

    def _simulate(self) -> None:
        self.slot.serving = self.serving  # type: ignore[assignment]
        self.slot._try = self._passes  # type: ignore[method-assign]
        self.supervisor._sensors.read = lambda *_: Readings()  # type: ignore[method-assign]
        self.supervisor._updates._follow = self._follow  # type: ignore[method-assign]

    async def _passes(self, _manifest_sha256: str) -> None:
        self.slot._trial = None
        self.slot.apply(TrialPassed(usable=("fp32",)))

    async def _follow(self, plan: UpdatePlan) -> None:
        self._fetch_with(plan)

    def _fetch_with(self, plan: UpdatePlan) -> None:
        Updater(plan, DirectoryTransport(self.site.repository), self.supervisor._updates._hear).run()

    def _listen(self) -> None:
        """Note every promise of durability the moment it is given."""
        state, audit, outbox = self.supervisor._state, self.supervisor._audit, self.supervisor._outbox
        write_record, append, commit = state.write_record, audit.append, outbox.commit

        def written(record: UpdateRecord) -> None:
            self._promises.note(writing=msgspec.to_builtins(record))
            write_record(record)
            self._promises.note(written=msgspec.to_builtins(record))

        def appended(event: str, time: float, **entry: Any) -> None:
            append(event, time, **entry)
            self._promises.note(audit=audit.head, event=event)

        def committed(time: str) -> None:
            commit(time)
            self._promises.note(spooled=[outbox._boot_id, outbox._sequence])

        state.write_record = written  # type: ignore[method-assign]
        audit.append = appended  # type: ignore[method-assign]
        outbox.commit = committed  # type: ignore[method-assign]


async def settle() -> None:
    """Let everything that is due on the loop happen."""
    for _ in range(20):
        await asyncio.sleep(0)

"""A device's updater against a signed repository in a folder, without a broker or an agent around it.

site = UpdateSite(tmp_path); site.release("1.0.0"); site.start("1.0.0"); messages = site.look()
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from support.makers import bundles

from edge_agent.ipc.updater import FromUpdater, SlotPlan, Trouble, UpdatePlan
from edge_agent.ports import ObjectKind, Transport
from edge_agent.storage.state_dir import StateFolder
from edge_agent.updater.__main__ import Updater
from edge_agent.updater.transports.directory import DirectoryTransport
from edge_contracts.channel import ChannelRelease
from edge_fleet.errors import RolloutError
from edge_fleet.releases.release import release
from edge_fleet.rollouts.channel_state import Plan, finish
from edge_fleet.rollouts.rollout import change_rollout, find_release, start_rollout
from edge_fleet.signing.refresh import refresh
from edge_fleet.signing.workspace import NewFleet, found

MODEL, CHANNEL, SLOT = "linear", "test", "main"


class TamperingCarrier:
    """Passes on what another carrier brings; objects whose name ends in `target` are changed by `change(data)` and said
    to be `total` bytes long."""

    def __init__(
        self, inner: Transport, target: str, change: Callable[[bytes], bytes], total: int | None = None
    ) -> None:
        self._inner, self._target, self._change, self._total = inner, target, change, total

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        data, total = self._inner.read(kind, name, offset, length)
        if not f"{kind}/{name}".endswith(self._target):
            return data, total
        return self._change(data), self._total or total


class UpdateSite:
    """See the module. `now` is the fleet's time."""

    def __init__(self, folder: Path, now: datetime | None = None) -> None:
        self.folder = folder
        self.now = now or datetime.now(UTC)
        self.fleet = found(folder / "fleet", NewFleet(families=(MODEL,)), self.now)
        self.state = StateFolder(folder / "device")
        self.state.create()
        self.carrier: Transport = DirectoryTransport(self.repository)

    @property
    def repository(self) -> Path:
        return self.folder / "fleet" / "repository"

    def release(self, version: str, **options: Any) -> ChannelRelease:
        """Make, sign and publish a release; return it as a channel names it."""
        folder = self.folder / f"bundle-{version}"
        bundles.make_bundle(folder, name=MODEL, version=version, **options)
        release(self.fleet, folder, self.now)
        return find_release(self.fleet.read(self.now), MODEL, version)

    def start(self, version: str, **plan: Any) -> None:
        """Start a rollout; one that runs is finished first."""
        with contextlib.suppress(RolloutError):
            change_rollout(self.fleet, CHANNEL, finish, self.now)
        start_rollout(self.fleet, Plan(channel=CHANNEL, model=MODEL, version=version, **plan), self.now)

    def sign_again(self, later: timedelta) -> None:
        """Let time pass on the fleet's side and sign what is due."""
        self.now += later
        refresh(self.fleet, self.now)

    def keep_copy(self, name: str) -> Path:
        """Return a copy of the repository as it is now, for a replay."""
        return Path(shutil.copytree(self.repository, self.folder / name))

    def plan(self, *, over_network: bool = False, verify: bool = False, **slot: Any) -> UpdatePlan:
        """Return an updater's plan for this device; the network's budgets count only `over_network`. `verify` looks at
        every byte of what is installed."""
        return UpdatePlan(
            state=str(self.state.root),
            root=str(self.folder / "fleet" / "root.json"),
            device="dev-1",
            tenant="default",
            profile="x86-gateway",
            slots=(SlotPlan(slot=SLOT, channel=CHANNEL, **slot),),
            directory=None if over_network else "unused",
            verify=verify,
        )

    def look(self, carrier: Transport | None = None, *, verify: bool = False, **slot: Any) -> list[FromUpdater]:
        """Run an updater in this process; return everything it said."""
        said: list[FromUpdater] = []
        Updater(self.plan(verify=verify, **slot), carrier or self.carrier, said.append).run()
        return said


def names(messages: list[FromUpdater]) -> list[str]:
    """Return the kinds of the messages, progress once."""
    kinds = [type(message).__name__ for message in messages]
    return [kind for index, kind in enumerate(kinds) if index == 0 or kinds[index - 1] != kind]


def troubles(messages: list[FromUpdater]) -> list[tuple[str, str]]:
    """Return fault and reason of every trouble."""
    return [(message.fault, message.reason) for message in messages if isinstance(message, Trouble)]

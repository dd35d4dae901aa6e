"""Reading the configuration again, on SIGHUP or when asked to. What a change means is in
`edge_agent.config.reload_plan`; how it takes effect is the supervisor's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from msgspec import Struct

from edge_agent.config.agent_toml import AgentConfig, SlotConfig, load_config
from edge_agent.config.reload_plan import ReloadPlan, plan_reload
from edge_agent.device_event import DeviceEvent
from edge_agent.errors import ConfigError
from edge_agent.ipc.control import ControlError
from edge_agent.supervisor.slots.slot import Slot, Surroundings
from edge_contracts.errors import EdgewrightError


class ReloadOutcome(Struct, frozen=True, kw_only=True):
    """Names of the fields that took effect, or why nothing did."""

    changed: tuple[str, ...] = ()
    refused: ControlError | None = None


class ConfigReload:
    """One reload at a time. `take` lets a plan take effect or raises with nothing changed; `tell` hears how it went."""

    def __init__(
        self,
        path: Path | None,
        current: Callable[[], AgentConfig],
        take: Callable[[AgentConfig, ReloadPlan], Awaitable[None]],
        tell: Callable[[DeviceEvent], None],
    ) -> None:
        self._path = path
        self._current = current
        self._take = take
        self._tell = tell
        self._one = asyncio.Lock()
        self._hangups: set[asyncio.Task[ReloadOutcome]] = set()

    def hang_up(self) -> None:
        """ReloadPlan because of a signal."""
        task = asyncio.get_running_loop().create_task(self.reload())
        self._hangups.add(task)
        task.add_done_callback(self._hangups.discard)

    async def reload(self) -> ReloadOutcome:
        """Read the file again and let it take effect, all of it or nothing."""
        async with self._one:
            try:
                if self._path is None:
                    raise ConfigError("this agent was started without a configuration file", subject="reload")
                new = load_config(self._path)
                plan = plan_reload(self._current(), new)
                await self._take(new, plan)
            except EdgewrightError as error:
                self._tell(DeviceEvent(event="config-refused", severity="warning", text=str(error)))
                return ReloadOutcome(refused=ControlError(text=str(error), hint=error.hint))
            self._tell(DeviceEvent(event="config-reloaded", text=", ".join(plan.changed) or "no changes"))
            return ReloadOutcome(changed=plan.changed)


async def open_slots(configs: Iterable[SlotConfig], around: Surroundings) -> dict[str, Slot]:
    """Return new slots by name, not started. Raises ConfigError or StateError with none of them open."""
    opened: dict[str, Slot] = {}
    try:
        for config in configs:
            opened[config.name] = slot = Slot(config, around)
            await slot.address.bind_or_refuse()
    except EdgewrightError:
        await asyncio.gather(*(slot.stop() for slot in opened.values()))
        raise
    return opened

"""What a changed `agent.toml` means for a running agent: which changes take effect, and which need a restart. Pure.

A reload takes effect as a whole or not at all, so that what runs is always what one file says. Doing it is the
supervisor's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from edge_agent.config.agent_toml import AgentConfig, SlotConfig
from edge_agent.errors import ConfigError

LIVE = re.compile(
    r"device\.tags|updates\..+|telemetry\.(window_s|otlp)|(data|home_assistant)(\..+)?"
    r"|slots\[[^]]+\](\.(threads|memory_mb|drain_s|priority|idle_unload_s|stale_after_s|recycle|batch|certainty|mqtt|shadow|capture)(\..+)?)?"
)
"""Fields that may change while the agent runs; a slot as a whole is one that came or went. The others are what the
agent is: its name, its disk, its broker, whom it trusts, and where and what a slot serves."""


class ReloadPlan(Struct, frozen=True, kw_only=True):
    """What differs: names of fields, and the slots that came, went or have other limits."""

    changed: tuple[str, ...]
    added: tuple[SlotConfig, ...]
    removed: tuple[str, ...]
    altered: tuple[SlotConfig, ...]
    data_changed: bool
    """Whether the data topics or Home Assistant's view differ: their connection is made anew."""


def plan_reload(old: AgentConfig, new: AgentConfig) -> ReloadPlan:
    """Return what is to be done. Raises ConfigError naming every changed field that needs a restart."""
    changed = tuple(_changes(_plain(old), _plain(new)))
    fixed = [name for name in changed if not LIVE.fullmatch(name)]
    if fixed:
        hint = "restart the agent, or restore the old values; no change was applied"
        raise ConfigError("cannot be changed while the agent is running", subject=", ".join(fixed), hint=hint)
    before = {slot.name: slot for slot in old.slots}
    after = {slot.name: slot for slot in new.slots}
    return ReloadPlan(
        changed=changed,
        added=tuple(slot for name, slot in after.items() if name not in before),
        removed=tuple(name for name in before if name not in after),
        altered=tuple(slot for name, slot in after.items() if name in before and slot != before[name]),
        data_changed=_data_changed(old, new),
    )


def _data_changed(old: AgentConfig, new: AgentConfig) -> bool:
    """Return whether anything differs of what goes over the data connection. Home Assistant is shown every slot."""
    if old.data != new.data or old.home_assistant != new.home_assistant:
        return True
    topics = [{slot.name: slot.mqtt for slot in config.slots if slot.mqtt is not None} for config in (old, new)]
    names = [{slot.name for slot in config.slots} for config in (old, new)]
    return topics[0] != topics[1] or (new.home_assistant is not None and names[0] != names[1])


def _plain(config: AgentConfig) -> dict[str, object]:
    plain: dict[str, object] = msgspec.to_builtins(config)
    slots: list[dict[str, object]] = plain.pop("slots")  # type: ignore[assignment]
    return plain | {f"slots[{slot['name']}]": slot for slot in slots}


def _changes(old: dict[str, object], new: dict[str, object], prefix: str = "") -> Iterator[str]:
    """Give the dotted names of fields that differ; a table that came or went is named as a whole."""
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict) and name != "tags":
            yield from _changes(before, after, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"

"""What a device decides by a channel document and the fleet can say beforehand: who matches, who is in a wave, when a
window opens. The device's decision as a whole is in `edge_agent.update.selection`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from msgspec import Struct, field

from edge_contracts.channel import Channel, MaintenanceWindow, Strata
from edge_contracts.selector import Selector, accepts


class Facts(Struct, frozen=True, kw_only=True):
    """What selectors can ask about (`edge_contracts.selector`). `measured` are memory, CPUs and versions, as text."""

    device: str
    board: str
    architecture: str
    tags: dict[str, str] = field(default_factory=dict)
    measured: dict[str, str] = field(default_factory=dict)

    def value(self, fact: str) -> str | None:
        """Return the fact of that selector name, if there is one."""
        if fact.startswith("tag."):
            return self.tags.get(fact[4:])
        known = {"device": self.device, "board": self.board, "architecture": self.architecture}
        return (self.measured | known).get(fact)


def bucket(rollout: str, device: str) -> float:
    """Return the device's place in a rollout, uniform in [0, 100): the first 8 bytes of SHA-256("rollout/device")."""
    digest = hashlib.sha256(f"{rollout}/{device}".encode()).digest()
    # Shifted to 53 bits, which a float holds exactly, so the result stays below 100.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2.0**53 * 100.0


def matches(selectors: tuple[Selector, ...], facts: Facts) -> bool:
    """Return whether the device matches every selector."""
    return all(accepts(selector, facts.value(selector.fact)) for selector in selectors)


def in_wave(channel: Channel, facts: Facts) -> bool:
    """Return whether a device belongs to the devices that are offered the channel's candidate."""
    if channel.candidate is None or channel.rollout is None or not matches(channel.selectors, facts):
        return False
    return bucket(channel.rollout, facts.device) < reach(channel.percentage, channel.strata, facts)


def stratum(names: Iterable[str], facts: Facts) -> str:
    """Return which stratum a device is in: its values of the facts named, `-` for one it lacks."""
    return "|".join(facts.value(name) or "-" for name in names)


def reach(percentage: float, strata: Strata | None, facts: Facts) -> float:
    """Return how far a wave reaches among devices like this one, in percent."""
    if strata is None:
        return percentage
    return strata.percentages.get(stratum(strata.facts, facts), percentage)


def window_open(window: MaintenanceWindow | None, clock: str) -> bool:
    """Return whether a maintenance window is open at `clock` ("HH:MM", UTC). No window is always open; a window whose
    end is before its start goes across midnight; one whose end equals its start is open all day."""
    if window is None or window.start == window.end:
        return True
    if window.start < window.end:
        return window.start <= clock < window.end
    return clock >= window.start or clock < window.end

"""The governor: readings and thresholds in, level and reasons out. Pure; the readings come from
`edge_agent.host.sensors`, what a level does is in `edge_agent.supervisor.supervisor`.

Getting worse is believed at once. Getting better is believed when a reading is better than its limit by the hysteresis
and has stayed so for the dwell time, so a device at the edge does not flap.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from edge_contracts.profile import GovernorThresholds, Threshold
from edge_contracts.readings import BY_NAME, READINGS
from edge_contracts.state import Level

LEVELS: tuple[Level, ...] = ("NORMAL", "CONSERVE", "CRITICAL")
SHED_STEP_S = 1.0
"""While it stays critical the next priority is turned away after each dwell time, but no sooner than this, in seconds:
what the last one's absence saves has to show in the readings first."""


class Readings(Struct, frozen=True, kw_only=True):
    """What the sensors say, by the names in `edge_contracts.readings`; None means that the device cannot say."""

    temperature_c: float | None = None
    available_memory_mb: float | None = None
    memory_limit_left_mb: float | None = None
    disk_free_mb: float | None = None
    free_inodes: float | None = None
    tasks_left: float | None = None
    cpu_percent: float | None = None
    battery_percent: float | None = None
    throttled: bool | None = None


class GovernorState(Struct, frozen=True, kw_only=True):
    """The level, what caused it, and since when all readings have allowed a better one.

    `shed` of the slots' declared priorities, lowest first, have to turn requests away, which happens only for readings
    that it makes better; the first of them since `shed_since`.
    """

    level: Level = "NORMAL"
    reasons: tuple[str, ...] = ()
    better_since: float | None = None
    shed: int = 0
    shed_since: float | None = None


def govern(
    state: GovernorState, readings: Readings, thresholds: GovernorThresholds, now: float, priorities: int = 1
) -> GovernorState:
    """Return the next state. `now` in seconds of a clock that only goes forward, `priorities` is how many different
    ones the slots have."""
    held = {name: _level(name, readings, thresholds, state.level) for name in BY_NAME}
    worst = max(held.values(), default=0)
    current = LEVELS.index(state.level)
    reasons = tuple(_reason(name, readings) for name, level in held.items() if level and level == worst)
    shed = any(LEVELS[level] == "CRITICAL" and BY_NAME[name].sheds for name, level in held.items())
    if worst >= current:
        shed_since = (now if state.shed_since is None else state.shed_since) if shed else None
        count = 0 if shed_since is None else 1 + int((now - shed_since) / max(thresholds.dwell_s, SHED_STEP_S))
        return GovernorState(level=LEVELS[worst], reasons=reasons, shed=min(count, priorities), shed_since=shed_since)
    since = now if state.better_since is None else state.better_since
    if now - since < thresholds.dwell_s:
        return replace(state, better_since=since)
    return GovernorState(level=LEVELS[worst], reasons=reasons)


def turned_away(priorities: Iterable[int], shed: int) -> frozenset[int]:
    """Return the `shed` lowest of the priorities: the slots that have one of these turn their requests away."""
    return frozenset(sorted(set(priorities))[:shed])


def short_of_memory(state: GovernorState, readings: Readings, thresholds: GovernorThresholds) -> bool:
    """Return whether the box's memory, or what our own limits leave of it, asks for more than NORMAL."""
    memory = ("available_memory_mb", "memory_limit_left_mb")
    return any(_level(name, readings, thresholds, state.level) > 0 for name in memory)


def known(readings: Readings) -> dict[str, float]:
    """Return the readings that could be had, by name, flags left out: for telemetry and for people."""
    values = {reading.name: getattr(readings, reading.name) for reading in READINGS if reading.unit != "flag"}
    return {name: float(value) for name, value in values.items() if value is not None}


def pressing(state: GovernorState, readings: Readings, thresholds: GovernorThresholds) -> frozenset[str]:
    """Return the names of the readings that ask for more than NORMAL now, whatever the worst of them is."""
    return frozenset(name for name in BY_NAME if _level(name, readings, thresholds, state.level) > 0)


def _level(name: str, readings: Readings, thresholds: GovernorThresholds, level: Level) -> int:
    """Return the index of the level this one reading asks for, given the level the device is at."""
    value = getattr(readings, name)
    if BY_NAME[name].unit == "flag":
        return 1 if value else 0
    threshold: Threshold | None = getattr(thresholds, name)
    if value is None or threshold is None:
        return 0
    sign = 1.0 if BY_NAME[name].rises else -1.0
    current = LEVELS.index(level)
    asked = 0
    for index, limit in ((1, threshold.conserve), (2, threshold.critical)):
        margin = threshold.hysteresis if current >= index else 0.0
        if sign * value >= sign * limit - margin:
            asked = index
    return asked


def _reason(name: str, readings: Readings) -> str:
    value = getattr(readings, name)
    return f"{name}={value:g}" if isinstance(value, float) else name

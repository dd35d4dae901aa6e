"""What the device does at a level: one table, and what the readings and the day's writes add to it. Pure.

Which level the readings ask for is in `edge_agent.host.governor`; the supervisor carries the orders out.
"""

from __future__ import annotations

from msgspec import Struct

from edge_agent.host.governor import GovernorState, turned_away
from edge_contracts.readings import Shortage
from edge_contracts.state import Level


class LevelActions(Struct, frozen=True, kw_only=True):
    """What a level allows or demands, whatever its cause.

    `installs`: new installs start, downloads and trials go on. `observes`: shadows run and requests are captured.
    `lightens`: a lighter variant serves, on one thread, where that eases what is short. `sheds`: the lowest priorities
    turn requests away, where that eases it.
    """

    installs: bool
    observes: bool
    lightens: bool
    sheds: bool


ACTIONS: dict[Level, LevelActions] = {
    "NORMAL": LevelActions(installs=True, observes=True, lightens=False, sheds=False),
    "CONSERVE": LevelActions(installs=False, observes=False, lightens=True, sheds=False),
    "CRITICAL": LevelActions(installs=False, observes=False, lightens=True, sheds=True),
}


class Orders(Struct, frozen=True, kw_only=True):
    """What is to be done now. `lighten_for` is what a lighter variant has to save, nothing for the preferred one;
    `away` are the priorities that turn requests away; `unloads_idle`: slots that nobody asks give up their worker;
    `saves_writes`: telemetry waits for another day."""

    installs: bool = False
    observes: bool = False
    lighten_for: frozenset[Shortage] = frozenset()
    away: frozenset[int] = frozenset()
    unloads_idle: bool = False
    saves_writes: bool = False


def orders(
    state: GovernorState,
    *,
    shortages: frozenset[Shortage],
    priorities: frozenset[int],
    short_of_memory: bool,
    saves_writes: bool,
) -> Orders:
    """Return what follows. `priorities` are the slots'; `shortages` what a lighter variant would save."""
    actions = ACTIONS[state.level]
    return Orders(
        installs=actions.installs,
        observes=actions.observes and not saves_writes,
        lighten_for=shortages if actions.lightens else frozenset(),
        away=turned_away(priorities, state.shed) if actions.sheds else frozenset(),
        unloads_idle=short_of_memory,
        saves_writes=saves_writes,
    )

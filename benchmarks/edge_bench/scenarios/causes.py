"""Why a measurement is unstable: what the machine and the process did in its blocks, in words with figures. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from edge_bench.scenarios.machine import MachineState
from edge_contracts.codec import StrictRecord

OTHER_LOAD = 0.10
"""Cores that other programs took, from which they count."""

STOLEN = 0.02
"""Share of the time of a core that the hypervisor gave to others, from which it counts."""

FREQUENCY_SPREAD = 0.05
FAULTS_PER_SAMPLE = 64.0
"""Page faults an inference from which memory is being mapped anew each time: 256 KiB."""

SWITCHES_PER_S = 20.0
"""Times a second that the process had to give way, from which it shares its core."""

FEW = 100
"""Queries below which a median itself is uncertain by some percent."""


class Block(StrictRecord, frozen=True, kw_only=True):
    """What happened in one block of a measurement: queries and samples answered in `wall_s` seconds with `cpu_s`
    seconds of CPU, the process's page faults and the times it was made to give way, `joules` that a meter counted, and
    the machine before and after."""

    queries: int
    samples: int
    wall_s: float
    cpu_s: float
    major_faults: int = 0
    minor_faults: int = 0
    given_way: int = 0
    joules: float | None = None
    before: MachineState
    after: MachineState


def causes(blocks: Sequence[Block], *, warm: bool = True) -> tuple[str, ...]:
    """Return what explains that the blocks differ, the likeliest first; empty when nothing that is known does."""
    wall = sum(one.wall_s for one in blocks)
    if not blocks or wall <= 0:
        return ("too few samples: nothing was answered",)
    found = [*_heat(blocks), *_others(blocks, wall), *_frequency(blocks), *_faults(blocks)]
    queries = sum(one.queries for one in blocks)
    if queries < FEW:
        found.append(f"too few samples: {queries} queries; measure for longer")
    if not warm:
        found.append("still warming up: the latency never became steady")
    return tuple(found)


def _heat(blocks: Sequence[Block]) -> list[str]:
    grown = blocks[-1].after.throttle_count - blocks[0].before.throttle_count
    flagged = sum(bool(one.after.throttled or one.before.throttled) for one in blocks)
    if grown <= 0 and not flagged:
        return []
    hottest = [one.after.temperature_c for one in blocks if one.after.temperature_c is not None]
    heat = f", {max(hottest):.0f} °C" if hottest else ""
    return [f"throttling: in {max(flagged, 1)} of {len(blocks)} blocks{heat}; cool the board"]


def _others(blocks: Sequence[Block], wall: float) -> list[str]:
    told = []
    stolen = sum(one.after.stolen_s - one.before.stolen_s for one in blocks) / wall
    spans = sum(one.after.at_s - one.before.at_s for one in blocks)
    busy = sum(one.after.busy_s - one.before.busy_s for one in blocks)
    others = (busy - sum(one.cpu_s for one in blocks)) / max(spans, wall)
    switches = sum(one.given_way for one in blocks) / wall
    if others > OTHER_LOAD:
        told.append(f"other load: other programs took {others:.1f} cores; close them")
    elif switches > SWITCHES_PER_S:
        told.append(f"other load: the process had to give way {switches:.0f} times a second; close other programs")
    if stolen > STOLEN:
        told.append(f"other load: the hypervisor gave {stolen:.0%} of a core to other machines")
    return told


def _frequency(blocks: Sequence[Block]) -> list[str]:
    seen = [one.after.frequency_mhz for one in blocks if one.after.frequency_mhz is not None]
    if not seen or max(seen) <= min(seen) * (1.0 + FREQUENCY_SPREAD):
        return []
    return [f"frequency: between {min(seen):.0f} and {max(seen):.0f} MHz; fix it (governor `performance`)"]


def _faults(blocks: Sequence[Block]) -> list[str]:
    told = []
    major = sum(one.major_faults for one in blocks)
    minor = sum(one.minor_faults for one in blocks) / max(sum(one.samples for one in blocks), 1)
    if major:
        told.append(f"page faults: {major} from the disk; the model does not fit into memory")
    if minor > FAULTS_PER_SAMPLE:
        told.append(f"page faults: {minor:.0f} an inference; memory is given back and mapped anew each time")
    return told

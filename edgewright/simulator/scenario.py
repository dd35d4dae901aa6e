"""What happens to a simulated fleet: `scenario.toml`, and what it means for each single device. Pure."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from edge_contracts.codec import StrictRecord, convert
from edge_contracts.names import Name
from edge_contracts.toml import decode_toml
from edge_fleet.errors import FleetError

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Seconds = Annotated[float, Meta(gt=0.0, le=86_400.0)]
Moment = Literal["downloading", "trial", "active"]


class FleetScenario(StrictRecord, frozen=True, kw_only=True):
    """What a fleet meets with. Shares are of the devices, drawn with `seed`.

    The release: `failing` is the share of devices on which it fails, in its `trial`, by the `errors` of its soak, or by
    a `crash` of it; on a share `slow` answers take `slow_factor` times as long, on a share `drifting` its inputs drift.

    The link: each request to a depot and each answer is lost with probability `loss`; everything takes `latency_ms`
    longer each way. A share `offline` loses its connection once, at a random moment of the first `offline_s` seconds,
    for up to `offline_s` seconds; a share `power_cuts` loses power in the middle of the update.

    The devices: `sites` tags of `site`, profiles of `boards` in turns, clocks of a share `clock_off` that are wrong by
    `clock_off_s` seconds, a look for updates every `poll_s`, a telemetry window every `window_s` with
    `requests_per_s`, trials of `trial_s`. `connects_per_s` is how fast the fleet comes up; after `limit_s` the
    simulation ends whatever is left to do.
    """

    seed: int = 1
    release_bytes: Annotated[int, Meta(ge=1, le=64 * 1024 * 1024)] = 1_000_000
    failing: Share = 0.0
    failing_by: Literal["trial", "errors", "crash"] = "trial"
    slow: Share = 0.0
    slow_factor: Annotated[float, Meta(ge=1.0, le=1000.0)] = 2.0
    drifting: Share = 0.0
    loss: Annotated[float, Meta(ge=0.0, le=0.9)] = 0.0
    latency_ms: Annotated[float, Meta(ge=0.0, le=60_000.0)] = 0.0
    offline: Share = 0.0
    offline_s: Seconds = 30.0
    power_cuts: Share = 0.0
    clock_off: Share = 0.0
    clock_off_s: Annotated[float, Meta(ge=-1e9, le=1e9)] = 3600.0
    sites: Annotated[int, Meta(ge=1, le=1_000_000)] = 100
    boards: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=16)] = ("pi-4",)
    poll_s: Seconds = 3600.0
    window_s: Seconds = 60.0
    requests_per_s: Annotated[float, Meta(ge=0.0, le=10_000.0)] = 1.0
    trial_s: Seconds = 2.0
    connects_per_s: Annotated[float, Meta(gt=0.0, le=10_000.0)] = 500.0
    limit_s: Seconds = 3600.0


class DeviceFate(StrictRecord, frozen=True, kw_only=True):
    """What a scenario has in store for one device. Times in seconds; `away_at` counts from the start of the rollout."""

    site: str
    board: str
    fails: bool
    slow: bool
    drifts: bool
    clock_off_s: float
    away_at: float | None
    away_s: float
    power_cut_in: Moment | None


def read_scenario(file: Path) -> FleetScenario:
    """Read `scenario.toml`. Raises FleetError if there is no such file, ContractError naming a key that is none or has
    a value it cannot have."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise FleetError(f"cannot be read: {error.strerror}", subject=str(file)) from error
    return convert(decode_toml(data, what=str(file)), FleetScenario, what=str(file))


def device_name(index: int) -> str:
    """Return what a simulated device is called."""
    return f"sim-{index:06d}"


def chance_of(scenario: FleetScenario, *words: str) -> random.Random:
    """Return the randomness of one matter: the same for the same seed and words, in any process and any order."""
    digest = hashlib.sha256("/".join((str(scenario.seed), *words)).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))  # noqa: S311


def fate_of(scenario: FleetScenario, index: int) -> DeviceFate:
    """Return what the scenario has in store for the device of that number. A share changes no other share's devices."""
    name = device_name(index)

    def drawn(matter: str, share: float) -> bool:
        return chance_of(scenario, matter, name).random() < share

    spell = chance_of(scenario, "spell", name)
    away = drawn("offline", scenario.offline)
    moments: tuple[Moment, ...] = ("downloading", "trial", "active")
    cut = drawn("power", scenario.power_cuts)
    return DeviceFate(
        site=f"site-{index % scenario.sites}",
        board=scenario.boards[index % len(scenario.boards)],
        fails=drawn("failing", scenario.failing),
        slow=drawn("slow", scenario.slow),
        drifts=drawn("drifting", scenario.drifting),
        clock_off_s=scenario.clock_off_s if drawn("clock", scenario.clock_off) else 0.0,
        away_at=spell.uniform(0.0, scenario.offline_s) if away else None,
        away_s=spell.uniform(0.1, 1.0) * scenario.offline_s,
        power_cut_in=chance_of(scenario, "moment", name).choice(moments) if cut else None,
    )

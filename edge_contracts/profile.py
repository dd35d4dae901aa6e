"""A device class: what the board has, what a model may cost there, and when the governor acts.

One TOML file per class in `firmware_configs/profiles`; both the compression search (as constraints) and the agent (as
budgets and thresholds) read it. Finding and reading the file is the caller's work.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from edge_contracts.codec import StrictRecord, convert
from edge_contracts.errors import ContractError
from edge_contracts.names import Name, Text
from edge_contracts.readings import BY_NAME

Positive = Annotated[float, Meta(gt=0.0)]
NotNegative = Annotated[float, Meta(ge=0.0)]
EngineName = Literal["onnxruntime", "litert"]


class Board(StrictRecord, frozen=True, kw_only=True):
    """Published figures of the board; `source` names where they are published."""

    description: Text
    architecture: Literal["x86_64", "aarch64", "armv7l"]
    cores: Annotated[int, Meta(ge=1, le=1024)]
    memory_mb: Positive
    cpu: Text = ""
    features: tuple[Text, ...] = ()
    source: Text


class ModelBudget(StrictRecord, frozen=True, kw_only=True):
    """What one model may cost on this class. `threads` is the engine's intra-op thread count."""

    latency_ms: Positive | None = None
    memory_mb: Positive = 128.0
    disk_mb: Positive = 64.0
    load_s: Positive = 10.0
    threads: Annotated[int, Meta(ge=1, le=256)] = 1
    prefer: Literal["latency", "size", "memory", "balanced"] = "balanced"
    reduce_range: bool = False


class Threshold(StrictRecord, frozen=True, kw_only=True):
    """A reading's limits: CONSERVE and CRITICAL from there on, back only once it is `hysteresis` better."""

    conserve: float
    critical: float
    hysteresis: NotNegative = 0.0


class GovernorThresholds(StrictRecord, frozen=True, kw_only=True):
    """Temperatures in degrees Celsius, memory and disk in megabytes left, CPU and battery in percent.

    `available_memory_mb` is the box's; `memory_limit_left_mb` is what the agent's own limits (systemd, container) leave
    it, which has nothing to do with the size of the board: an update takes an updater and a trial beside what serves.
    None means the reading is not watched. `dwell_s`: seconds a better level must hold before it is believed.
    """

    temperature_c: Threshold | None = None
    available_memory_mb: Threshold | None = None
    memory_limit_left_mb: Threshold | None = Threshold(conserve=64.0, critical=24.0, hysteresis=16.0)
    disk_free_mb: Threshold | None = None
    free_inodes: Threshold | None = Threshold(conserve=1000.0, critical=200.0, hysteresis=200.0)
    tasks_left: Threshold | None = Threshold(conserve=16.0, critical=2.0, hysteresis=8.0)
    cpu_percent: Threshold | None = None
    battery_percent: Threshold | None = None
    dwell_s: NotNegative = 30.0


class NetworkBudget(StrictRecord, frozen=True, kw_only=True):
    """How much the device may fetch and how: bytes a day, bytes a chunk, chunks in flight, tries of one chunk."""

    daily_mb: Positive = 1024.0
    chunk_kib: Annotated[int, Meta(ge=1, le=120)] = 64
    window: Annotated[int, Meta(ge=1, le=256)] = 8
    retries: Annotated[int, Meta(ge=1, le=1000)] = 20


class StorageBudget(StrictRecord, frozen=True, kw_only=True):
    """What the agent may write, for boxes on SD cards: megabytes a day, and the telemetry spool's size."""

    daily_writes_mb: Positive = 200.0
    spool_mb: Positive = 16.0


class DeviceProfile(StrictRecord, frozen=True, kw_only=True):
    """A device class."""

    name: Name
    board: Board
    engines: Annotated[tuple[EngineName, ...], Meta(min_length=1)]
    model: ModelBudget = ModelBudget()
    governor: GovernorThresholds = GovernorThresholds()
    network: NetworkBudget = NetworkBudget()
    storage: StorageBudget = StorageBudget()


def parse_profile(value: object) -> DeviceProfile:
    """Check a profile read from TOML. Raises ContractError naming the field."""
    profile = convert(value, DeviceProfile, what="profile")
    for name in GovernorThresholds.__struct_fields__:
        threshold = getattr(profile.governor, name)
        if isinstance(threshold, Threshold):
            rising = BY_NAME[name].rises
            low, high = (threshold.conserve, threshold.critical) if rising else (threshold.critical, threshold.conserve)
            if not low < high:  # also true of NaN, which TOML can spell
                order = "above" if rising else "below"
                raise ContractError(f"critical must lie {order} conserve", subject=f"profile.governor.{name}")
    return profile

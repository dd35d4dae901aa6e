"""The plan of a rollout that goes on by itself: `plan.toml`, its steps and its gates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge_contracts.channel import Gates, MaintenanceWindow, RetryRule
from edge_contracts.codec import StrictRecord, convert
from edge_contracts.errors import ContractError
from edge_contracts.names import Name, Text, UtcTime, Version
from edge_contracts.selector import Fact, Selector, check_selectors
from edge_contracts.toml import decode_toml
from edge_fleet.errors import FleetError
from edge_fleet.evidence.gates import FAILURES, gate_rules

Percent = Annotated[float, Meta(gt=0.0, le=100.0)]
Seconds = Annotated[float, Meta(ge=0.0)]
Count = Annotated[int, Meta(ge=1)]


class WaveStep(StrictRecord, frozen=True, kw_only=True, tag="wave", tag_field="kind"):
    """Offer the release to `percent` of the matching devices, or to `count` of those known when the wave begins.

    It is through when every device of it that is online has settled and `at_least` have committed. A device that began
    and says nothing more for `deadline_s` seconds counts as failed. With `strata` (`["board", "tag.site"]`) each kind
    of device has its share of the wave. `soak_s` and `window` are the step's own, where they differ from the plan's.
    """

    percent: Percent | None = None
    count: Count | None = None
    at_least: Count = 1
    deadline_s: Seconds = 86400.0
    strata: Annotated[tuple[Fact, ...], Meta(max_length=3)] = ()
    soak_s: Seconds | None = None
    window: MaintenanceWindow | None = None


class ShadowStep(StrictRecord, frozen=True, kw_only=True, tag="shadow", tag_field="kind"):
    """Let `percent` (or `count`) devices run the release in shadow: they compare its answers and serve none of them."""

    percent: Percent | None = None
    count: Count | None = None
    at_least: Count = 1
    deadline_s: Seconds = 86400.0
    strata: Annotated[tuple[Fact, ...], Meta(max_length=3)] = ()
    soak_s: Seconds | None = None
    window: MaintenanceWindow | None = None


class HoldStep(StrictRecord, frozen=True, kw_only=True, tag="hold", tag_field="kind"):
    """Wait `seconds`, with the gates on."""

    seconds: Seconds


class ApprovalStep(StrictRecord, frozen=True, kw_only=True, tag="approval", tag_field="kind"):
    """Wait until `edgewright fleet rollout approve` was run, by `who` if it names somebody."""

    who: Text | None = None


class AvailabilityRule(StrictRecord, frozen=True, kw_only=True):
    """At most `at_most` devices with the same `group` (`tag.site`) are at work at once. Each has turns of `turn_s`
    seconds, an hour more than the soak if nothing is said; clocks may differ by `margin_s`."""

    group: Annotated[str, Meta(pattern=r"^(board|architecture|tag\.[A-Za-z0-9_.-]{1,64})$")]
    at_most: Count
    turn_s: Annotated[float, Meta(gt=0.0)] | None = None
    margin_s: Seconds = 60.0


Step = WaveStep | ShadowStep | HoldStep | ApprovalStep


class RolloutPlan(StrictRecord, frozen=True, kw_only=True):
    """A rollout and how it goes on.

    `gates` are limits by name (`edge_fleet.evidence.gates`), judged over all devices together: at most `alpha` of the
    rollouts that keep every gate are stopped. If the first `first_devices` all fail, it stops at once. `observe_s` is
    how long a device that has committed is compared with others. `device` are the gates each device judges alone.
    `on_failure` says what stopping means: `abort` brings every device back, `pause` leaves the devices that have it
    alone. `inconclusive` says what a wave does whose failures are above the limit without being enough evidence.
    `retries` are rules by which a device that gave the release up tries it again. `availability` bounds how many
    devices of a site are at work at once.
    """

    channel: Name
    model: Name
    version: Version
    name: Name | None = None
    steps: Annotated[tuple[Step, ...], Meta(min_length=1, max_length=64)]
    gates: Annotated[dict[str, float], Meta(max_length=64)] = msgspec.field(default_factory=lambda: {FAILURES: 0.05})
    alpha: Annotated[float, Meta(gt=0.0, lt=0.5)] = 0.01
    first_devices: Annotated[int, Meta(ge=0, le=100)] = 3
    observe_s: Seconds = 600.0
    on_failure: Literal["abort", "pause"] = "abort"
    inconclusive: Literal["hold", "continue"] = "hold"
    selectors: tuple[Selector, ...] = ()
    device: Gates = Gates()
    window: MaintenanceWindow | None = None
    deadline: UtcTime | None = None
    retries: Annotated[tuple[RetryRule, ...], Meta(max_length=32)] = ()
    availability: AvailabilityRule | None = None

    @property
    def turn_s(self) -> float:
        """How long a turn is where devices take turns, in seconds."""
        asked = None if self.availability is None else self.availability.turn_s
        return asked or max(self.gates_of(step).soak_s for step in self.steps) + 3600.0

    def gates_of(self, step: Step) -> Gates:
        """Return what each device checks alone in a step."""
        soak_s = getattr(step, "soak_s", None)
        return self.device if soak_s is None else msgspec.structs.replace(self.device, soak_s=soak_s)

    def window_of(self, step: Step) -> MaintenanceWindow | None:
        """Return the maintenance window of a step."""
        return getattr(step, "window", None) or self.window


def read_plan(file: Path) -> RolloutPlan:
    """Read `plan.toml`. Raises FleetError if there is no such file, ContractError naming a wrong field."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise FleetError(f"cannot be read: {error.strerror}", subject=str(file)) from error
    return parse_plan(data, str(file))


def parse_plan(data: bytes, what: str) -> RolloutPlan:
    """Parse a plan's TOML. Raises ContractError naming `what` and the field."""
    plan = convert(decode_toml(data, what=what), RolloutPlan, what=what)
    check_plan(plan)
    return plan


def check_plan(plan: RolloutPlan) -> None:
    """Raise ContractError for gates that are none and for steps that do not follow from one another."""
    gate_rules(plan.gates)
    check_selectors(plan.selectors, what="selectors")
    live = False
    widest = 0.0
    for number, step in enumerate(plan.steps, start=1):
        subject = f"steps.{number}"
        if isinstance(step, WaveStep | ShadowStep):
            if (step.percent is None) == (step.count is None):
                raise ContractError("give either percent or count", subject=subject)
            if isinstance(step, ShadowStep) and live:
                raise ContractError("a shadow cannot follow a wave: those devices serve the release", subject=subject)
            live = live or isinstance(step, WaveStep)
            if step.percent is not None:
                if isinstance(step, WaveStep) and step.percent < widest:
                    raise ContractError(f"{step.percent:g} % is less than a wave before it", subject=subject)
                widest = max(widest, step.percent if isinstance(step, WaveStep) else 0.0)
    if not isinstance(plan.steps[0], WaveStep | ShadowStep):
        raise ContractError("the first step is a wave or a shadow", subject="steps.1")
    soak_s = max(plan.gates_of(step).soak_s for step in plan.steps)
    if plan.availability is not None and plan.turn_s <= soak_s + 2 * plan.availability.margin_s:
        text = f"a turn of {plan.turn_s:g} s must hold the soak of {soak_s:g} s and two margins"
        raise ContractError(text, subject="availability.turn_s")
    if not live:
        raise ContractError("no wave: the release would never serve", subject="steps")

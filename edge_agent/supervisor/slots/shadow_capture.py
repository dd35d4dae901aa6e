"""What a slot does beside answering: a shadow for a candidate that waits, and captures for the operator.

Both give way when the box is short of anything. The shadow's process is looked after in
`edge_agent.supervisor.slots.shadow_controller`, the day's captures in `edge_agent.supervisor.slots.capture_quota`; the
slot passes on what the worker is to take aside.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_agent.answer_comparison import refusal, words
from edge_agent.config.agent_toml import SlotConfig
from edge_agent.device_event import DeviceEvent
from edge_agent.host.governor import Readings
from edge_agent.ipc.shadow import ShadowPlan
from edge_agent.ipc.worker import TapSettings
from edge_agent.storage.state_dir import StateFolder
from edge_agent.supervisor.slots.capture_quota import CaptureQuota
from edge_agent.supervisor.slots.ladder_source import FactoryBundle, candidate_rung, serving_folder
from edge_agent.supervisor.slots.shadow_controller import ShadowController
from edge_agent.update.events import UpdateFailed
from edge_agent.update.record import UpdateRecord
from edge_contracts.profile import DeviceProfile


class SlotTaps:
    """See the module. Used on the supervisor's event loop; `clock` gives seconds since the epoch."""

    def __init__(
        self,
        config: SlotConfig,
        profile: DeviceProfile,
        clock: Callable[[], float],
        tell: Callable[[DeviceEvent], None],
    ) -> None:
        self.shadowing = ShadowController(config.name, tell)
        self.capturing = CaptureQuota(config.capture, clock)
        self._profile = profile
        self._tell = tell

    def allow(self, readings: Readings, *, calm: bool) -> None:
        """Say how the box is."""
        self.shadowing.allow(readings, calm=calm)
        self.capturing.allow(readings, calm=calm)

    def tick(
        self, record: UpdateRecord, config: SlotConfig, factory: FactoryBundle | None, state: StateFolder, captured: int
    ) -> TapSettings:
        """Return what the worker is to take aside now. `captured` is what all workers have written in bytes. To be
        called about once a second."""
        self.shadowing.tick(self._plan(record, config, factory, state), config.shadow)
        self.capturing.count(captured)
        share = config.shadow.share if self.shadowing.watches else 0.0
        return TapSettings(shadow=share, capture=self.capturing.allowed)

    def judge(self, record: UpdateRecord) -> UpdateFailed | None:
        """Return why the candidate must not go live, if its shadow has shown that."""
        candidate, counts = record.candidate, self.shadowing.totals
        if record.state != "shadow" or candidate is None or counts is None:
            return None
        reason = refusal(candidate.gates, counts)
        if reason is None or counts.manifest_sha256 != candidate.manifest_sha256:
            return None
        self._tell(DeviceEvent(event="shadow-refused", severity="warning", slot=record.slot, text=words(counts)))
        return UpdateFailed(reason=reason)

    def _plan(
        self, record: UpdateRecord, config: SlotConfig, factory: FactoryBundle | None, state: StateFolder
    ) -> ShadowPlan | None:
        """Return what a shadow runs: the candidate's best variant that passed its trial. None for no shadow."""
        served = serving_folder(record, factory, state)
        if record.state != "shadow" or not config.shadow.share or served is None:
            return None
        model = self._profile.model
        return ShadowPlan(
            rung=candidate_rung(record, state),
            served=str(served),
            threads=config.threads or model.threads,
            cache=str(state.cache),
            memory_limit_mb=config.memory_mb or model.memory_mb,
        )

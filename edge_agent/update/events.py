"""What can happen to the update of a slot. What follows from it is the table in `edge_agent.update.state_machine`."""

from __future__ import annotations

from edge_agent.update.record import CandidateRelease
from edge_contracts.codec import StrictRecord


class Wished(StrictRecord, frozen=True, kw_only=True):
    """A signed channel names this release for the device. `retry`: by a rule of the channel's it is to be tried again
    here under the same document."""

    candidate: CandidateRelease
    retry: bool = False


class Withdrawn(StrictRecord, frozen=True, kw_only=True):
    """A signed document forbids this manifest from now on: its rollout was aborted or the release revoked."""

    manifest_sha256: str
    reason: str


class Held(StrictRecord, frozen=True, kw_only=True):
    """A new start has to wait: the rollout is paused, its deadline has passed, or the governor is careful."""

    reason: str


class Began(StrictRecord, frozen=True, kw_only=True):
    """The updater has begun to check the candidate against the device. `facts` names what it has found there."""

    facts: str = ""


class Fits(StrictRecord, frozen=True, kw_only=True):
    """The device has what the candidate needs; its first byte may be fetched."""


class Downloaded(StrictRecord, frozen=True, kw_only=True):
    """Every file is on disk, verified and durable. Deltas spared fetching `saved` bytes."""

    saved: int = 0


class TrialBegan(StrictRecord, frozen=True, kw_only=True):
    """The throw-away process that tries the candidate has started."""


class TrialPassed(StrictRecord, frozen=True, kw_only=True):
    """These variants passed on this device, in ladder order."""

    usable: tuple[str, ...]


class ShadowPassed(StrictRecord, frozen=True, kw_only=True):
    """Nothing stands between the candidate and live answers."""


class Crashed(StrictRecord, frozen=True, kw_only=True):
    """The worker that serves the uncommitted release died, hung or could not start."""

    reason: str


class GateFailed(StrictRecord, frozen=True, kw_only=True):
    """A gate of the rollout does not hold on this device."""

    reason: str


class Soaked(StrictRecord, frozen=True, kw_only=True):
    """The soak is over and every gate holds."""


class TurnOver(StrictRecord, frozen=True, kw_only=True):
    """The device's turn among those of its group has passed before the release was proved."""


class UpdateFailed(StrictRecord, frozen=True, kw_only=True):
    """The candidate cannot be had or does not do here: preflight, trust, damage, trial."""

    reason: str


class Interrupted(StrictRecord, frozen=True, kw_only=True):
    """Bytes did not arrive; the attempt goes on later from where it stopped."""

    reason: str


class Restarted(StrictRecord, frozen=True, kw_only=True):
    """The agent started and found this record; `clean` if it had been stopped in order, `power_cut` if the kernel has
    started anew since it ran."""

    clean: bool
    power_cut: bool = False


class Shifted(StrictRecord, frozen=True, kw_only=True):
    """The wall clock was set by `stepped_s` seconds, and for `lost_s` the agent did not run: points of time follow."""

    stepped_s: float = 0.0
    lost_s: float = 0.0


class Expired(StrictRecord, frozen=True, kw_only=True):
    """Time to look at the state's deadline."""


Event = (
    Wished
    | Withdrawn
    | Held
    | Began
    | Fits
    | Downloaded
    | TrialBegan
    | TrialPassed
    | ShadowPassed
    | Crashed
    | GateFailed
    | Soaked
    | TurnOver
    | UpdateFailed
    | Interrupted
    | Restarted
    | Shifted
    | Expired
)

"""What is kept of a slot's update across restarts, and the limits on its states. The transitions are in `update`."""

from __future__ import annotations

from typing import Literal

from edge_contracts.channel import Gates, MaintenanceWindow
from edge_contracts.codec import Record
from edge_contracts.names import Name, Sha256, Version
from edge_contracts.state import Installed, UpdateState
from edge_contracts.turns import DeviceTurn

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S

DEADLINES_S: dict[UpdateState, float] = {
    "offered": DAY_S,
    "preflight": HOUR_S,
    "downloading": 7 * DAY_S,
    "verified": 8 * DAY_S,
    "trial": HOUR_S,
    "shadow": 30 * DAY_S,
}
"""How long a state may last, in seconds. `downloading` is for a link of a few bytes a second; `verified` waits for a
maintenance window, which may be weekly; `shadow` for its rollout to turn live. `active` is set from the gates."""

SOAK_GRACE_S = DAY_S
"""How long beyond `gates.soak_s` a soak may wait for `gates.min_requests`."""

MAX_ATTEMPTS = 10
"""Deadlines a candidate may miss before it is rejected; each attempt goes on from the last one's chunks."""

MAX_TRIALS = 3
"""Trials that may end with the whole agent dying: a release that takes the box down is not tried for ever."""

MAX_UNCLEAN_STARTS = 2
"""Starts of the agent after an end without a stop that one soak may see."""

MAX_REBOOTS = 8
"""Restarts of the whole device without a stop that one soak may see. That power fails is no release's fault; but one
that takes the kernel down with it, or asks too much of a weak power supply, must not do so for ever."""

MAX_REJECTED = 16
"""Rejected manifests remembered per channel serial; a channel names two."""


class CandidateRelease(Record, frozen=True, kw_only=True):
    """The release a signed channel wants here, with the rules of its rollout. `again`: another serial lets a release
    that was rejected here try again. `paused`: nothing new begins, a trial neither."""

    model: Name
    version: Version
    manifest_sha256: Sha256
    channel: Name
    serial: int
    rollout: Name | None = None
    again: bool = True
    mode: Literal["shadow", "live"] = "live"
    gates: Gates = Gates()
    window: MaintenanceWindow | None = None
    turn: DeviceTurn | None = None
    paused: bool = False


class UpdateRecord(Record, frozen=True, kw_only=True):
    """Where a slot is. Times in seconds since the epoch.

    `serving` is the release answers come from (None: the factory bundle, if there is one); `committed` says it has
    come through its soak. `last_good` is what a roll back returns to. `usable` are the variants that passed their trial
    on this device, per manifest. `rejected` manifests are not tried again until the channel's `serial` changes, and
    then only if the channel wants that of this device.
    `crashes` count worker crashes since the activation, `starts` unclean starts of the agent, and `reboots` those after
    a restart of the whole device. `saved` are the bytes of the candidate that deltas spared fetching.

    `facts` names the facts about the device under which the candidate was checked. A candidate that the device itself
    refused (preflight, trial) is in `refused_under` with them: it is tried again once they are others. `retried` counts
    how often a manifest was tried again by a rule of the channel's under this serial.
    """

    slot: Name
    state: UpdateState = "idle"
    reason: str | None = None
    since: float = 0.0
    deadline: float | None = None
    serving: Installed | None = None
    committed: bool = True
    last_good: Installed | None = None
    candidate: CandidateRelease | None = None
    usable: dict[Sha256, tuple[str, ...]] = {}
    serial: int = 0
    rejected: tuple[Sha256, ...] = ()
    crashes: int = 0
    starts: int = 0
    reboots: int = 0
    attempts: int = 0
    trials: int = 0
    saved: int = 0
    facts: str = ""
    refused_under: dict[Sha256, str] = {}
    retried: dict[Sha256, int] = {}

    @property
    def manifests(self) -> frozenset[str]:
        """The manifests whose folders must stay on the device. A candidate that was given up gives its bytes back."""
        last_good = () if self.last_good is None else (self.last_good.manifest_sha256,)
        return self.running.union(last_good)

    @property
    def running(self) -> frozenset[str]:
        """The manifests that are served or on their way."""
        settled = self.state in ("rejected", "rolled_back")
        releases = (self.serving, None if settled else self.candidate)
        return frozenset(release.manifest_sha256 for release in releases if release is not None)

    @property
    def ready(self) -> frozenset[str]:
        """The manifests of which every byte is on the device and in use."""
        releases = [self.serving]
        if self.state in ("verified", "trial", "shadow", "active", "committed"):
            releases.append(None if self.candidate is None else installed(self.candidate))
        return frozenset(release.manifest_sha256 for release in releases if release is not None)


def installed(candidate: CandidateRelease) -> Installed:
    """Return the candidate as the release it is."""
    return Installed(version=candidate.version, manifest_sha256=candidate.manifest_sha256)

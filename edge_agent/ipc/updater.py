"""What the supervisor asks of the updater and what the updater says while it works: JSON lines on its standard output.

The updater decides nothing about a slot's state; it reports, and the supervisor advances the record. The process is in
`edge_agent.updater`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edge_agent.config.agent_toml import BrokerConfig
from edge_agent.update.record import CandidateRelease
from edge_contracts.codec import StrictRecord
from edge_contracts.state import Installed


class SlotPlan(StrictRecord, frozen=True, kw_only=True):
    """A slot with a channel: what it serves or is installing, of which of these every byte is here (`ready`), and what
    it will not have again under which serial; of these, `refused_under` names the facts about the device that a refusal
    depended on, `retried` counts how often each was tried again by a rule, and `reason` and `since` (seconds since
    1970) are those of the newest. `installed` are the releases it keeps, of which `damaged` are not
    what their manifests pin. `factory` is the folder of its factory bundle, if it has one."""

    slot: str
    channel: str
    running: tuple[str, ...] = ()
    ready: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    serial: int = 0
    refused_under: dict[str, str] = {}
    retried: dict[str, int] = {}
    reason: str | None = None
    since: float = 0.0
    installed: tuple[Installed, ...] = ()
    damaged: tuple[str, ...] = ()
    factory: str | None = None


NO_PLACE = "no-place"
"""The reason of a start that waits because the rollout's roster has no place for the device yet."""

GOVERNOR = "governor"
"""The reason of a start that waits for level NORMAL."""


class UpdatePlan(StrictRecord, frozen=True, kw_only=True):
    """Everything an updater is told, as one JSON argument. `directory` is an exported repository to read instead of
    the network. `may_install` False looks, but starts nothing new; what is damaged is repaired even so. `verify` looks
    at every byte of the installed releases first. `announced` is a timestamp version that somebody hinted at, 0 for
    none."""

    state: str
    root: str
    device: str
    tenant: str
    tags: dict[str, str] = {}
    profile: str
    slots: tuple[SlotPlan, ...]
    broker: BrokerConfig | None = None
    http: str | None = None
    directory: str | None = None
    timeout_s: float = 30.0
    may_install: bool = True
    verify: bool = False
    announced: int = 0


class Trusted(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="trusted"):
    """The metadata verified; its versions by role. `facts` are those of the device that selectors compare."""

    versions: dict[str, int]
    facts: dict[str, str] = {}


class Offer(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="offer"):
    """The signed wish for the slot. `retry`: a rule of the channel's lets what was given up here be tried again."""

    slot: str
    candidate: CandidateRelease
    retry: bool = False


class Hold(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="hold"):
    """A new start has to wait: of `version`, where it is the governor that holds it."""

    slot: str
    reason: str
    version: str = ""


class Withdraw(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="withdraw"):
    """The manifest must go from the slot."""

    slot: str
    manifest_sha256: str
    reason: str


class Checking(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="checking"):
    """Preflight of the offered candidate begins, under facts about the device of this name."""

    slot: str
    facts: str = ""


class Fetching(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="fetching"):
    """Preflight passed; bytes are being fetched. Repeated with the progress."""

    slot: str
    done: int
    total: int


class DeltaUsed(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="delta-used"):
    """A file was made from one that was here: `fetched` bytes of delta spared fetching `spared` bytes more."""

    slot: str
    path: str
    fetched: int
    spared: int


class DeltaUnused(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="delta-unused"):
    """A delta, or their list, was of no use, and why; what it was for is fetched whole."""

    slot: str
    path: str
    reason: str
    text: str


class Stored(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="stored"):
    """The candidate is on disk, verified and durable. Deltas spared fetching `saved` bytes in this attempt."""

    slot: str
    saved: int = 0


class Damaged(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="damaged"):
    """An installed release is not what its manifest pins; what is wrong is being fetched."""

    slot: str
    manifest_sha256: str
    text: str


class Repaired(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="repaired"):
    """An installed release is what its manifest pins, by `fetched` bytes that came anew."""

    slot: str
    manifest_sha256: str
    fetched: int = 0


class CarrierFailed(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="carrier-failed"):
    """One of several carriers brought nothing, or what does not verify; the next one is asked."""

    carrier: str
    reason: str
    text: str


Fault = Literal["trust", "device", "bundle", "transport", "operator"]


class Trouble(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="trouble"):
    """It did not work, and by whose fault. Transport is tried again; for a candidate, everything else is final.
    Without a slot the metadata as a whole is meant."""

    fault: Fault
    reason: str
    text: str
    slot: str | None = None


FromUpdater = (
    Trusted
    | Offer
    | Hold
    | Withdraw
    | Checking
    | Fetching
    | DeltaUsed
    | DeltaUnused
    | Stored
    | Damaged
    | Repaired
    | CarrierFailed
    | Trouble
)

_decoder: msgspec.json.Decoder[FromUpdater] = msgspec.json.Decoder(FromUpdater)


def parse_from_updater(data: bytes) -> FromUpdater:
    """Parse one line of an updater. Raises msgspec.MsgspecError: the peer is our own process, so it is a bug."""
    return _decoder.decode(data)

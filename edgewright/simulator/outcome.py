"""What a simulation found: the numbers, and how those of its processes add up. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from msgspec import field

from edge_contracts.codec import Record
from edgewright.simulator.words import Tally, Unavailable


class CpuSeconds(Record, frozen=True, kw_only=True):
    """CPU time that the services took for the rollout, in seconds; None for a broker that is not ours. `devices` is
    what the simulated devices themselves took."""

    controller: float
    depot: float
    broker: float | None
    devices: float


class CurvePoint(Record, frozen=True, kw_only=True):
    """The fleet `seconds` after the rollout began."""

    seconds: float
    committed: int
    failed: int
    bearing: int
    reverted: int
    connected: int


class Outcome(Record, frozen=True, kw_only=True):
    """How a simulated rollout went.

    `committed` devices serve the release at the end, `failed` gave it up by themselves, `reverted` served it and went
    back. `halted`: the controller stopped the rollout, because of `why`. `availability_violations` counts how often
    more devices of a group than `at_most` changed what they serve at once (`most_at_once` is the most there were).
    `signed_documents` are channel documents signed for the rollout, `waves` the steps that offered it to more devices.
    Bytes are MQTT packets without TCP, messages PUBLISHes, both directions, from the first connection to the end.
    """

    devices: int
    committed: int
    failed: int
    halted: bool
    why: str
    reverted: int
    availability_violations: int
    at_most: int | None
    most_at_once: int
    signed_documents: int
    waves: int
    seconds: float
    bytes_per_device: float
    messages_per_device: float
    windows_stored: int
    windows_sent: int
    asked_again: int
    lost_connections: int
    refused: dict[str, int]
    release_bytes: int
    cpu_s: CpuSeconds
    curve: tuple[CurvePoint, ...] = field(default_factory=tuple)


def added(tallies: Iterable[Tally]) -> Tally:
    """Return the numbers of all processes together."""
    total: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for tally in tallies:
        refused.update(tally.refused)
        for name in Tally.__struct_fields__:
            if name != "refused":
                total[name] += getattr(tally, name)
    return Tally(**total, refused=dict(refused))


class GroupWatch:
    """Counts how many devices of each group are busy with changing what they serve."""

    def __init__(self, at_most: int | None) -> None:
        """`at_most` devices of a group may be so at once; None: any number."""
        self.violations = 0
        self.most = 0
        self._at_most = at_most
        self._now: Counter[str] = Counter()

    def take(self, words: Iterable[Unavailable]) -> None:
        """Take in what happened, in the order of time; who settles at the same moment makes room first."""
        for word in sorted(words, key=lambda word: (word.at, word.by)):
            self._now[word.group] += word.by
            self.most = max(self.most, self._now[word.group])
            if word.by > 0 and self._at_most is not None and self._now[word.group] > self._at_most:
                self.violations += 1

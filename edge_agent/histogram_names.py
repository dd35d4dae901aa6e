"""The histograms of a tag: what they are called, what they take of a telemetry window, and how many a slot may have.

A request's tag says where its samples come from: a camera, a machine, a shift. It is whatever a client sends, so
nothing here grows with the number of tags. Counting is in `edge_agent.inference.histograms`.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct, field

from edge_contracts.limits import MAX_SAMPLE_TAG_BYTES, MAX_SAMPLE_TAG_CHARS, MAX_SAMPLE_TAGS
from edge_contracts.manifest import Manifest
from edge_contracts.reference import Feature

OTHER = "other"
"""The tag under which all those are counted for which there is no room."""

MARK = "@"


def tagged(name: str, tag: str) -> str:
    """Return the name of a tag's own histogram, such as `x/mean@line-2`."""
    return f"{name}{MARK}{tag}"


def parted(name: str) -> tuple[str, str]:
    """Return the name of a histogram without its tag, and the tag, empty for one of all requests."""
    base, _, tag = name.rpartition(MARK)
    # A tensor's name may hold the mark as well; but a slash follows that, and a tag has none.
    return (base, tag) if base and "/" not in tag else (name, "")


def window_bytes(name: str, bins: int) -> int:
    """Return the most that a tag's histogram takes of a telemetry window, with its distance from the reference: the
    name twice, five digits a bin, and JSON around them."""
    return 2 * (len(msgspec.json.encode(name)) + len(MARK) + MAX_SAMPLE_TAG_CHARS) + 6 * bins + 20


class TagSlots(Struct, kw_only=True):
    """What of the tags one window keeps apart, whichever tags and releases the workers of its time have met."""

    tags: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    room: int = (MAX_SAMPLE_TAGS + 1) * MAX_SAMPLE_TAG_BYTES

    def place(self, name: str, bins: int) -> str | None:
        """Return the name under which a worker's histogram is added up: its own, for a tag too many that of `OTHER`,
        and None where the window is full. One of all requests always has its place."""
        base, tag = parted(name)
        if not tag or name in self.names:
            return name
        if tag != OTHER and tag not in self.tags:
            if len(self.tags) >= MAX_SAMPLE_TAGS:
                return self.place(tagged(base, OTHER), bins)
            self.tags.add(tag)
        size = window_bytes(base, bins)
        if size > self.room:
            return None
        self.room -= size
        self.names.add(name)
        return name


def feature_name(feature: Feature) -> str:
    """Return the name under which a feature of the inputs is counted."""
    return f"{feature.input}/{feature.statistic if feature.index is None else feature.index}"


def references(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    """Return the counts a release was made with, under the names that a device counts by."""
    features = () if manifest.reference is None else manifest.reference.features
    found = {feature_name(feature): feature.histogram.counts for feature in features}
    for variant in manifest.variants:
        reference = variant.reference
        if reference is None:
            continue
        for name, histogram in (("confidence", reference.confidence), ("value", reference.value)):
            if histogram is not None:
                found[f"{variant.id}/{name}"] = histogram.counts
        if reference.classes:
            found[f"{variant.id}/class"] = reference.classes
    return found

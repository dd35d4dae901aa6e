"""The fallback ladder: which variants of which releases answer, in which order. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Manifest

Role = Literal["active", "last-good", "factory", "local"]


class LadderRelease(Struct, frozen=True, kw_only=True):
    """A release as the ladder sees it. `usable` are the variants that came through the trial, None if all may be."""

    role: Role
    folder: str
    manifest_sha256: str
    manifest: Manifest
    usable: tuple[str, ...] | None = None


def build_ladder(releases: Sequence[LadderRelease]) -> tuple[Rung, ...]:
    """Return the rungs of the given releases, best first: every usable variant of the first release, then the first
    usable one of each other release. A release that appears again under another role gives no second rung."""
    rungs: list[Rung] = []
    seen: set[str] = set()
    for index, release in enumerate(releases):
        if release.manifest_sha256 in seen:
            continue
        seen.add(release.manifest_sha256)
        variants = [
            variant.id
            for variant in release.manifest.variants
            if release.usable is None or variant.id in release.usable
        ]
        rungs.extend(_rung(release, variant) for variant in (variants if index == 0 else variants[:1]))
    return tuple(rungs)


def _rung(release: LadderRelease, variant: str) -> Rung:
    return Rung(
        role=release.role,
        folder=release.folder,
        version=release.manifest.version,
        manifest_sha256=release.manifest_sha256,
        variant=variant,
    )


class Rung(StrictRecord, frozen=True, kw_only=True):
    """One place to get an answer from: a variant of a release unpacked in `folder`. `role` is why it is on the ladder;
    `served_by` is how answers name it: "<role>:<version>/<variant>"."""

    role: Literal["active", "last-good", "factory", "local"]
    folder: str
    version: str
    manifest_sha256: str
    variant: str

    @property
    def served_by(self) -> str:
        return f"{self.role}:{self.version}/{self.variant}"

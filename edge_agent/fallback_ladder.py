"""The fallback ladder: which variants of which releases answer, in which order, and which of them costs least. Pure.

The order is the bundle's preference, never its costs: the last variant of a bundle is often the float original, the
safest one and the heaviest. What costs least is said by what was measured where the bundle was made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal

from msgspec import Struct

from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Manifest, Variant
from edge_contracts.readings import Shortage

Role = Literal["active", "last-good", "factory", "local"]

ABSTAIN = "last-resort/abstain"
"""Who is said to answer where no model can and nothing is declared instead."""

ALIKE = 1.05
"""Figures within this ratio are taken as equal: two measurements of one variant differ by as much."""


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
            variant for variant in release.manifest.variants if release.usable is None or variant.id in release.usable
        ]
        rungs.extend(_rung(release, variant) for variant in (variants if index == 0 else variants[:1]))
    return tuple(rungs)


def lightest(rungs: Sequence[Rung], shortages: Collection[Shortage]) -> Rung | None:
    """Return which of the first release's rungs to serve from while these are short; None of an empty ladder.

    It is the one with the least latency where compute is short, with the least memory where memory is, with the least
    product of both where both are. A figure that not every variant has is replaced by the bytes of the model. Of those
    that are as light as the lightest, within `ALIKE`, the most preferred is taken, so a ladder whose first rung is the
    lightest stays as it is. Without a shortage that is the first rung.
    """
    own = [rung for rung in rungs if rung.manifest_sha256 == rungs[0].manifest_sha256]
    if not own:
        return None
    costs = [1.0] * len(own)
    for figures in _figures(own, shortages):
        costs = [cost * figure for cost, figure in zip(costs, figures, strict=True)]
    least = min(costs)
    return next(rung for rung, cost in zip(own, costs, strict=True) if cost <= least * ALIKE)


def _figures(own: Sequence[Rung], shortages: Collection[Shortage]) -> Iterator[list[float]]:
    """Yield, for each shortage, what each rung costs of it."""
    measured: dict[Shortage, list[float | None]] = {
        "compute": [rung.latency_ms for rung in own],
        "memory": [rung.memory_mb for rung in own],
    }
    for shortage, figures in measured.items():
        if shortage in shortages:
            known = [figure for figure in figures if figure is not None]
            yield known if len(known) == len(own) else [float(rung.model_bytes) for rung in own]


def _rung(release: LadderRelease, variant: Variant) -> Rung:
    return Rung(
        role=release.role,
        folder=release.folder,
        version=release.manifest.version,
        manifest_sha256=release.manifest_sha256,
        variant=variant.id,
        latency_ms=variant.latency_ms,
        memory_mb=variant.peak_memory_mb,
        model_bytes=variant.size,
    )


class Rung(StrictRecord, frozen=True, kw_only=True):
    """One place to get an answer from: a variant of a release unpacked in `folder`. `role` is why it is on the ladder;
    `served_by` is how answers name it: "<role>:<version>/<variant>". The costs are the manifest's figures of it, None
    where it was not measured."""

    role: Literal["active", "last-good", "factory", "local"]
    folder: str
    version: str
    manifest_sha256: str
    variant: str
    latency_ms: float | None = None
    memory_mb: float | None = None
    model_bytes: int = 0

    @property
    def served_by(self) -> str:
        return f"{self.role}:{self.version}/{self.variant}"

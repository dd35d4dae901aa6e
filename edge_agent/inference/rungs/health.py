"""The fallback ladder: which places an answer can come from, in what order, and when a failed one is tried again.

Pure: time is an argument. Loading and running the rungs is in `edge_agent.inference.runtime`.

    active release's usable variants → last-good's first usable → factory's first usable → the declared last resort
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from edge_agent.fallback_ladder import Rung

PATIENCE = 3
"""Failures in a row before a rung is avoided: one bad request must not demote a good model."""

FIRST_REST_S = 1.0
LONGEST_REST_S = 300.0
"""A rung that failed rests this long, doubling each time it fails again right after: a load costs seconds of CPU."""


class Health(Struct, frozen=True, kw_only=True):
    """One rung's recent past: failures in a row, and until when it rests (on the caller's clock, seconds). `hard`: it
    could not be loaded."""

    failures: int = 0
    rest_until: float = 0.0
    rests: int = 0
    hard: bool = False


WELL = Health()


def failed(health: Health, now: float, *, hard: bool) -> Health:
    """Return the health after a failure; `hard` means it could not even be loaded and rests at once."""
    failures = health.failures + 1
    if not hard and failures < PATIENCE:
        return Health(failures=failures, rests=health.rests)
    rest = min(FIRST_REST_S * 2.0**health.rests, LONGEST_REST_S)
    # After its rest a rung is on probation: the next failure sends it back at once, for longer.
    return Health(failures=PATIENCE - 1, rest_until=now + rest, rests=min(health.rests + 1, 32), hard=hard)


def preferred_order(ladder: Sequence[Rung], variant: str | None) -> tuple[int, ...]:
    """Return the order in which rungs are tried: the preferred variant of the first release comes first, then the rest
    of that release in the ladder's order, then the other releases.

    The order says what is preferred and not what is lighter, so it is kept for what a preferred variant falls back to.
    None, or a variant that is not on the ladder, leaves the ladder's own order.
    """
    if not ladder:
        return ()
    own = [index for index, rung in enumerate(ladder) if rung.manifest_sha256 == ladder[0].manifest_sha256]
    start = next((index for index in own if ladder[index].variant == variant), own[0])
    return (start, *(index for index in range(len(ladder)) if index != start))


def walk(order: Sequence[int], health: Sequence[Health], now: float) -> Iterator[int]:
    """Yield the rungs to try for one request, in order, leaving out those that rest."""
    for index in order:
        if health[index].rest_until <= now:
            yield index

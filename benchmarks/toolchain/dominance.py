"""When one model file is better than another in every way that is measured: the arithmetic of `compress_peers.py`.

Pure: measured files in, verdicts out. `peer_table.py` writes them down.
"""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_compression.evaluation.quality import QualityRequest, compare

Kind = Literal["float", "ours", "peer"]

NOISE = 0.03
"""Medians of interleaved rounds that differ by less are the same latency; so are those that differ by more in one
process and not in another: processes of one and the same file differ by up to a tenth."""

DIGITS = 5
"""Of a latency that is written down."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One file of a task: its first output for all evaluation samples, bytes, and for each time it was loaded the
    median latency in milliseconds of each round, in which all files of the task took turns."""

    name: str
    kind: Kind
    answers: NDArray[Any]
    size: int
    rounds: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Jury:
    """What the files of a task are compared on."""

    metric: str
    y: NDArray[Any]

    def points(self, a: Contender, b: Contender) -> dict[str, float]:
        """Return how many points `a` loses against `b` on the same samples, with the paired 95 % interval."""
        found = compare(QualityRequest(metric=self.metric, limit=0.0), a.answers, b.answers, self.y)
        return {"drop": found.drop, "low": found.drop_interval.low, "high": found.drop_interval.high}

    def stands_for(self, a: Contender, b: Contender) -> bool:
        """Return whether `a` is nowhere worse than `b`: accuracy beyond paired noise, latency beyond `NOISE`, bytes."""
        return a.size <= b.size and not faster(b, a) and self.points(a, b)["low"] <= 0.0

    def dominates(self, a: Contender, b: Contender) -> bool:
        """Return whether `a` is nowhere worse than `b` and somewhere better."""
        if not self.stands_for(a, b):
            return False
        return a.size < b.size or faster(a, b) or self.points(a, b)["high"] < 0.0


def ratio(a: Contender, b: Contender) -> float:
    """Return the median over all rounds of the ratio of two files' latencies."""
    return statistics.median(itertools.chain.from_iterable(_ratios(a, b)))


def faster(a: Contender, b: Contender) -> bool:
    """Return whether `a` is faster beyond `NOISE` each time they were loaded, by the medians of the rounds' ratios."""
    return all(statistics.median(ratios) < 1.0 / (1.0 + NOISE) for ratios in _ratios(a, b))


def _ratios(a: Contender, b: Contender) -> list[list[float]]:
    """Return the ratio of latencies in each round, a list for each load."""
    loads = zip(a.rounds, b.rounds, strict=True)
    return [[own / other for own, other in zip(*load, strict=True)] for load in loads]


def judged(files: list[Contender], jury: Jury) -> list[dict[str, Any]]:
    """Return one record a file: what it is worth beside the float original, which comes first, which opponents
    dominate it and which stand for it."""
    original = files[0]
    return [
        {
            "name": one.name,
            "kind": one.kind,
            "bytes": one.size,
            "rounds_ms": [[float(f"{value:.{DIGITS}g}") for value in load] for load in one.rounds],
            "latency": ratio(one, original),
            "share": one.size / original.size,
            **jury.points(one, original),
            "finite": bool(np.isfinite(one.answers).all()),
            "dominated_by": [other.name for other in opponents(one, files) if jury.dominates(other, one)],
            "matched_by": [other.name for other in opponents(one, files) if jury.stands_for(other, one)],
        }
        for one in files
    ]


def opponents(one: Contender, files: list[Contender]) -> list[Contender]:
    """Return the files of the other side; the original has none."""
    return [other for other in files if {one.kind, other.kind} == {"ours", "peer"}]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the files of a task show. `beaten_by`: peers that dominate a rung and that no rung stands for, so that the
    front would be better with them. `undominated`: peers' files that no rung dominates. `champions`: rungs that
    dominate every peer's file alone."""

    peers: int
    beaten_by: tuple[str, ...]
    undominated: tuple[str, ...]
    champions: tuple[str, ...]


def verdict(files: list[dict[str, Any]]) -> Verdict:
    """Return what the records of a task's files show."""
    rungs = [one for one in files if one["kind"] == "ours"]
    peers = [one for one in files if one["kind"] == "peer"]
    winners = {name for one in rungs for name in one["dominated_by"]}
    return Verdict(
        peers=len(peers),
        beaten_by=tuple(one["name"] for one in peers if one["name"] in winners and not one["matched_by"]),
        undominated=tuple(one["name"] for one in peers if not one["dominated_by"]),
        champions=tuple(
            rung["name"] for rung in rungs if peers and all(rung["name"] in one["dominated_by"] for one in peers)
        ),
    )

"""When one model file is better than another in every way that is measured: the arithmetic of `compress_peers.py`.

Pure: measured files in, verdicts and a table out.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_compression.evaluate import Question, compare

Kind = Literal["float", "ours", "peer"]

NOISE = 0.03
"""Medians of interleaved rounds that differ by less are the same latency."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One file of a task: its first output for all evaluation samples, bytes, and the median latency in milliseconds
    of each round, in which all files of the task took turns."""

    name: str
    kind: Kind
    answers: NDArray[Any]
    size: int
    rounds: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Jury:
    """What the files of a task are compared on."""

    metric: str
    y: NDArray[Any]

    def points(self, a: Contender, b: Contender) -> dict[str, float]:
        """Return how many points `a` loses against `b` on the same samples, with the paired 95 % interval."""
        found = compare(Question(metric=self.metric, limit=0.0), a.answers, b.answers, self.y)
        return {"drop": found.drop, "low": found.drop_interval.low, "high": found.drop_interval.high}

    def dominates(self, a: Contender, b: Contender) -> bool:
        """Return whether `a` is nowhere worse than `b` and somewhere better: accuracy beyond paired noise, median
        latency beyond `NOISE`, bytes."""
        points, pace = self.points(a, b), ratio(a, b)
        nowhere_worse = points["low"] <= 0.0 and pace <= 1.0 + NOISE and a.size <= b.size
        return nowhere_worse and (points["high"] < 0.0 or pace < 1.0 - NOISE or a.size < b.size)


def ratio(a: Contender, b: Contender) -> float:
    """Return the median over the rounds of the ratio of two files' latencies."""
    return statistics.median(own / other for own, other in zip(a.rounds, b.rounds, strict=True))


def judged(files: list[Contender], jury: Jury) -> list[dict[str, Any]]:
    """Return one record a file: what it is worth beside the float original, which comes first, and who dominates it."""
    original = files[0]
    return [
        {
            "name": one.name,
            "kind": one.kind,
            "bytes": one.size,
            "rounds_ms": list(one.rounds),
            "latency": ratio(one, original),
            "share": one.size / original.size,
            **jury.points(one, original),
            "finite": bool(np.isfinite(one.answers).all()),
            "dominated_by": [
                other.name for other in files if _opponents(one.kind, other.kind) and jury.dominates(other, one)
            ],
        }
        for one in files
    ]


def _opponents(a: Kind, b: Kind) -> bool:
    return {a, b} == {"ours", "peer"}


def table(tasks: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a Markdown table: every file of every task, then for each task the two answers asked for."""
    lines = [
        "| task | file | points lost | 95 % | x bytes | x latency | dominated by |",
        "|---|---|---|---|---|---|---|",
    ]
    for task in tasks:
        for one in task["files"]:
            cells = [
                task["task"],
                one["name"] if one["kind"] == "peer" else f"**{one['name']}**",
                f"{one['drop']:.2f}",
                f"{one['low']:.2f} to {one['high']:.2f}",
                f"{one['share']:.3f}",
                f"{one['latency']:.2f}",
                ", ".join(one["dominated_by"]),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines += [f"| {task['task']} | {name} | failed: {said} | | | | |" for name, said in task["failed"].items()]
    return [*lines, "", *(statement(task) for task in tasks)]


def statement(task: dict[str, Any]) -> str:
    """Return what a task shows: whether a peer dominates a rung of ours that no other rung stands for, and whether one
    rung dominates every peer's file."""
    rungs = [one for one in task["files"] if one["kind"] == "ours"]
    peers = [one for one in task["files"] if one["kind"] == "peer"]
    beaten = [one["name"] for one in rungs if one["dominated_by"]]
    everywhere = [rung["name"] for rung in rungs if peers and all(rung["name"] in one["dominated_by"] for one in peers)]
    some = sum(bool(one["dominated_by"]) for one in peers)
    return (
        f"- {task['task']}: rungs dominated by a peer: {', '.join(beaten) or 'none'}; "
        f"peers' files dominated by a rung: {some} of {len(peers)}; "
        f"rungs that dominate every peer's file: {', '.join(everywhere) or 'none'}"
    )

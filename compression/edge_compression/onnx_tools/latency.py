"""How long a graph takes here beside another, for passes that work towards a latency. The search measures properly."""

from __future__ import annotations

import time

import numpy as np

from edge_compression.onnx_tools.graph import session
from edge_compression.pass_api import Feeds

ROUNDS = 15
ROUND_SECONDS = 0.004
"""Turns of both graphs and the time of each turn: the median of the turns' ratios repeats within a few percent."""


def latency_ratio(model: bytes, reference: bytes, feeds: Feeds) -> float:
    """Return the median over rounds of the model's latency divided by the reference's, one after the other."""
    opened = [session(one) for one in (model, reference)]
    single = max(_seconds(one, feeds, 3) for one in opened)
    runs = max(1, int(ROUND_SECONDS / max(single, 1e-6)))
    ratios = [_seconds(opened[0], feeds, runs) / _seconds(opened[1], feeds, runs) for _ in range(ROUNDS)]
    return float(np.median(ratios))


def seconds_per_answer(model: bytes, feeds: Feeds) -> float:
    """Return how long one answer takes at best."""
    opened = session(model)
    return min(_seconds(opened, feeds, 1) for _ in range(ROUNDS))


def _seconds(opened: object, feeds: Feeds, runs: int) -> float:
    run = opened.run  # type: ignore[attr-defined]
    started = time.perf_counter()
    for _ in range(runs):
        run(None, feeds)
    return (time.perf_counter() - started) / runs

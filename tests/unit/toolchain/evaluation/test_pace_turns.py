"""How the latency of a candidate is taken beside the original's, while it is judged."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from edge_compression.evaluation.evaluator import _latencies


class Late:
    """A runner whose first turns pass before a run has begun, as on a busy machine."""

    def __init__(self, turns: list[list[float]]) -> None:
        self.turns = turns

    def measure(self, seconds: float) -> np.ndarray[Any, Any]:
        assert seconds > 0
        return np.array(self.turns.pop(0))


def test_a_turn_without_a_run_is_taken_again() -> None:
    late = Late([[], [], [0.5, 0.7], [9.0]])
    assert _latencies(cast(Any, late)).tolist() == [0.5, 0.7]
    assert late.turns == [[9.0]]

"""Several threads judge boxes at a time, as a search does."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from edge_bench.metrics.boxes import Boxes, _matched


def test_judging_in_threads_leaves_the_output_of_the_process_alone() -> None:
    """pycocotools prints; a stream put back in the wrong order swallowed what `compress --json` said afterwards."""
    before = sys.stdout
    place = np.array([[0.0, 0.0, 4.0, 4.0]])
    truth = [Boxes(boxes=place, classes=np.zeros(1))] * 4
    found = [Boxes(boxes=place, classes=np.zeros(1), scores=np.ones(1))] * 4
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: _matched(found, truth, [0.5]), range(64)))
    finally:
        sys.setswitchinterval(interval)
        kept, sys.stdout = sys.stdout, before
    assert kept is before

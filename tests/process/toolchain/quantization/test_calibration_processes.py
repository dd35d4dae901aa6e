"""What `test_calibration.py` tests, where it takes a real process or a wait."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest

from edge_compression.quantization.calibration import collect


@pytest.mark.timeout(240)
def test_three_hundred_activations_over_a_thousand_samples_fit_in_few_megabytes() -> None:
    process, seen = psutil.Process(), []

    def samples() -> Iterator[dict[str, Any]]:
        values = np.random.default_rng(0).standard_normal((300, 128)).astype(np.float32)
        for turn in range(1000):
            yield {f"t{index}": values[(index + turn) % 300] for index in range(300)}
            if turn % 100 == 0:
                seen.append(process.memory_info().rss)

    found = collect(samples, histograms=True)
    assert len(found) == 300
    # All values together are 154 MB; the histograms are 4.9 MB.
    assert max(seen) - seen[0] < 16_000_000

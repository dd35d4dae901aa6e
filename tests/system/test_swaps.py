"""Swaps by the real supervisor under constant load: the benchmark `swaps.py`, a small one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.agent import release_swaps as swaps


@pytest.mark.timeout(240)  # each swap is an import, a trial and a new process, beside eight clients
def test_eight_kept_alive_clients_see_three_swaps_and_no_failed_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swaps, "STEADY_S", 0.6)
    seen, periods = asyncio.run(swaps.swaps(tmp_path, 3, 8, 0.02))
    assert seen.problems == []  # a wrong answer or one that names another release would be one
    assert [period.kind for period in periods] == ["steady", "swap"] * 3
    assert all(requests for requests in swaps.samples(seen, periods)["swap"]), "nobody asked during a swap"

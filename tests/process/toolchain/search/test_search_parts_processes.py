"""What `test_search_parts.py` tests, where it takes a real process or a wait."""

from __future__ import annotations

import threading
import time

from edge_compression.search.memory_admission import MemoryAdmission


def test_builds_wait_until_there_is_memory_for_them() -> None:
    gate, inside, most = MemoryAdmission(100.0), [0.0], [0.0]

    def build(megabytes: float) -> None:
        with gate.room(megabytes):
            inside[0] += megabytes
            most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            inside[0] -= megabytes

    threads = [threading.Thread(target=build, args=(40.0,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] <= 80.0
    build(500.0)  # more than there is: alone, not never

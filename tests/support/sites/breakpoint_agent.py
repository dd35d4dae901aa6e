"""The real agent with one addition: once it has persisted a chosen update state it waits at a breakpoint.

    python tests/support/sites/breakpoint_agent.py STATE FOLDER agent run --config agent.toml

The file FOLDER/reached appears when the supervisor stands there, whole and unaware; it goes on when FOLDER/go does.
So a test can kill what it likes exactly in that state.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from edge_agent.storage.state_dir import StateFolder
from edge_agent.update.record import UpdateRecord
from edgewright.cli import main

PAUSE_S = 0.01


class Breakpoint:
    """Wraps `StateFolder.write_record`: the first write of the chosen state waits, after it is durable."""

    def __init__(self, state: str, folder: Path) -> None:
        self._state = state
        self._folder = folder
        self._write = StateFolder.write_record

    def write_record(self, folder: StateFolder, record: UpdateRecord) -> None:
        self._write(folder, record)
        reached = self._folder / "reached"
        if record.state != self._state or reached.exists():
            return
        reached.touch()
        while not (self._folder / "go").exists():
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    stop = Breakpoint(sys.argv[1], Path(sys.argv[2]))
    StateFolder.write_record = lambda folder, record: stop.write_record(folder, record)  # type: ignore[method-assign]
    main(sys.argv[3:])

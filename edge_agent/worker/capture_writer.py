"""Captures in the worker: served requests are sealed and written in a thread, which may wait for the disk.

Imported only where a slot captures: cryptography costs memory. Which requests, is in `edge_agent.worker.request_tap`;
the files are `edge_agent.capture.ring`'s.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

from edge_agent.capture.ring import CaptureRing
from edge_agent.capture.sealing import load_sealer
from edge_agent.config.shadow_capture import CaptureConfig
from edge_contracts.limits import MAX_SERVED_BYTES, MIB

WAITING = 8
WAITING_BYTES = MAX_SERVED_BYTES
"""What waits for the disk at most: requests, and their bytes together."""

PAUSE_S = 60.0
"""How long nothing is captured after the disk has refused it, in seconds."""


class CaptureWriter:
    """Seals records and writes them, in a thread of its own. Raises OperatorError for a key that is none."""

    def __init__(self, settings: CaptureConfig, failed: Callable[[str], None]) -> None:
        """`settings.folder` is set. `failed` is told, from the thread, when the disk refuses a record."""
        assert settings.folder is not None
        self.settings = settings
        self.written = (0, 0)
        self._failed = failed
        self._sealer = load_sealer(Path(settings.key))
        self._folder = Path(settings.folder)
        self._waiting = 0
        self._count = threading.Lock()
        self._queue: queue.Queue[bytes | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    def put(self, data: bytes) -> bool:
        """Have a record written; return whether there was room for it."""
        if self._waiting + len(data) > WAITING_BYTES:
            return False
        try:
            self._queue.put_nowait(data)
        except queue.Full:
            return False
        with self._count:
            self._waiting += len(data)
        return True

    def close(self, wait_s: float = 2.0) -> None:
        """Write what waits and make it durable, as far as that goes in the time."""
        try:
            self._queue.put(None, timeout=wait_s)
        except queue.Full:
            return
        self._thread.join(wait_s)

    def _run(self) -> None:
        ring: CaptureRing | None = None
        paused_until = 0.0
        while (data := self._queue.get()) is not None:
            with self._count:
                self._waiting -= len(data)
            if time.monotonic() < paused_until:
                continue
            try:
                ring = ring or CaptureRing(self._folder, self._sealer, int(self.settings.max_mb * MIB))
                if len(data) <= ring.room_bytes:
                    size = ring.write(data)
                    self.written = (self.written[0] + 1, self.written[1] + size)
            except OSError as error:
                paused_until = time.monotonic() + PAUSE_S
                self._failed(f"capture paused for {PAUSE_S:.0f} s: {error}")
        if ring is not None:
            ring.close()

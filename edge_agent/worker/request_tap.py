"""Taking served requests aside in the worker, for the shadow and for the disk, without an answer ever waiting for it.

Which requests: a declared share, at random, and never more than what costs the slot nothing that shows. What cannot be
passed on at once is left out and counted. The shadow's end is `edge_agent.shadow`, the disk's
`edge_agent.worker.capture_writer`.
"""

from __future__ import annotations

import random
import socket
import time
from typing import TYPE_CHECKING

from edge_agent.answer import Answer
from edge_agent.capture.record import captured_request, encode_captured, size_of
from edge_agent.ipc.mirror import send
from edge_agent.ports import Tensors
from edge_contracts.limits import MAX_SERVED_BYTES, MIB

if TYPE_CHECKING:
    from edge_agent.worker.capture_writer import CaptureWriter

EVERY_S = 0.05
"""At most twenty requests a second are sampled."""

BYTES_A_SECOND = 10 * MIB
"""And at most so much: copying it takes about a hundredth of a core (`benchmarks/agent/shadow_capture_cost.py`)."""


class RequestTap:
    """Called with each answer, on the event loop's thread. `counters` are totals since the start."""

    def __init__(self, first: str, mirror: socket.socket | None, recorder: CaptureWriter | None) -> None:
        """`first` is who usually answers, as `served_by` says it."""
        self.counters = {"shadowed": 0, "shadow_skipped": 0}
        self._first = first
        self._mirror = mirror
        self._recorder = recorder
        self._shadow_share = 0.0
        self._captures = False
        self._free_at = 0.0
        if recorder is not None:
            self.counters |= {"captured": 0, "captured_bytes": 0, "capture_skipped": 0}

    @property
    def looks(self) -> bool:
        """Whether there is anything to look for now."""
        return self._shadow_share > 0.0 or self._captures

    def allow(self, *, shadow: float, capture: bool) -> None:
        """Show this share to the shadow from now on, and capture or not."""
        self._shadow_share = 0.0 if self._mirror is None else shadow
        self._captures = capture and self._recorder is not None

    def look(self, tensors: Tensors, answer: Answer) -> None:
        """Take the request aside if it is one of those."""
        shown = _chance() < self._shadow_share and bool(answer.outputs) and answer.model_sha256 is not None
        kept = self._captures and self._keeps(answer)
        if not (shown or kept):
            return
        now, size = time.monotonic(), size_of(tensors, answer)
        if now < self._free_at or size > MAX_SERVED_BYTES - MIB // 4:
            self._skip(shown=shown, kept=kept)
            return
        self._free_at = now + max(EVERY_S, size / BYTES_A_SECOND)
        try:
            data = encode_captured(captured_request(tensors, answer, time.time()))
        except MemoryError:
            self._skip(shown=shown, kept=kept)
            return
        if shown and self._mirror is not None:
            self.counters["shadowed" if send(self._mirror, data) else "shadow_skipped"] += 1
        if kept and self._recorder is not None and not self._recorder.put(data):
            self._skip(shown=False, kept=True)

    def total(self) -> dict[str, int]:
        """Return the counters, with what has reached the disk by now."""
        if self._recorder is not None:
            self.counters["captured"], self.counters["captured_bytes"] = self._recorder.written
        return self.counters

    def close(self) -> None:
        """Make captures durable."""
        if self._recorder is not None:
            self._recorder.close()

    def _keeps(self, answer: Answer) -> bool:
        assert self._recorder is not None
        only = self._recorder.settings.only
        if only and not any(kind in only for kind in kinds(answer, self._first)):
            return False
        return _chance() < self._recorder.settings.share

    def _skip(self, *, shown: bool, kept: bool) -> None:
        self.counters["shadow_skipped"] += shown
        if kept:
            self.counters["capture_skipped"] += 1


def kinds(answer: Answer, first: str) -> tuple[str, ...]:
    """Return which of the kinds that a capture may be limited to an answer is; see
    `edge_agent.config.shadow_capture.CaptureConfig`."""
    found = []
    if answer.abstained:
        found.append("abstained")
    if answer.prediction is not None and answer.prediction.largest > 1:
        found.append("uncertain")
    if answer.warnings or answer.served_by != first:
        found.append("errors")
    return tuple(found)


def _chance() -> float:
    return random.random()  # noqa: S311 - a sample, not a secret

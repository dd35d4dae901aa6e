"""What a runtime counts, in plain lists and dictionaries, and their Prometheus text, built when somebody asks.

Nothing of prometheus-client is on the inference path: it is imported at the first scrape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

LATENCY_BINS = 32
"""Bin i counts answers that took [2^i, 2^(i+1)) µs; the last one, 36 minutes, takes everything longer."""

_BIT_LENGTHS = 64
"""Of a time in microseconds; the list is longer than `LATENCY_BINS`, so that counting need not look for its end."""

COUNTERS = {
    "requests": "Inference requests answered",
    "errors": "Failures of a rung: loading, running or an answer its guard refused",
    "rejected": "Requests refused: a tensor did not match the model, or its guard rejected it",
    "abstained": "Answers that abstained",
    "fallbacks": "Answers not given by the first rung",
    "shed": "Requests refused with Retry-After",
    "guard_input": "Inputs outside an input guard",
    "guard_output": "Answers refused by an output guard",
    "out_of_distribution": "Samples unlike the calibration data",
    "streams_restarted": "Steps of a stream that started anew, because its state was not here any more",
    "streams_dropped": "Streams whose state was dropped: idle, or one of too many",
}


class AnswerCounters:
    """How long one rung's answers took: the only thing counted for every answer, so it is kept to two additions."""

    __slots__ = ("log2_us", "sum_us")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.log2_us = [0] * _BIT_LENGTHS
        self.sum_us = 0

    def count(self, timing_us: int) -> None:
        """Count one answer and how long it took, in microseconds."""
        self.log2_us[timing_us.bit_length()] += 1
        self.sum_us += timing_us


class Counters:
    """Totals since the start of one runtime. Written by one thread at a time; what is shown is added up when asked, by
    any thread: so it goes over a copy of what may grow meanwhile."""

    __slots__ = ("_answers", "_others")

    def __init__(self) -> None:
        self._others = dict.fromkeys(COUNTERS, 0)
        self._answers: dict[str, AnswerCounters] = {}

    def answers(self, served_by: str) -> AnswerCounters:
        """Return where the answers of this rung are counted."""
        return self._answers.setdefault(served_by, AnswerCounters())

    def count(self, name: str, number: int = 1) -> None:
        """Count something else that happened; see `COUNTERS`. Requests are counted by their answers."""
        self._others[name] += number

    def clear(self) -> None:
        """Begin anew."""
        self._others = dict.fromkeys(COUNTERS, 0)
        for answers in self._answers.values():
            answers.clear()

    @property
    def counters(self) -> dict[str, int]:
        return self._others | {"requests": sum(self.served_by.values())}

    @property
    def served_by(self) -> dict[str, int]:
        """AnswerCounters by rung, of those that gave any."""
        counts = {name: sum(answers.log2_us) for name, answers in list(self._answers.items())}
        return {name: count for name, count in counts.items() if count}

    @property
    def latency_log2_us(self) -> list[int]:
        """AnswerCounters by the logarithm of their time; see `LATENCY_BINS`."""
        rows = [[0] * _BIT_LENGTHS, *(answers.log2_us for answers in list(self._answers.values()))]
        zero, one, *bins = map(sum, zip(*rows, strict=True))
        return [zero + one, *bins[: LATENCY_BINS - 2], sum(bins[LATENCY_BINS - 2 :])]

    @property
    def latency_sum_us(self) -> int:
        return sum(answers.sum_us for answers in list(self._answers.values()))

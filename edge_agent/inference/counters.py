"""What a runtime counts, in plain lists and dictionaries, and their Prometheus text, built when somebody asks.

Nothing of prometheus-client is on the inference path: it is imported at the first scrape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client.core import Metric

LATENCY_BINS = 32
"""Bin i counts answers that took [2^i, 2^(i+1)) µs; the last one, 36 minutes, takes everything longer."""

_BIT_LENGTHS = 64
"""Of a time in microseconds; the list is longer than `LATENCY_BINS`, so that counting need not look for its end."""

COUNTERS = {
    "requests": "Inference requests answered",
    "errors": "Failures of a rung: loading, running or an answer its guard refused",
    "rejected": "Requests refused: a tensor did not fit, or its guard rejects it",
    "abstained": "Answers that said nothing",
    "fallbacks": "Answers not given by the first rung",
    "shed": "Requests asked to come back later",
    "guard_input": "Inputs an input guard objected to",
    "guard_output": "Answers an output guard refused",
    "out_of_distribution": "Samples unlike the calibration data",
}


class Answers:
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


class Tally:
    """Totals since the start of one runtime. Written by one thread at a time; what is shown is added up when asked, by
    any thread: so it goes over a copy of what may grow meanwhile."""

    __slots__ = ("_answers", "_others")

    def __init__(self) -> None:
        self._others = dict.fromkeys(COUNTERS, 0)
        self._answers: dict[str, Answers] = {}

    def answers(self, served_by: str) -> Answers:
        """Return where the answers of this rung are counted."""
        return self._answers.setdefault(served_by, Answers())

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
        """Answers by rung, of those that gave any."""
        counts = {name: sum(answers.log2_us) for name, answers in list(self._answers.items())}
        return {name: count for name, count in counts.items() if count}

    @property
    def latency_log2_us(self) -> list[int]:
        """Answers by the logarithm of their time; see `LATENCY_BINS`."""
        rows = [[0] * _BIT_LENGTHS, *(answers.log2_us for answers in list(self._answers.values()))]
        zero, one, *bins = map(sum, zip(*rows, strict=True))
        return [zero + one, *bins[: LATENCY_BINS - 2], sum(bins[LATENCY_BINS - 2 :])]

    @property
    def latency_sum_us(self) -> int:
        return sum(answers.sum_us for answers in list(self._answers.values()))


def exposition(tally: Tally, gauges: Mapping[str, float], labels: Mapping[str, str]) -> bytes:
    """Return the Prometheus text of a tally and of other readings, every sample with `labels`."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_View(tally, gauges, labels))
    return generate_latest(registry)


class _View:
    """Shows a tally as metric families; holds nothing itself."""

    def __init__(self, tally: Tally, gauges: Mapping[str, float], labels: Mapping[str, str]) -> None:
        self._tally, self._gauges = tally, gauges
        self._names, self._values = list(labels), list(labels.values())

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for name, text in COUNTERS.items():
            yield self._filled(CounterMetricFamily(f"edgewright_{name}", text, labels=self._names), name)
        served = CounterMetricFamily("edgewright_served_by", "Answers per rung", labels=[*self._names, "rung"])
        for rung, count in self._tally.served_by.items():
            served.add_metric([*self._values, rung], count)
        yield served
        latency = HistogramMetricFamily("edgewright_latency_seconds", "Time of an answer", labels=self._names)
        latency.add_metric(self._values, self._buckets(), self._tally.latency_sum_us / 1e6)
        yield latency
        for name, value in self._gauges.items():
            gauge = GaugeMetricFamily(f"edgewright_agent_{name}", "The agent's own reading", labels=self._names)
            gauge.add_metric(self._values, value)
            yield gauge

    def _filled(self, family: Any, name: str) -> Metric:
        family.add_metric(self._values, self._tally.counters[name])
        assert family is not None
        return family  # type: ignore[no-any-return]

    def _buckets(self) -> list[tuple[str, float]]:
        total, buckets = 0, []
        for index, count in enumerate(self._tally.latency_log2_us[:-1]):
            total += count
            buckets.append((repr(2 ** (index + 1) / 1e6), float(total)))
        return [*buckets, ("+Inf", float(total + self._tally.latency_log2_us[-1]))]

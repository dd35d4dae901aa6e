"""The counters of a worker in the text format that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from edge_agent.inference.counters import COUNTERS, Counters

if TYPE_CHECKING:
    from prometheus_client.core import Metric


def exposition(tally: Counters, gauges: Mapping[str, float], labels: Mapping[str, str]) -> bytes:
    """Return the Prometheus text of a tally and of other readings, every sample with `labels`."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_View(tally, gauges, labels))
    return generate_latest(registry)


class _View:
    """Shows a tally as metric families; holds nothing itself."""

    def __init__(self, tally: Counters, gauges: Mapping[str, float], labels: Mapping[str, str]) -> None:
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

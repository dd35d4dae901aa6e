"""A telemetry window as OpenTelemetry metrics. Pure; sending is in `edge_agent.telemetry.otlp_exporter`.

Source: OpenTelemetry protocol 1.x, ExportMetricsServiceRequest in its JSON encoding: 64-bit integers as strings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from edge_contracts.telemetry import TelemetryWindow

_DELTA = 1  # AGGREGATION_TEMPORALITY_DELTA
_UNITS = {"_c": "Cel", "_mb": "MBy", "_percent": "%", "_s": "s"}

Json = dict[str, Any]


def metrics_request(windows: Iterable[TelemetryWindow], *, service: str, version: str) -> Json:
    """Return one request for windows of one device; `version` is the agent's."""
    resources = []
    for window in windows:
        about = {"service.name": service, "service.version": version, "service.instance.id": window.boot_id}
        scope = {"scope": {"name": "edgewright", "version": version}, "metrics": _metrics(window)}
        resource = {"attributes": _attributes({**about, "device.id": window.device})}
        resources.append({"resource": resource, "scopeMetrics": [scope]})
    return {"resourceMetrics": resources}


def _metrics(window: TelemetryWindow) -> list[Json]:
    named = {"slot": window.slot, "model": window.model, "version": window.version, "variant": window.variant}
    labels = {name: value for name, value in named.items() if value is not None}
    times = {"startTimeUnixNano": _nanoseconds(window.start), "timeUnixNano": _nanoseconds(window.end)}

    def point(more: Mapping[str, str], **value: Any) -> Json:
        return {"attributes": _attributes({**labels, **more}), **times, **value}

    def total(name: str, points: list[Json]) -> Json:
        return _named(name, sum={"aggregationTemporality": _DELTA, "isMonotonic": True, "dataPoints": points})

    found = [total(name, [point({}, asInt=str(count))]) for name, count in window.counters.items()]
    if window.served_by:
        found.append(total("served_by", [point({"rung": k}, asInt=str(n)) for k, n in window.served_by.items()]))
    if any(window.latency_log2_us):
        # Our bin i is [2^i, 2^(i+1)) µs and that of scale 0 is (2^i, 2^(i+1)]: only whole powers of two lie elsewhere.
        buckets = {"offset": 0, "bucketCounts": list(map(str, window.latency_log2_us))}
        answers = point({}, count=str(sum(window.latency_log2_us)), scale=0, zeroCount="0", positive=buckets)
        histogram = {"aggregationTemporality": _DELTA, "dataPoints": [answers]}
        found.append(_named("latency", unit="us", exponentialHistogram=histogram))
    for name, value in window.resources.items():
        unit = next((unit for ending, unit in _UNITS.items() if name.endswith(ending)), "1")
        found.append(_named(name, unit=unit, gauge={"dataPoints": [point({}, asDouble=value)]}))
    if window.drift:
        points = [point({"histogram": name}, asDouble=value) for name, value in window.drift.items()]
        found.append(_named("drift", unit="1", gauge={"dataPoints": points}))
    return found


def _named(name: str, *, unit: str = "1", **data: Json) -> Json:
    return {"name": f"edgewright.{name}", "unit": unit, **data}


def _attributes(values: Mapping[str, str]) -> list[Json]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in values.items()]


def _nanoseconds(time: str) -> str:
    """Return a time of UTC, as telemetry writes it, in nanoseconds since 1970."""
    since = datetime.fromisoformat(time) - datetime(1970, 1, 1, tzinfo=UTC)
    return str(since // timedelta(microseconds=1) * 1000)

"""The counters of a worker in the text format that Prometheus reads, version 0.0.4.

Written here and not by prometheus-client: what that imports would be imported in a worker whose memory is capped by
then, at the first scrape. The client's parser and `promtool` check the text in the tests.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edge_agent.host.governor import Readings
from edge_agent.inference.counters import COUNTERS, Counters
from edge_contracts.limits import MIB

CONNECTIONS: Mapping[str, str] = {
    "connections_refused": "Connections turned away because all others were busy",
    "connections_displaced": "Idle connections closed for a newcomer",
}
"""Counters of the server, by name."""

_OF_THE_AGENT = frozenset({*Readings.__struct_fields__, "level", "spooled", "dropped", "written_today_mb"})
"""Readings of the whole agent: every slot's worker shows them, so they name no slot or model, and no sum over models
counts them twice."""

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def exposition(
    tally: Counters, gauges: Mapping[str, float], labels: Mapping[str, str], totals: Mapping[str, int] | None = None
) -> bytes:
    """Return the Prometheus text of a tally, of other readings and of the server's `totals`, every sample with
    `labels`."""
    lines = [*_counters(tally, labels, totals or {}), *_latency(tally, labels), *_gauges(gauges, labels)]
    return "".join(f"{line}\n" for line in lines).encode()


def _counters(tally: Counters, labels: Mapping[str, str], totals: Mapping[str, int]) -> Iterator[str]:
    counted = tally.counters
    for name, text in COUNTERS.items():
        yield from _family(f"edgewright_{name}_total", "counter", text, [(labels, counted[name])])
    for name, text in CONNECTIONS.items():
        yield from _family(f"edgewright_{name}_total", "counter", text, [(labels, totals.get(name, 0))])
    rungs = [({**labels, "rung": rung}, count) for rung, count in tally.served_by.items()]
    yield from _family("edgewright_served_by_total", "counter", "Answers per rung", rungs)


def _latency(tally: Counters, labels: Mapping[str, str]) -> Iterator[str]:
    name, bins = "edgewright_latency_seconds", tally.latency_log2_us
    yield from _family(name, "histogram", "Time of an answer", [])
    total = 0
    for index, count in enumerate(bins[:-1]):
        total += count
        yield _sample(f"{name}_bucket", {**labels, "le": repr(2 ** (index + 1) / 1e6)}, total)
    total += bins[-1]
    yield _sample(f"{name}_bucket", {**labels, "le": "+Inf"}, total)
    yield _sample(f"{name}_sum", labels, tally.latency_sum_us / 1e6)
    yield _sample(f"{name}_count", labels, total)


def _gauges(gauges: Mapping[str, float], labels: Mapping[str, str]) -> Iterator[str]:
    for name, value in gauges.items():
        of = {} if name in _OF_THE_AGENT else labels
        in_bytes = name.endswith("_mb")
        shown = f"{name.removesuffix('_mb')}_bytes" if in_bytes else name
        family = f"edgewright_agent_{shown}"
        yield from _family(family, "gauge", "The agent's own reading", [(of, value * MIB if in_bytes else value)])


def _family(name: str, kind: str, text: str, samples: Sequence[tuple[Mapping[str, str], float]]) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield _sample(name, labels, value)


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    pairs = ",".join(f'{key}="{text.translate(_ESCAPES)}"' for key, text in sorted(labels.items()))
    return f"{name}{{{pairs}}} {value!r}" if pairs else f"{name} {value!r}"

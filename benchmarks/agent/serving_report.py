"""Writes docs/benchmarks-serving.md from what the benchmarks of serving left in benchmarks/results.

python benchmarks/agent/serving_report.py
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.agent.serving import CLIENTS, table

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks-serving.md"

HEAD = """\
# Serving, measured

Written by `python benchmarks/agent/serving_report.py` from [`benchmarks/results`](../benchmarks/results), where every
sample is kept. Other programs ran on the machine meanwhile; so compare ratios, which are medians of interleaved
rounds, and not times.
"""

SERVING = """\
## The whole agent beside other servers

`python benchmarks/agent/serving.py --environments FOLDER --out benchmarks/results/serving.json`

{runs}: one asyncio client over loopback and the same bytes for all, sixteen requests in turns from the probe set:
{rounds} rounds of {seconds:g} s for each server, in turns. The bundle is what `edgewright compress` makes, with its
thresholds, guards and samples; the others serve the file of the variant that answers first ({model}). CPU is that of
the server's whole process tree. The agent is `edgewright agent run`: supervisor and worker, connected to a broker,
with guards, counters, telemetry and audit log. FastAPI has a typed body and runs on uvicorn with uvloop and
httptools: once as an `async` function, which is the quickest it can be for a small model, and once as the plain
function its documentation recommends for code that computes (`fastapi-threads`). `asgi` is the least that answers
such requests: a bare ASGI function with msgspec, no checks and no counters, on uvicorn, and on granian. Each is
installed by pip into an environment of its own, the agent as a wheel. PSS is that of a server alone after a second of
load, so that nothing shares its libraries. MLServer runs in one process with a custom runtime of ten lines. ONNX
Runtime has one thread everywhere. Values are medians with their range; ratios of a request's CPU are given for 1 and
for 8 clients, and a target holds only if both are within it.

{table}

| target of the project | measured | reached |
|---|---|---|
{targets}
"""

SWAPS = """\
## Swaps under load

`PYTHONPATH=tests python benchmarks/agent/release_swaps.py --swaps {swap_periods} --out benchmarks/results/swaps.json`

{clients} kept-alive clients, each {pause_ms:g} ms after its last answer, through {swap_periods} releases that the real
supervisor imports, tries, swaps in and commits. No request is repeated, and an answer is right only if it is what the
release it names would say.

| | steady | during a swap | ratio |
|---|---|---|---|
| requests | {steady_requests:,} | {swap_requests:,} | |
| p50, ms | {steady_p50_ms:.1f} | {swap_p50_ms:.1f} | {p50_ratio:.2f} |
| p99, ms | {steady_p99_ms:.1f} | {swap_p99_ms:.1f} | {p99_ratio:.2f} |

{requests:,} requests in all, {failed} failed or wrong (target 0). A swap took {swap_s_median:.1f} s from the start of
the new worker to the end of the old one. Target of the p99 ratio: 2.
"""

SOAK = """\
## Soak

`PYTHONPATH=tests python benchmarks/agent/soak.py --minutes 60 --out benchmarks/results/soak.json`

Broker, depot, controller and agent as real processes for {minutes:.0f} minutes; the device has two slots. One had
{requests:,} requests, {swap} swaps and {crash} worker crashes (SIGKILL); the other had {steady_requests:,} requests and
kept its worker for the whole time. {broker} broker restarts (SIGKILL) hit both.

| | measured | target |
|---|---|---|
| wrong answers, of both slots | {all_wrong} | 0 |
| requests lost with killed workers | {lost} | at most one for each connection and crash |
| requests lost in the slot whose worker lives on | {steady_lost} | 0 |
| gaps in {messages} telemetry messages | {gap_count} | 0 |
| supervisor, RSS growth from minute {supervisor_since_min:.0f} | {supervisor_growth} | below 0.1 |
| the worker that lives on, from minute {steady_since_min:.0f} | {steady_growth} | below 0.1 |
| written to disk | {written_mb_per_day:.0f} MB a day | {daily_writes_mb:.0f} |

Growth counts from the tenth minute, or from five minutes after the kernel has last taken pages of files from the
process, which it does when other programs need memory: a fall that says nothing of what the process holds.

The other slot's {workers} workers lived for minutes each, in which a slope cannot be told from one page. Of the
{life_count} that lived longer than three minutes and kept their pages, each grew by {life_growth_mb:+.2f} MB
(median; at most {life_growth_max_mb:+.2f}) from its third minute to its end, and they ended
between {level_min_mb:.1f} and {level_max_mb:.1f} MB: {mb_per_life:+.3f} MB from one to the next.
"""

HOT_PATH = """\
## A call in process

`python benchmarks/agent/hot_path.py TASK ... --out benchmarks/results/hot-path.json`

`Runtime.infer`, with checks, guards, counters and histogram, beside the public `session.run` of a bare script, one call
of each a round, in an order drawn anew each time, on bundles that `edgewright compress` made: the variant that answers
first, sixteen samples of the probe set in turns. The ratio is the median of the rounds' ratios; the target is 1.05.
Counting is what telemetry adds to a call, with two looks at the clock; the target is 1 µs.

| model | session.run, µs | Runtime.infer, µs | ratio | counting, µs |
|---|---|---|---|---|
{rows}
"""


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the page in Markdown. A result that is not there has no section."""
    sections = [HEAD]
    for name, section in (("serving", serving), ("hot-path", hot_path), ("swaps", swaps), ("soak", soak)):
        path = RESULTS / f"{name}.json"
        if path.exists():
            document = json.loads(path.read_bytes())
            sections += [section(document), machine(document["environment"])]
    return "\n".join(sections)


def machine(environment: dict[str, Any]) -> str:
    """Return a line about where it was measured."""
    versions = environment["versions"]
    return (
        f"{environment['cores']} cores of {environment['cpu']}, kernel {environment['kernel']}, "
        f"Python {environment['python']}, onnxruntime {versions.get('onnxruntime')}, "
        f"load average {environment['load']:.1f}.\n"
    )


def serving(document: dict[str, Any]) -> str:
    samples = document["samples"]
    return SERVING.format(
        runs=f"Of more than one run ({document['note']})" if "note" in document else "One run",
        model=document["model"],
        rounds=1 + max(sample["round"] for sample in samples),
        seconds=document["seconds"],
        table="\n".join(table(document)),
        targets="\n".join(targets(document)),
    )


def targets(document: dict[str, Any]) -> list[str]:
    """Return the lines of the table of targets; one that depends on the number of clients is reached with each."""
    samples, starts = document["samples"], document["starts"]
    agent, fastapi = starts["edgewright"], starts["fastapi"]
    pss = ratio_of([one["pss_mb"] for one in agent], [one["pss_mb"] for one in fastapi])
    start = ratio_of([one["cpu_s"] for one in agent], [one["cpu_s"] for one in fastapi])
    rows = [("PSS of all the agent's processes, of FastAPI's", [pss], 1.0)]
    rows.append(("CPU from start to first answer, of FastAPI's", [start], 1.0))
    for base, own, bound in (
        ("fastapi", "json", 0.4),
        ("fastapi-threads", "json", 0.4),
        ("mlserver", "json", 0.6),
        ("fastapi", "binary", 0.25),
        ("fastapi-threads", "binary", 0.25),
    ):
        found = [ratio(samples, f"edgewright {own}", f"{base} json", clients) for clients in CLIENTS]
        rows.append((f"CPU a request in {own}, of {base}'s in JSON", found, bound))
    return [
        f"| {what} ≤ {bound:g} | {_values(found)} | {'yes' if max(found) <= bound else 'no'} |"
        for what, found, bound in rows
    ]


def _values(found: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in found)


def ratio(samples: list[dict[str, Any]], own: str, base: str, clients: int) -> float:
    """Return the median ratio of CPU a request, with so many clients."""
    chosen = [sample for sample in samples if sample["clients"] == clients]
    values = {lane: [sample["cpu_us"] for sample in chosen if sample["lane"] == lane] for lane in (own, base)}
    return ratio_of(values[own], values[base])


def ratio_of(own: Sequence[float], base: Sequence[float]) -> float:
    """Return the median ratio of values taken in the same rounds."""
    return statistics.median(one / other for one, other in zip(own, base, strict=True))


def hot_path(document: dict[str, Any]) -> str:
    rows = []
    for found in document["models"]:
        table = found["summary"]
        bare, guarded = table["session.run"]["median_us"], table["Runtime.infer"]
        counting = table["counting"]["median_us"] - table["nothing"]["median_us"]
        rows.append(
            f"| {found['model']} | {bare:.1f} | {guarded['median_us']:.1f} | {guarded['ratio']:.2f} | {counting:.2f} |"
        )
    return HOT_PATH.format(rows="\n".join(rows))


def swaps(document: dict[str, Any]) -> str:
    summary = document["summary"]
    return SWAPS.format(
        **summary,
        clients=document["clients"],
        pause_ms=document["pause_ms"],
        p50_ratio=summary["swap_p50_ms"] / summary["steady_p50_ms"],
    )


def soak(document: dict[str, Any]) -> str:
    summary = document["summary"]
    steady = summary["steady"]
    return SOAK.format(
        **summary,
        **summary["events"],
        steady_requests=steady["requests"],
        steady_lost=steady["lost"],
        all_wrong=summary["wrong"] + steady["wrong"],
        gap_count=len(summary["gaps"]),
        life_count=len(summary["lives"]),
        supervisor_growth=_growth(summary, "supervisor"),
        steady_growth=_growth(summary, "steady"),
    )


def _growth(summary: dict[str, Any], process: str) -> str:
    return f"{summary[f'{process}_mb_per_h']:+.2f} MB/h, at {summary[f'{process}_mb']:.1f} MB"


if __name__ == "__main__":
    main()

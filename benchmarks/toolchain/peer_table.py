"""The results of `compress_peers.py` in Markdown, for `docs/benchmarks.md`. Pure: a document in, text out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.toolchain.dominance import Verdict, verdict

HEAD = """## Beside other quantizers

`make compress-bench CORPUS=FOLDER PEERS=FOLDER` has other tools quantize the same models on the same calibration
samples, each in an environment of its own, at the settings its documentation shows. Every file answers the same
samples; all files of a task are timed in turns, in three processes each, one thread. A cell holds points lost / bytes /
median latency, the last two relative to the float original. A file **dominates** another when it is nowhere worse in
the three and somewhere better; differences within the paired 95 % interval, or within 3 % of latency, are none.
**Bold**: no rung of ours dominates the file. A `.tflite` file runs on LiteRT and is compared with the ONNX original.
"""

RUNGS = """
Our rungs in the same run; the last column names peers' files that dominate the rung.

| task | rung | points lost | 95 % | x bytes | x latency | dominated by |
|---|---|---|---|---|---|---|"""

VERDICTS = """
A peer *beats the front* when it dominates a rung and no other rung is at least as good as it.

| task | samples | original again | peers' files | dominated by a rung | beat the front | rungs that dominate all |
|---|---|---|---|---|---|---|"""

FAILED = "\nWhat made no file, or none that runs, and what was said:\n"


def section(document: dict[str, Any]) -> str:
    """Return the section in Markdown."""
    tasks = sorted(document["tasks"], key=lambda one: str(one["task"]))
    verdicts = {task["task"]: verdict(task["files"]) for task in tasks}
    lines = [HEAD, *_matrix(tasks, verdicts), VERDICTS]
    lines += [_verdict(task, verdicts[task["task"]]) for task in tasks]
    lines += [RUNGS, *(_rung(task["task"], one) for task in tasks for one in task["files"] if one["kind"] == "ours")]
    failures = [f"- {task['task']}, {peer}: `{said}`" for task in tasks for peer, said in task["failed"].items()]
    lines += [FAILED, *failures] if failures else []
    sizes = ", ".join(f"{tool} {size:,} MB" for tool, size in sorted(document["megabytes"].items()))
    lines += [f"\nInstalled size of the tools with what they need: {sizes}."] if sizes else []
    return "\n".join(lines) + "\n"


def _matrix(tasks: list[dict[str, Any]], verdicts: dict[str, Verdict]) -> Iterable[str]:
    """Yield one row a peer, one column a task."""
    by_task = {task["task"]: {one["name"]: one for one in task["files"] if one["kind"] == "peer"} for task in tasks}
    peers = dict.fromkeys(name for task in tasks for name in (*by_task[task["task"]], *task["failed"]))
    yield f"| | {' | '.join(by_task)} |"
    yield "|---" * (len(by_task) + 1) + "|"
    for peer in sorted(peers):
        cells = []
        for task in tasks:
            one = by_task[task["task"]].get(peer)
            said = "failed" if peer in task["failed"] else ""
            cells.append(said if one is None else _cell(one, bold=peer in verdicts[task["task"]].undominated))
        yield f"| {peer} | {' | '.join(cells)} |"


def _cell(one: dict[str, Any], *, bold: bool) -> str:
    text = f"{one['drop']:.1f} / {one['share']:.2f} / {one['latency']:.2f}"
    return f"**{text}**" if bold else text


def _verdict(task: dict[str, Any], found: Verdict) -> str:
    cells = [
        task["task"],
        f"{task['samples']:,}",
        ", ".join(f"{one['latency']:.2f}" for one in task["files"][1:] if one["kind"] == "float"),
        str(found.peers),
        str(found.peers - len(found.undominated)),
        ", ".join(found.beaten_by) or "none",
        ", ".join(found.champions) or "none",
    ]
    return f"| {' | '.join(cells)} |"


def _rung(task: str, one: dict[str, Any]) -> str:
    cells = [
        task,
        one["name"],
        f"{one['drop']:.2f}",
        f"{one['low']:.2f} to {one['high']:.2f}",
        f"{one['share']:.3f}",
        f"{one['latency']:.2f}",
        ", ".join(one["dominated_by"]) or "none",
    ]
    return f"| {' | '.join(cells)} |"

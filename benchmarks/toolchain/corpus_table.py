"""Write the compression tables of docs/benchmarks.md from what `compress_corpus.py` and `compress_peers.py` measured.

    cd benchmarks; python compression_table.py results/compression.json results/peers.json ../docs/benchmarks.md

Results that are not there are left out. Only what stands between the two markers is replaced; a file without them gets
the section at its end.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.toolchain import peer_table

BEGIN, END = "<!-- compression: begin (made by benchmarks/toolchain/corpus_table.py) -->", "<!-- compression: end -->"

HEAD = """## Compression

`make compress-bench CORPUS=FOLDER` runs every task of a folder with the default budget. One line a rung: points of the
metric lost with the paired 95 % interval, answers equal to the original's, bytes and median latency relative to the
original's (measured in turns on this host), and whether exact arithmetic answers the same.
"""

COLUMNS = "| task | rung | points lost | 95 % interval | verdict | agreement | x bytes | x latency | exact |"


def section(results: list[dict[str, Any]]) -> str:
    """Return the section in Markdown."""
    lines = [HEAD]
    if results and "environment" in results[0]:
        machine = results[0]["environment"]
        limit, profile = results[0]["max_drop"], results[0]["profile"]
        features = ", ".join(machine["features"]) or "no features of note"
        lines.append(f"{machine['cpu']} ({features}), profile {profile}, at most {limit:g} points.\n")
    lines += [COLUMNS, "|---|---|---|---|---|---|---|---|---|"]
    for result in sorted(results, key=lambda one: one["task"]):
        lines += _rows(result)
    lines += ["", "| task | samples | tried | seconds | peak MB | fastest rung |", "|---|---|---|---|---|---|"]
    lines += [_effort(result) for result in sorted(results, key=lambda one: one["task"]) if "error" not in result]
    return "\n".join(lines) + "\n"


def _rows(result: dict[str, Any]) -> list[str]:
    if "error" in result:
        return [f"| {result['task']} | failed | | | | | | | |"]
    by_id = {one["id"]: one for one in result["candidates"]}
    return [_row(result, by_id[name]) for name in result["ladder"]]


def _row(result: dict[str, Any], one: dict[str, Any]) -> str:
    quality, exact = one["quality"], one["exactness"]
    interval = quality["drop_interval"]
    latency = one["timing"]["latency"]["p50"] / result["original"]["latency"]["p50"]
    cells = [
        result["task"],
        one["id"],
        f"{quality['drop']:.2f}",
        f"{interval['low']:.2f} to {interval['high']:.2f}",
        quality["verdict"],
        "" if quality["agreement"] is None else f"{quality['agreement']:.1%}",
        f"{one['size'] / result['original_size']:.2f}",
        f"{latency:.2f}",
        "differs" if exact["hazard"] else "same",
    ]
    return f"| {' | '.join(cells)} |"


def _effort(result: dict[str, Any]) -> str:
    tried = sum(one["status"] != "not tried" for one in result["candidates"])
    cells = [
        result["task"],
        f"{result['evaluation_samples']:,}",
        str(tried),
        f"{result['seconds']:.0f}",
        f"{result['peak_memory_mb']:.0f}",
        result["fastest"],
    ]
    return f"| {' | '.join(cells)} |"


def placed(text: str, made: str) -> str:
    """Return the document with the section in its place."""
    block = f"{BEGIN}\n\n{made}\n{END}"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return f"{text.rstrip()}\n\n{block}\n" if text.strip() else f"# Benchmarks\n\n{block}\n"
    return f"{before}{block}{after}"


def main(arguments: list[str]) -> int:
    compression, peers, document = (Path(argument) for argument in arguments)
    writers = {compression: section, peers: peer_table.section}
    made = "\n".join(
        write(json.loads(results.read_text(encoding="utf-8")))
        for results, write in writers.items()
        if results.is_file()
    )
    text = document.read_text(encoding="utf-8") if document.exists() else ""
    document.write_text(placed(text, made), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

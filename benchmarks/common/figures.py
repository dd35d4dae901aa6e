"""The figures that README and docs/measurements.md state, from the results they come from.

`benchmarks/figures.toml` has every statement with a figure as a pattern, `{power_cuts[points]:,} cuts`; `values` is
what the patterns may name. A test fills them in and looks for them in the pages, and for figures in the pages that no
pattern accounts for.

    PYTHONPATH=. python benchmarks/common/figures.py    # writes the table of commits into docs/measurements.md
"""

from __future__ import annotations

import json
import re
from typing import Any

from benchmarks.agent.serving_report import ratio, ratio_of
from benchmarks.common.recorded import RESULTS, ROOT, changed, declared, recorded

FIGURE = re.compile(r"(?<![\w./-])[+-]?\d[\d,]*(?:\.\d+)?(?![\w-]*[A-Za-z_])")
"""A number that stands by itself: not in a name, a version, an address or a path."""

FRESHNESS_PAGE = ROOT / "docs" / "measurements.md"
BEGIN, END = "<!-- freshness: begin (made by benchmarks/common/figures.py) -->", "<!-- freshness: end -->"


def values() -> dict[str, Any]:
    """Return what patterns may name: the results themselves, and what follows from them."""
    serving, swaps, soak = _result("serving"), _result("swaps"), _result("soak")
    compression, memory = _result("compression"), _result("agent-memory")
    return {
        "memory": memory["medians_mb"] | {"runs": len(memory["samples_mb"])} | {"targets": memory["targets_mb"]},
        "power_cuts": _result("power-cuts"),
        "conformance": _result("tuf-conformance"),
        "transfer": _result("transfer")["medians"],
        "transfer_mb": _result("transfer")["megabytes"],
        "cpu": _cpu_ratios(serving["samples"]),
        "less": _less_than_fastapi(serving["starts"]),
        "call": _call_ratios(_result("hot-path")["models"]),
        "swaps": swaps["summary"] | {"clients": swaps["clients"]},
        "p99": {"swap_over_steady": swaps["summary"]["p99_ratio"]},
        "soak": soak["summary"] | {"all": soak["summary"]["requests"] + soak["summary"]["steady"]["requests"]},
        "soak_all_wrong": soak["summary"]["wrong"] + soak["summary"]["steady"]["wrong"],
        "effnet": _variant(compression, "imagenet_efficientnet_lite0", "int8-pc-second-rr"),
        "search": _search(compression),
        "deltas": _deltas(_result("deltas")["results"]),
    }


def statements(page: str) -> list[str]:
    """Return every statement with a figure that the page has to make, by its path."""
    known = values()
    rows = compression_rows() if page in declared()["compression_table"] else []
    return [one["text"].format(**known) for one in declared()["statement"] if page in one["pages"]] + rows


def missing(page: str) -> list[str]:
    """Return the statements that the page does not make."""
    text = _flat((ROOT / page).read_text(encoding="utf-8"))
    return [one for one in statements(page) if one not in text]


def unaccounted(page: str) -> list[str]:
    """Return the lines of the page's measured parts that state a figure which follows from no result."""
    text = _measured(page)
    for made in sorted([*statements(page), *declared()["conditions"]], key=len, reverse=True):
        text = text.replace(made, " ")
    return [line for line in _prose(text).splitlines() if FIGURE.search(line)]


def compression_rows() -> list[str]:
    """Return the rows of the compression table, in order: each variant of each ladder beside the float original."""
    results = sorted(_result("compression"), key=lambda one: str(one["task"]))
    return [_compression_row(result, name) for result in results for name in result["ladder"] if name != "float"]


def freshness_table() -> str:
    """Return the table of results with the commit they were measured at and what has changed since."""
    stale = {one["result"]: one["changed"] for one in declared()["stale"]}
    lines = ["| result | measured at | changed since |", "|---|---|---|"]
    for name, one in sorted(recorded().items()):
        lines.append(f"| {name.removesuffix('.json')} | {one['commit']}, {one['date']} | {stale.get(name, '-')} |")
    return "\n".join(lines)


def outdated() -> dict[str, list[str]]:
    """Return for each result whose code has changed the files that did."""
    found = {result: changed(result) for result in recorded()}
    return {result: files for result, files in found.items() if files}


def _result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_bytes())


def _measured(page: str) -> str:
    """Return the part of the page that states what was measured, each paragraph on a line."""
    text, begin = (ROOT / page).read_text(encoding="utf-8"), declared()["begins"].get(page)
    if begin is not None:
        text = re.split(r"^## ", text.partition(begin)[2], maxsplit=1, flags=re.MULTILINE)[0]
    return _flat(re.sub(rf"{re.escape(BEGIN)}.*?{re.escape(END)}", "", text, flags=re.DOTALL))


def _flat(text: str) -> str:
    """Join the lines of paragraphs, leave those of tables and code."""
    return re.sub(r"(?<=[^\n|])\n *(?=[\w(*`](?!``))", " ", text)


def _prose(text: str) -> str:
    """Return the text without code and the targets of links."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`|\]\([^)]*\)", " ", text)


def _cpu_ratios(samples: list[dict[str, Any]]) -> dict[str, float]:
    """CPU of a request of ours, in JSON or binary, of one of the other server's in JSON: `fastapi_binary_8`."""
    return {
        f"{base}_{own}_{clients}".replace("-", "_"): ratio(samples, f"edgewright {own}", f"{base} json", clients)
        for base in ("fastapi", "fastapi-threads", "mlserver")
        for own in ("json", "binary")
        for clients in (1, 8)
    }


def _less_than_fastapi(starts: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """By how many percent the agent takes less than FastAPI."""
    own, other = starts["edgewright"], starts["fastapi"]
    ratios = {key: ratio_of([one[key] for one in own], [one[key] for one in other]) for key in ("pss_mb", "cpu_s")}
    less = {key: 100 * (1 - value) for key, value in ratios.items()}
    return less | {"more_cpu_s": -less["cpu_s"]}


def _call_ratios(models: list[dict[str, Any]]) -> dict[str, float]:
    ratios = [model["summary"]["Runtime.infer"]["ratio"] for model in models]
    bare = [model["summary"]["session.run"]["median_us"] for model in models]
    return {"least": min(ratios), "most": max(ratios), "shortest_us": min(bare), "longest_us": max(bare)}


def _search(results: list[dict[str, Any]]) -> dict[str, float]:
    seconds = sorted(one["seconds"] for one in results)
    peak = max(one["peak_memory_mb"] for one in results) / 1000
    return {"shortest_s": seconds[0], "long_s": seconds[-2], "longest_s": seconds[-1], "peak_gb": peak}


def _deltas(results: list[dict[str, Any]]) -> dict[str, float]:
    """The smallest and largest delta in percent of the new file, by what was trained and the kind: `sgd_int8_max`."""
    found: dict[str, list[float]] = {}
    for one in results:
        trained = "last" if one["training"].startswith("last") else "adam" if "Adam" in one["training"] else "sgd"
        share = 100 * one["methods"]["delta, zstd"]["bytes"] / one["bytes"]
        found.setdefault(f"{trained}_{one['kind'].partition(',')[0]}", []).append(share)
    return {f"{name}_{end.__name__}": end(shares) for name, shares in found.items() for end in (min, max)}


def _variant(results: list[dict[str, Any]], task: str, name: str) -> dict[str, float]:
    result = next(one for one in results if one["task"] == task)
    found = next(one for one in result["candidates"] if one["id"] == name)
    interval = found["quality"]["drop_interval"]
    return {
        "bytes": 100 * found["size"] / result["original_size"],
        "latency": 100 * found["timing"]["latency"]["p50"] / result["original"]["latency"]["p50"],
        "lost": found["quality"]["drop"],
        "low": interval["low"],
        "high": interval["high"],
    }


def _compression_row(result: dict[str, Any], name: str) -> str:
    one = next(one for one in result["candidates"] if one["id"] == name)
    quality, interval = one["quality"], one["quality"]["drop_interval"]
    gained = -quality["drop"]
    cells = [
        result["task"],
        f"{result['evaluation_samples']:,}",
        f"{100 * result['original_score']:.1f} %",
        name,
        f"{gained:+.2f}" if abs(gained) >= 0.005 else "0.00",
        f"{-interval['high']:.1f} to {-interval['low']:.1f}",
        f"{result['original_size'] / 1000:,.0f}",
        f"{one['size'] / 1000:,.0f}",
        f"{result['original']['latency']['p50'] / one['timing']['latency']['p50']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    text = FRESHNESS_PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    FRESHNESS_PAGE.write_text(
        f"{before}{BEGIN}\n\n{freshness_table()}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8"
    )


if __name__ == "__main__":
    main()

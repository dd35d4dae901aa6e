"""What each operator of a model costs, told by the engine's own profiler, inside the measuring process. The profiler
slows the model down, so shares are to be read, not times; it runs apart from all that is timed."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from edge_bench.protocol import OperatorCost, Profiled, RunnerPlan

WARM_RUNS, RUNS = 5, 40
NODE, SUFFIX = "Node", "_kernel_time"
MOST_NODES = 200
"""Operators of a report at most, the dearest first; what the others cost is one more, named `OTHERS`."""

OTHERS = "(others)"


def profiled(plan: RunnerPlan, feeds: Sequence[dict[str, Any]]) -> Profiled:
    """Return what operators cost, or why that is not told. Raises EngineError."""
    if plan.format != "onnx":
        return Profiled(note=f"not measured: the engine of .{plan.format} files has no profiler in Python")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = plan.threads, 1
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if plan.optimize else levels.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_profiling = True
    with tempfile.TemporaryDirectory(prefix="edgewright-profile-") as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(
            Path(plan.model).read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        for place in range(WARM_RUNS + RUNS):
            session.run(None, feeds[place % len(feeds)])
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return Profiled(operators=costs_of(events, WARM_RUNS + RUNS))


def costs_of(events: Iterable[Mapping[str, Any]], runs: int) -> tuple[OperatorCost, ...]:
    """Return the cost of each node of ONNX Runtime's profile, the dearest first; the first runs of a node, in which
    memory is still mapped, are left out."""
    took: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == NODE and str(event.get("name", "")).endswith(SUFFIX):
            name = str(event["name"]).removesuffix(SUFFIX)
            took[(name, str(event.get("args", {}).get("op_name", "")))].append(float(event["dur"]) / 1e3)
    middles = {}
    for key, values in took.items():
        kept = values[len(values) * WARM_RUNS // runs :] or values
        middles[key] = median(kept) * (len(values) / runs)
    whole = sum(middles.values()) or 1.0
    found = [
        OperatorCost(name=name[:200], operator=kind, ms=ms, share=ms / whole)
        for (name, kind), ms in sorted(middles.items(), key=lambda item: -item[1])
    ]
    rest = found[MOST_NODES:]
    if not rest:
        return tuple(found)
    left = OperatorCost(
        name=OTHERS, operator=OTHERS, ms=sum(one.ms for one in rest), share=sum(one.share for one in rest)
    )
    return (*found[:MOST_NODES], left)


def by_kind(operators: Iterable[OperatorCost]) -> list[tuple[str, float, int]]:
    """Return kinds of operators with their share of the time and how many nodes there are, the dearest first."""
    shares: dict[str, list[float]] = defaultdict(list)
    for one in operators:
        shares[one.operator].append(one.share)
    found = [(kind, sum(values), len(values)) for kind, values in shares.items()]
    return sorted(found, key=lambda one: -one[1])

"""Where a model's bytes and time are: weights by operator from the graph, time by operator from one profile of the
engine. Cheap facts, by which `search.prospects` decides what is worth building.

Runs in a process of its own (`python -m edge_compression.evaluation.graph_profile <ProfilePlan JSON> <starter's process
id>`): the model's bytes are anybody's.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_bench.children import die_with, run
from edge_compression.pass_api import Feeds
from edge_compression.stored_samples import stored_runs
from edge_contracts.codec import StrictRecord
from edge_contracts.limits import MIB
from edge_contracts.manifest import Input

TIMEOUT_S = 120.0

RUNS, RUN_S = 50, 1.0
"""Answers that are profiled: so many, or as many as a second has."""

MOST_EVENTS_BYTES = 64 * MIB
"""Of the engine's profile; beyond it there are no times."""

FUSED = "Fused"
"""What the engine puts before the name of an operator that took in the activation behind it."""


class ProfilePlan(StrictRecord, frozen=True, kw_only=True):
    """Look at the ONNX file `model`, run on the first samples of `calibration`, a .npy file or a folder with one for
    each of `tensors`."""

    model: str
    calibration: str
    tensors: tuple[Input, ...]
    memory_limit_mb: float


class OperatorShare(StrictRecord, frozen=True, kw_only=True):
    """One kind of operator: how many nodes the engine runs, their share of the time of an answer, of which `depthwise`
    in convolutions of single channels, and the bytes of weights that could be stored in fewer bits, in `weights`
    constants."""

    operator: str
    nodes: int
    time: float
    depthwise: float
    weight_bytes: int
    weights: int


class GraphFacts(StrictRecord, frozen=True, kw_only=True):
    """What is known of a float model before anything is built: `size` in bytes, what each kind of operator has of it,
    `answer_ms`, how long an answer takes while it is profiled, `overhead`, the share of that in no operator, and
    whether it is `quantized` already."""

    size: int
    operators: tuple[OperatorShare, ...]
    answer_ms: float
    overhead: float
    quantized: bool

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights that could be stored in fewer bits."""
        return sum(one.weight_bytes for one in self.operators)


def graph_facts(plan: ProfilePlan) -> GraphFacts | None:
    """Return the facts, or None when they cannot be had: then everything is worth trying."""
    words = ["edge_compression.evaluation.graph_profile", msgspec.json.encode(plan).decode()]
    try:
        return msgspec.json.decode(run(words, timeout_s=TIMEOUT_S).stdout, type=GraphFacts)
    except (subprocess.SubprocessError, msgspec.MsgspecError):
        return None


def profile(plan: ProfilePlan) -> GraphFacts:
    """Gather the facts in this process."""
    from edge_compression.onnx_tools.graph import load, with_names
    from edge_compression.onnx_tools.inner_graphs import hoist_constants
    from edge_compression.onnx_tools.precision import is_quantized
    from edge_compression.quantization.weights import MIN_VALUES, find_weights

    model = with_names(load(Path(plan.model).read_bytes()))
    runs = stored_runs(plan.tensors, Path(plan.calibration))
    feeds = [runs.feeds(index) for index in range(min(RUNS, runs.count))]
    found = _timed(model, feeds)
    stored: Counter[str] = Counter()
    count: Counter[str] = Counter()
    hoist_constants(model, MIN_VALUES)
    for weight in find_weights(model, ()):
        stored[weight.nodes[0].op_type] += weight.values.size * (2 if weight.half else 4)
        count[weight.nodes[0].op_type] += 1
    operators = tuple(
        OperatorShare(
            operator=kind,
            nodes=found.nodes[kind],
            time=found.times[kind],
            depthwise=found.depthwise[kind],
            weight_bytes=stored[kind],
            weights=count[kind],
        )
        for kind in sorted({*found.nodes, *stored}, key=lambda kind: -found.times[kind])
    )
    size = Path(plan.model).stat().st_size
    return GraphFacts(
        size=size,
        operators=operators,
        answer_ms=found.answer_ms,
        overhead=found.overhead,
        quantized=is_quantized(model),
    )


@dataclass(frozen=True, kw_only=True)
class TimeShares:
    """From a profile: the milliseconds of an answer, and by kind of operator the nodes, their share of it, and of that
    the share of depthwise convolutions; `overhead` is in no node."""

    answer_ms: float
    nodes: Counter[str]
    times: Mapping[str, float]
    depthwise: Mapping[str, float]
    overhead: float


def _timed(model: Any, feeds: list[Feeds]) -> TimeShares:
    import onnxruntime

    from edge_compression.onnx_tools.graph import attributes, initializers, save

    constants = initializers(model)
    single = set()
    for node in model.graph.node:
        weights = constants.get(node.input[1]) if node.op_type == "Conv" else None
        if weights is not None and attributes(node).get("group", 1) > 1 and weights.dims[1] == 1:
            # The engine names a convolution after the activation that it took in, or after what that makes.
            after = [one for one in model.graph.node if node.output[0] in one.input]
            single |= {name for one in (node, *after) for name in (one.name, *one.output)}
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        opened = onnxruntime.InferenceSession(save(model), options, providers=["CPUExecutionProvider"])
        began, answers = time.monotonic(), 0
        while answers < RUNS and (answers == 0 or time.monotonic() - began < RUN_S):
            opened.run(None, feeds[answers % len(feeds)])
            answers += 1
        path = Path(opened.end_profiling())
        events = json.loads(path.read_bytes()) if path.stat().st_size <= MOST_EVENTS_BYTES else []
    return shares(events, single)


def shares(events: Iterable[Mapping[str, Any]], single: Iterable[str]) -> TimeShares:
    """Return where the time is by the engine's events; `single` names what depthwise convolutions may be called."""
    spent: dict[tuple[str, str], list[float]] = defaultdict(list)
    answers: list[float] = []
    for event in events:
        name, duration = str(event.get("name", "")), float(event.get("dur", 0.0))
        if name == "model_run":
            answers.append(duration)
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            kind = str(event.get("args", {}).get("op_name", "")).removeprefix(FUSED)
            spent[kind, name.removesuffix("_kernel_time")].append(duration)
    # Medians: a node from which the core was taken away now and then is no slower for that.
    typical = {node: float(np.median(durations)) for node, durations in spent.items()}
    total = max(float(np.median(answers)) if answers else 0.0, sum(typical.values()), 1e-9)
    nodes = Counter[str]()
    times, alone = defaultdict[str, float](float), defaultdict[str, float](float)
    lonely = frozenset(single)
    for (kind, node), duration in typical.items():
        nodes[kind] += 1
        times[kind] += duration / total
        alone[kind] += duration / total if not lonely.isdisjoint(_parts(node)) else 0.0
    overhead = 1.0 - sum(typical.values()) / total
    return TimeShares(answer_ms=total / 1e3, nodes=nodes, times=times, depthwise=alone, overhead=overhead)


def _parts(node: str) -> list[str]:
    """Return the names of the graph's nodes that a node of the engine's may be made of."""
    return [part.removesuffix("_nchwc") for part in (node, *node.split(" "))]


def main(arguments: list[str]) -> int:
    """Run the plan given as JSON, for whoever has the process id after it. The engine prints: only our own descriptor
    carries the result."""
    die_with(arguments[1])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    plan = msgspec.json.decode(arguments[0], type=ProfilePlan)
    limit = int(plan.memory_limit_mb * MIB)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    answers.write(msgspec.json.encode(profile(plan)))
    answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

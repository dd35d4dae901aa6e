"""What the harness says to a runner and what it answers: JSON lines over the runner's standard input and output.

The runner is `edge_bench.runner`, one throw-away process a model file; the harness's end is `edge_bench.measure`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edge_agent.ports import TensorInfo
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format, SampleMapping


class FedInput(StrictRecord, frozen=True, kw_only=True):
    """How one input is fed: samples through `mapping`, else a `constant`, else the output `feedback` of the step
    before, zeros first. `name` is None for the model's only input."""

    name: str | None = None
    mapping: SampleMapping | None = None
    constant: tuple[int | float, ...] | None = None
    feedback: str | None = None


class RunnerPlan(StrictRecord, frozen=True, kw_only=True):
    """One model file to load and what to feed it: `samples` is a .npy file of samples in `mapping.dtype`, mapped as
    the agent maps requests and fed one at a time. Empty `mapping` feeds the samples as they are. With `inputs`,
    `samples` is a folder with a file `<i>.npy` for each of them that is fed from samples."""

    model: str
    format: Format
    samples: str
    mapping: SampleMapping | None = None
    inputs: tuple[FedInput, ...] = ()
    threads: int = 1
    optimize: bool = True
    memory_limit_mb: float | None = None
    shapes: dict[str, tuple[int, ...]] = {}
    """Sizes of random inputs, for those that the model leaves open."""


class Opened(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="opened"):
    """The engine has taken the model and declares this of it; nothing has been fed yet."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


class Loaded(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="loaded"):
    """The model has answered once. Memory is the growth of the process's peak over the engine alone."""

    load_ms: float
    first_ms: float
    peak_memory_mb: float
    engine: str
    engine_version: str
    fed: tuple[TensorInfo, ...] = ()
    """What was fed, with the sizes that it had."""

    base_mb: float = 0.0
    """Resident memory before the model was loaded: interpreter and engine."""

    prepare_ms: float = 0.0
    """What mapping one sample to what the model is fed took, in the median; it is not part of any latency."""


class Timed(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="timed"):
    """Latencies of one round in milliseconds, in the order they happened."""

    latencies_ms: tuple[float, ...]


class Driven(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="driven"):
    """One block of a scenario is over; its latencies are in the file asked for. Times in seconds; `given_way` counts
    how often the process had to leave its core to others. `summary` is what LoadGen said, where it drove."""

    queries: int
    samples: int
    wall_s: float
    cpu_s: float
    major_faults: int = 0
    minor_faults: int = 0
    given_way: int = 0
    summary: dict[str, str] = {}


class OperatorCost(StrictRecord, frozen=True, kw_only=True):
    """One node of the graph that the engine runs, its kind, milliseconds an inference and share of all nodes."""

    name: str
    operator: str
    ms: float
    share: float


class Profiled(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="profiled"):
    """What operators cost, the dearest first, or in `note` why that is not told."""

    operators: tuple[OperatorCost, ...] = ()
    note: str = ""


class Predicted(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="predicted"):
    """Answers to all samples are in the file asked for, one array an output, `output_<i>`."""

    count: int


class RunnerFailed(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="failed"):
    """The runner could not; `reason` is an error's code."""

    reason: str
    text: str
    hint: str | None = None


class Measure(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="measure"):
    """Time inferences for about `seconds`."""

    seconds: float


class Predict(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="predict"):
    """Answer the first `count` samples of a file or folder like the plan's (all when None) and write the answers to
    `out` (.npz)."""

    samples: str
    out: str
    count: int | None = None


class Drive(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="drive"):
    """Put load on the model for `seconds`, or until `count` queries are answered, and write the latencies of the
    queries to `out` (float64, milliseconds, no header). `rate` queries a second are due in the scenario "server",
    `streams` samples make a query in "multi_stream"; `driver` "loadgen" leaves it to MLPerf's own LoadGen."""

    scenario: Literal["single_stream", "multi_stream", "server", "offline"]
    seconds: float
    out: str
    count: int | None = None
    rate: float = 0.0
    deadline_ms: float = 0.0
    streams: int = 8
    seed: int = 0
    driver: Literal["own", "loadgen"] = "own"


class Profile(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="profile"):
    """Have the engine's own profiler tell what operators cost."""


Answer = Opened | Loaded | Timed | Driven | Profiled | Predicted | RunnerFailed
Order = Measure | Drive | Profile | Predict

_answers: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)
_orders: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)


def parse_answer(line: bytes) -> Answer:
    """Parse one line of a runner. Raises msgspec.MsgspecError."""
    return _answers.decode(line)


def parse_order(line: bytes) -> Order:
    """Parse one line of the harness. Raises msgspec.MsgspecError."""
    return _orders.decode(line)

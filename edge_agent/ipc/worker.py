"""What the supervisor and a worker say to each other: JSON lines over one inherited socket pair.

The worker also keeps two 64-bit counters (requests started, requests finished) in memory shared with the supervisor,
so that the requests lost in a killed worker are known exactly; see `edge_agent.ipc.in_flight`.
"""

from __future__ import annotations

import msgspec

from edge_agent.config.inference_options import Batching, Certainty
from edge_agent.config.shadow_capture import CaptureConfig
from edge_agent.fallback_ladder import Rung
from edge_contracts.codec import StrictRecord


class WorkerPlan(StrictRecord, frozen=True, kw_only=True):
    """Everything a worker is told at its start, as one JSON argument. The listening socket and the link arrive as
    file descriptors; `flight_fd` is the shared counter page, `mirror_fd` the way to the slot's shadow. -1 means not
    given."""

    slot: str
    ladder: tuple[Rung, ...]
    listen_fd: int = -1
    link_fd: int = -1
    flight_fd: int = -1
    mirror_fd: int = -1
    threads: int = 1
    cache: str | None = None
    memory_limit_mb: float | None = None
    heartbeat_s: float = 1.0
    drain_s: float = 5.0
    batch: Batching | None = None
    certainty: Certainty | None = None
    capture: CaptureConfig | None = None
    refused_bytes: int | None = None
    """Requests of so many bytes of tensors are refused: one has ended a worker before."""
    takes_over: bool = False
    """Whether another worker serves until it is ready: it loads with the CPU time that one leaves, and warms up."""


# Worker to supervisor


class Ready(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="ready"):
    """The first rung is loaded and warm; requests are being answered."""

    pid: int
    served_by: str
    load_ms: float


class Heartbeat(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="heartbeat"):
    """Totals since the worker's start; the supervisor takes differences. `histograms` are counts over
    the bins of the bundle, of all requests and, as `core.tags` names them, of each tag's. `nodes` says, of a pipeline,
    which rung answered last in each model."""

    counters: dict[str, int]
    served_by: dict[str, int]
    latency_log2_us: tuple[int, ...]
    histograms: dict[str, tuple[int, ...]] = {}
    rung: str
    idle_s: float
    nodes: dict[str, str] = {}


class Fault(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="fault"):
    """A rung failed and the worker went on down its ladder, or the worker is about to end itself (`fatal`)."""

    served_by: str
    reason: str
    text: str
    fatal: bool = False


class Drained(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="drained"):
    """No connection is left; the worker ends now."""

    cut: int = 0


# Supervisor to worker


class Prefer(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="prefer"):
    """Serve from this variant of the active release from now on (None: the ladder's own first)."""

    variant: str | None
    threads: int | None = None


class Shed(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="shed"):
    """Answer 503 with Retry-After to new requests; 0 ends it."""

    retry_after_s: float


class AgentView(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="view"):
    """The supervisor's own readings, for `/metrics` of the worker: name to value."""

    gauges: dict[str, float]


class TapSettings(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="aside"):
    """From now on, show this share of the requests to the shadow, and let captures go on or not."""

    shadow: float
    capture: bool


class Drain(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="drain"):
    """Stop accepting; answer what comes with `Connection: close`; end when no connection is left or after the time."""

    deadline_s: float


ToSupervisor = Ready | Heartbeat | Fault | Drained
ToWorker = Prefer | Shed | AgentView | TapSettings | Drain

MAX_LINE_BYTES = 256 * 1024
"""A heartbeat with every histogram is a few kilobytes; a longer line means a broken peer."""

_to_supervisor: msgspec.json.Decoder[ToSupervisor] = msgspec.json.Decoder(ToSupervisor)
_to_worker: msgspec.json.Decoder[ToWorker] = msgspec.json.Decoder(ToWorker)


def line(message: ToSupervisor | ToWorker) -> bytes:
    """Return the message as one line."""
    return msgspec.json.encode(message) + b"\n"


def parse_to_supervisor(data: bytes) -> ToSupervisor:
    """Parse one line from a worker. Raises msgspec.MsgspecError: the peer is our own process, so it is a bug."""
    return _to_supervisor.decode(data)


def parse_to_worker(data: bytes) -> ToWorker:
    """Parse one line from the supervisor. Raises msgspec.MsgspecError."""
    return _to_worker.decode(data)

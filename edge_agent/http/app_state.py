"""What the application serves now, as the worker sets it."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, field

from edge_agent.answer import Answer
from edge_agent.errors import EngineMemoryError
from edge_agent.http.batcher import Batcher
from edge_agent.inference.runtime import Runtime
from edge_agent.ports import Tensors


class AppState(Struct, kw_only=True):
    """`retry_after_s` over 0 sheds new requests. `onlook` is shown each answer with its request, before their memory is
    used again. `gauges` and `labels` are for `/metrics`; `totals` gives counters that others keep, for it as well.
    `last_ms` is when inference was last asked for, in milliseconds since the epoch by the device's clock; 0: never."""

    runtime: Runtime | None = None
    batcher: Batcher | None = None
    retry_after_s: float = 0.0
    draining: bool = False
    gauges: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    totals: Callable[[], dict[str, int]] = dict
    on_memory_error: Callable[[EngineMemoryError], None] | None = None
    tap: Callable[[Tensors, Answer], None] | None = None
    last_ms: int = 0

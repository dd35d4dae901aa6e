"""The Open Inference Protocol v2 as an application: paths, methods, status codes, metrics.

The codec is in `adapters.oip`, connections and limits on bodies in `adapters.connection`, the answers in `runtime`. One
application serves one runtime; until it has one, and while it sheds load, inference is answered 503 with Retry-After.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import unquote

import msgspec
from msgspec import Struct, field

from edge_agent.answer import Answer
from edge_agent.errors import EngineMemoryError, TensorError
from edge_agent.http.batcher import Batcher
from edge_agent.http.messages import JSON, Answering, HttpError, HttpResponse, RequestHead, retry
from edge_agent.http.oip_codec import InferRequest, model_metadata
from edge_agent.http.oip_template_cache import TemplateCache
from edge_agent.http.prometheus import exposition
from edge_agent.inference.runtime import Runtime
from edge_agent.ports import Tensors
from edge_contracts import __version__

INLINE_US: Final = 2000
"""Answers faster than this are computed on the event loop: a hop to a thread costs as much as they do."""

_EXTENSIONS: Final = ["binary_tensor_data"]
_BINARY: Final = (b"content-type", b"application/octet-stream")
_TEXT: Final = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


class AppState(Struct, kw_only=True):
    """What the application serves now; the worker changes it. `retry_after_s` over 0 sheds new requests. `onlook` is
    shown each answer with its request, before their memory is used again. `gauges` and `labels` are for `/metrics`."""

    runtime: Runtime | None = None
    batcher: Batcher | None = None
    retry_after_s: float = 0.0
    draining: bool = False
    gauges: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    on_memory_error: Callable[[EngineMemoryError], None] | None = None
    onlook: Callable[[Tensors, Answer], None] | None = None


class OipApp:
    """See `adapters.exchange.Application`."""

    def __init__(self, serving: AppState) -> None:
        self._serving = serving
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        self._usual_us = float(INLINE_US)  # not known to be fast until seen
        self._forms: TemplateCache | None = None
        self._known: tuple[bytes, Runtime] | None = None  # the path of inference, found right once

    def accept(self, head: RequestHead) -> Answering:
        known = self._known
        if known is not None and head.path == known[0] and head.method == "POST" and not self._serving.retry_after_s:
            return self._inference(head, known[1])
        parts = [unquote(part) for part in head.path.decode("ascii", "replace").strip("/").split("/")]
        match parts:
            case ["v2", "models", name, *rest]:
                return self._model(head, name, rest)
            case ["v2"]:
                body = {"name": "edgewright", "version": __version__, "extensions": _EXTENSIONS}
                return _get(head, lambda: body)
            case ["v2", "health", "live"]:
                return _get(head, lambda: {"live": True})
            case ["v2", "health", "ready"]:
                return _get(head, lambda: {"ready": self._ready() is not None})
            case ["metrics"]:
                _allow(head, "GET")
                return lambda _: self._metrics()
        raise _no_path(head)

    def _model(self, head: RequestHead, name: str, rest: list[str]) -> Answering:
        runtime = self._runtime()
        manifest = runtime.manifest
        if name != manifest.name:
            raise HttpError(404, f"unknown model {name[:80]!r}; this slot serves {manifest.name}")
        if rest[:1] == ["versions"] and len(rest) > 1:
            if rest[1] != manifest.version:
                raise HttpError(404, f"unknown version {rest[1][:80]!r} of {name}; this slot serves {manifest.version}")
            rest = rest[2:]
        match rest:
            case ["infer"]:
                _allow(head, "POST")
                if self._serving.retry_after_s:
                    raise self._shed(runtime)  # here already: then the body is not kept
                self._known = head.path, runtime
                return self._inference(head, runtime)
            case ["ready"]:
                return _get(head, lambda: {"name": manifest.name, "ready": self._ready() is not None})
            case []:
                return _get(head, lambda: model_metadata(manifest))
        raise _no_path(head)

    def _inference(self, head: RequestHead, runtime: Runtime) -> Answering:
        length = head.headers.get(b"inference-header-content-length")
        json_length = None if length is None else _number(length)
        serving = self._serving
        forms = self._forms = self._forms or TemplateCache(runtime.manifest)

        def infer(body: bytes) -> HttpResponse | Awaitable[HttpResponse]:
            if serving.retry_after_s:
                raise self._shed(runtime)
            try:
                request = forms.parse(body, json_length)
                if serving.batcher is not None or self._usual_us >= INLINE_US or runtime.busy_since is not None:
                    return self._infer_later(request, runtime, forms)
                return self._response(runtime.infer(request.tensors, request.tag), request, forms)
            except (TensorError, EngineMemoryError, MemoryError) as error:
                raise self._refusal(error) from error

        return infer

    async def _infer_later(self, request: InferRequest, runtime: Runtime, forms: TemplateCache) -> HttpResponse:
        batcher, loop = self._serving.batcher, asyncio.get_running_loop()
        try:
            if batcher is not None:
                answer = await batcher.infer(request.tensors, request.tag)
            else:
                answer = await loop.run_in_executor(self._thread, runtime.infer, request.tensors, request.tag)
            return self._response(answer, request, forms)
        except (TensorError, EngineMemoryError, MemoryError) as error:
            raise self._refusal(error) from error

    def _response(self, answer: Answer, request: InferRequest, forms: TemplateCache) -> HttpResponse:
        self._usual_us += 0.1 * (answer.timing_us - self._usual_us)
        data, json_length = forms.encode(answer, request)
        if self._serving.onlook is not None:
            self._serving.onlook(request.tensors, answer)
        if json_length is None:
            return HttpResponse(200, (JSON,), data)
        return HttpResponse(200, (_BINARY, (b"inference-header-content-length", b"%d" % json_length)), data)

    def _shed(self, runtime: Runtime) -> HttpError:
        runtime.tally.count("shed")
        return retry(self._serving.retry_after_s, "overloaded: this device is reducing load")

    def _refusal(self, error: TensorError | EngineMemoryError | MemoryError) -> HttpError:
        if isinstance(error, TensorError):
            return HttpError(400, str(error))
        if isinstance(error, EngineMemoryError):
            if self._serving.on_memory_error is not None:
                self._serving.on_memory_error(error)  # does not return in a worker
            return retry(1.0, str(error))
        return retry(1.0, "not enough memory for a request of this size now")  # an array of the request's own size

    def _runtime(self) -> Runtime:
        if self._serving.runtime is None:
            raise retry(1.0, "the model is not loaded")
        return self._serving.runtime

    def _ready(self) -> Runtime:
        runtime = self._runtime()
        if self._serving.retry_after_s > 0:
            raise retry(self._serving.retry_after_s, "overloaded: this device is reducing load")
        if self._serving.draining:
            raise retry(1.0, "this worker is shutting down")
        return runtime

    def _metrics(self) -> HttpResponse:
        runtime = self._runtime()
        labels = self._serving.labels | {"model": runtime.manifest.name, "version": runtime.manifest.version}
        return HttpResponse(200, (_TEXT,), exposition(runtime.tally, self._serving.gauges, labels))


def _get(head: RequestHead, body: Callable[[], object]) -> Answering:
    _allow(head, "GET")
    return lambda _: HttpResponse(200, (JSON,), msgspec.json.encode(body()))


def _allow(head: RequestHead, method: str) -> None:
    if head.method not in ((method, "HEAD") if method == "GET" else (method,)):
        reason = f"{head.method} is not allowed; use {method} is"
        raise HttpError(405, reason, (b"allow", method.encode()), closing=True)


def _no_path(head: RequestHead) -> HttpError:
    return HttpError(404, f"no such path: {head.path[:200].decode('ascii', 'replace')}")


def _number(value: bytes) -> int:
    if not value.isdigit() or len(value) > 12:
        raise HttpError(400, f"inference-header-content-length: not a number: {value[:20]!r}")
    return int(value)

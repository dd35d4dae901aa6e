"""The Open Inference Protocol v2 as an application: paths, methods, status codes, metrics.

Inference itself is `inference_endpoint`'s, the codec is in `oip_codec`, connections and limits on bodies are in
`connection`, the answers in `runtime`. One application serves one runtime; until it has one, and while it sheds load,
inference is answered 503 with Retry-After.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

import msgspec

from edge_agent.http.app_state import AppState
from edge_agent.http.inference_endpoint import InferenceEndpoint
from edge_agent.http.messages import JSON, Answering, HttpError, HttpResponse, RequestHead, retry
from edge_agent.http.oip_codec import model_metadata, platform
from edge_agent.http.prometheus import exposition
from edge_agent.http.triton_extensions import EXTENSIONS, model_config, model_statistics
from edge_agent.inference.runtime import Runtime
from edge_contracts import __version__

_EXTENSIONS: Final = ["binary_tensor_data", *EXTENSIONS]
_TEXT: Final = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


class OipApp:
    """See `edge_agent.http.messages.Application`."""

    def __init__(self, serving: AppState) -> None:
        self._serving = serving
        self._endpoint: InferenceEndpoint | None = None
        self._known: tuple[bytes, InferenceEndpoint] | None = None  # the path of inference, found right once

    def accept(self, head: RequestHead) -> Answering:
        known = self._known
        if known is not None and head.path == known[0] and head.method == "POST" and not self._serving.retry_after_s:
            return known[1].answering(head)
        parts = [unquote(part) for part in head.path.decode("ascii", "replace").strip("/").split("/")]
        match parts:
            case ["v2", "models", "stats"]:
                return _get(head, self._statistics)
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
                    raise self._endpoint_of(runtime).shed()  # here already: then the body is not kept
                self._known = head.path, self._endpoint_of(runtime)
                return self._known[1].answering(head)
            case ["ready"]:
                return _get(head, lambda: {"name": manifest.name, "ready": self._ready() is not None})
            case ["config"]:
                return _get(head, lambda: model_config(manifest, platform(manifest)))
            case ["stats"]:
                return _get(head, self._statistics)
            case []:
                return _get(head, lambda: model_metadata(manifest))
        raise _no_path(head)

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
        if not runtime.ready:
            raise retry(1.0, f"{runtime.serving}: no model of this slot can answer")
        return runtime

    def _endpoint_of(self, runtime: Runtime) -> InferenceEndpoint:
        if self._endpoint is None or self._endpoint.runtime is not runtime:
            self._endpoint = InferenceEndpoint(self._serving, runtime)
        return self._endpoint

    def _statistics(self) -> dict[str, object]:
        runtime = self._runtime()
        return model_statistics(runtime.manifest, runtime.tally, self._serving.last_ms)

    def _metrics(self) -> HttpResponse:
        runtime = self._runtime()
        serving = self._serving
        labels = serving.labels | {"model": runtime.manifest.name, "version": runtime.manifest.version}
        return HttpResponse(200, (_TEXT,), exposition(runtime.tally, serving.gauges, labels, serving.totals()))


def _get(head: RequestHead, body: Callable[[], object]) -> Answering:
    _allow(head, "GET")
    return lambda _: HttpResponse(200, (JSON,), msgspec.json.encode(body()))


def _allow(head: RequestHead, method: str) -> None:
    if head.method not in ((method, "HEAD") if method == "GET" else (method,)):
        reason = f"{head.method} is not allowed; use {method}"
        raise HttpError(405, reason, (b"allow", method.encode()))


def _no_path(head: RequestHead) -> HttpError:
    return HttpError(404, f"no such path: {head.path[:200].decode('ascii', 'replace')}")

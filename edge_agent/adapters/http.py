"""The Open Inference Protocol v2 as a raw ASGI application: paths, methods, limits on bodies, status codes, metrics.

The codec is in `adapters.oip`, the socket and connections in `adapters.server`, the answers in `runtime`. One
application serves one runtime; until it has one, and while it sheds load, inference is answered 503 with Retry-After.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from edge_agent.adapters.oip import encode_answer, model_metadata, parse_request
from edge_agent.errors import EngineMemoryError, TensorError
from edge_agent.flight import FlightPage
from edge_agent.metrics import exposition
from edge_agent.runtime import Answer, Runtime
from edge_contracts import __version__, limits
from edge_contracts.manifest import Manifest

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

BODY_S: Final = 30.0
"""A body that takes longer is a slow-loris or a broken link."""

INLINE_US: Final = 2000
"""Answers faster than this are computed on the event loop: a hop to a thread costs as much as they do."""

_JSON: Final = b"application/json"
_EXTENSIONS: Final = ["binary_tensor_data"]


class Refusal(Exception):  # noqa: N818 - it is an answer, not a failure of ours
    """An HTTP answer other than 200, with the reason in its body."""

    def __init__(self, status: int, reason: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers


@dataclass(kw_only=True)
class Serving:
    """What the application serves now; the worker changes it. `retry_after_s` over 0 sheds new requests."""

    runtime: Runtime | None = None
    retry_after_s: float = 0.0
    draining: bool = False
    gauges: dict[str, float] = field(default_factory=dict)
    on_memory_error: Callable[[EngineMemoryError], None] | None = None


class OipApp:
    """The ASGI application."""

    def __init__(self, serving: Serving, flight: FlightPage) -> None:
        self._serving = serving
        self._flight = flight
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        self._usual_us = float(INLINE_US)  # not known to be fast until seen
        self._buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served")
        if scope["method"] != "POST":
            await self._exchange(scope, receive, send)
            return
        self._flight.start()  # only inference is a POST; it is in flight until its answer was written
        try:
            await self._exchange(scope, receive, send)
        finally:
            self._flight.finish()

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            status, headers, body = await self._respond(scope, receive)
        except Refusal as refusal:
            status, headers = refusal.status, [(b"content-type", _JSON), *refusal.headers]
            body = msgspec.json.encode({"error": refusal.reason})
        headers.append((b"content-length", b"%d" % len(body)))
        if self._serving.draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _respond(self, scope: Scope, receive: Receive) -> tuple[int, Headers, bytes]:
        path = scope["raw_path"].decode("ascii", "replace")
        parts = [unquote(part) for part in path.strip("/").split("/")]
        match parts:
            case ["v2", "models", name, *rest]:
                return await self._model(scope, receive, name, rest)
            case ["v2"]:
                _allow(scope, "GET")
                return _json({"name": "edgewright", "version": __version__, "extensions": _EXTENSIONS})
            case ["v2", "health", "live"]:
                _allow(scope, "GET")
                return _json({"live": True})
            case ["v2", "health", "ready"]:
                _allow(scope, "GET")
                self._ready()
                return _json({"ready": True})
            case ["metrics"]:
                _allow(scope, "GET")
                return self._metrics()
        raise Refusal(404, f"no such path: {path[:200]}")

    async def _model(self, scope: Scope, receive: Receive, name: str, rest: list[str]) -> tuple[int, Headers, bytes]:
        runtime = self._ready() if rest[-1:] == ["ready"] else self._runtime()
        manifest = runtime.manifest
        if name != manifest.name:
            raise Refusal(404, f"no model {name[:80]!r} here, this slot serves {manifest.name}")
        if rest[:1] == ["versions"] and len(rest) > 1:
            if rest[1] != manifest.version:
                raise Refusal(404, f"no version {rest[1][:80]!r} of {name} here, this slot serves {manifest.version}")
            rest = rest[2:]
        match rest:
            case ["infer"]:
                _allow(scope, "POST")
                return await self._infer(scope, receive, runtime)
            case ["ready"]:
                _allow(scope, "GET")
                return _json({"name": manifest.name, "ready": True})
            case []:
                _allow(scope, "GET")
                return _json(model_metadata(manifest))
        raise Refusal(404, f"no such path: {scope['path'][:200]}")

    async def _infer(self, scope: Scope, receive: Receive, runtime: Runtime) -> tuple[int, Headers, bytes]:
        try:
            headers = dict(scope["headers"])
            if self._serving.retry_after_s > 0:
                runtime.tally.counters["shed"] += 1
                raise _retry(self._serving.retry_after_s, "this device sheds load")
            body = await self._body(headers, receive)
            return await self._answer(headers, body, runtime)
        except TensorError as error:
            raise Refusal(400, str(error)) from error
        except MemoryError as error:  # ours, not the engine's: an array of the request's own size
            raise _retry(1.0, "no memory for a request of this size now") from error

    async def _answer(self, headers: dict[bytes, bytes], body: bytes, runtime: Runtime) -> tuple[int, Headers, bytes]:
        request = parse_request(body, _json_length(headers), runtime.manifest)
        try:
            answer = await self._run(runtime, request.tensors)
        except EngineMemoryError as error:
            if self._serving.on_memory_error is not None:
                self._serving.on_memory_error(error)  # does not return in a worker
            raise _retry(1.0, str(error)) from error
        self._usual_us += 0.1 * (answer.timing_us - self._usual_us)
        data, json_length = encode_answer(answer, request, runtime.manifest)
        if json_length is None:
            return 200, [(b"content-type", _JSON)], data
        length = (b"inference-header-content-length", b"%d" % json_length)
        return 200, [(b"content-type", b"application/octet-stream"), length], data

    async def _run(self, runtime: Runtime, tensors: dict[str, Any]) -> Answer:
        if self._usual_us < INLINE_US and runtime.busy_since is None:
            return runtime.infer(tensors)
        return await asyncio.get_running_loop().run_in_executor(self._thread, runtime.infer, tensors)

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """Return the request's body. Raises Refusal 408, 413, 415 or 503 before more than the limits is held."""
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise Refusal(415, "content-encoding: compressed bodies are not read", _CLOSE)
        declared = headers.get(b"content-length", b"0")
        if int(declared) > limits.MAX_REQUEST_BYTES:
            raise _too_large(int(declared))
        message = await receive()
        if not message.get("more_body", False):
            return _complete(message)
        try:
            async with asyncio.timeout(BODY_S):
                return await self._collect(message, receive)
        except TimeoutError as error:
            raise Refusal(408, f"the body did not arrive within {BODY_S:g} s", _CLOSE) from error

    async def _collect(self, message: MutableMapping[str, Any], receive: Receive) -> bytes:
        parts: list[bytes] = []
        held = 0
        try:
            while True:
                parts.append(_complete(message))
                held += len(parts[-1])
                self._buffered += len(parts[-1])
                if held > limits.MAX_REQUEST_BYTES:
                    raise _too_large(held)
                if self._buffered > limits.MAX_BUFFERED_BYTES:
                    raise _retry(1.0, "too many large requests at once")
                if not message.get("more_body", False):
                    return b"".join(parts)
                message = await receive()
        finally:
            self._buffered -= held

    def _runtime(self) -> Runtime:
        if self._serving.runtime is None:
            raise _retry(1.0, "the model is not loaded")
        return self._serving.runtime

    def _ready(self) -> Runtime:
        runtime = self._runtime()
        if self._serving.retry_after_s > 0:
            raise _retry(self._serving.retry_after_s, "this device sheds load")
        if self._serving.draining:
            raise _retry(1.0, "this worker is ending")
        return runtime

    def _metrics(self) -> tuple[int, Headers, bytes]:
        runtime = self._runtime()
        manifest: Manifest = runtime.manifest
        labels = {"model": manifest.name, "version": manifest.version}
        text = exposition(runtime.tally, self._serving.gauges, labels)
        return 200, [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")], text


_CLOSE: Final = (b"connection", b"close")  # the rest of the body will not be read


def _json(value: object) -> tuple[int, Headers, bytes]:
    return 200, [(b"content-type", _JSON)], msgspec.json.encode(value)


def _allow(scope: Scope, method: str) -> None:
    if scope["method"] not in ((method, "HEAD") if method == "GET" else (method,)):
        raise Refusal(405, f"{scope['method']} is not allowed here, {method} is", (b"allow", method.encode()), _CLOSE)


def _retry(delay_s: float, reason: str) -> Refusal:
    return Refusal(503, reason, (b"retry-after", b"%d" % max(1, math.ceil(delay_s))))


def _too_large(size: int) -> Refusal:
    return Refusal(413, f"a body of {size} bytes or more, over {limits.MAX_REQUEST_BYTES}", _CLOSE)


def _complete(message: MutableMapping[str, Any]) -> bytes:
    if message["type"] == "http.disconnect":
        raise Refusal(400, "the client went away", _CLOSE)
    body: bytes = message.get("body", b"")
    return body


def _json_length(headers: dict[bytes, bytes]) -> int | None:
    value = headers.get(b"inference-header-content-length")
    if value is None:
        return None
    if not value.isdigit() or len(value) > 12:
        raise TensorError(f"not a number: {value[:20]!r}", subject="inference-header-content-length")
    return int(value)

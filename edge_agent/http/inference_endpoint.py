"""One request for inference, from its body to its answer's: decompressed, parsed, answered, encoded, compressed; on the
event loop if that is quick, else in a thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, TypeVar
from urllib.parse import unquote

import msgspec

from edge_agent.answer import Answer
from edge_agent.errors import EngineMemoryError, RequestMemoryError, TensorError
from edge_agent.http.app_state import AppState
from edge_agent.http.content_coding import Coding, accepted, coding_of, compress, decompress
from edge_agent.http.messages import JSON, Answering, Body, HttpError, HttpResponse, RequestHead, retry
from edge_agent.http.oip_codec import InferRequest
from edge_agent.http.oip_template_cache import TemplateCodec, TemplateHit
from edge_agent.inference.runtime import Runtime
from edge_agent.inference.streams import StreamStep
from edge_contracts.limits import KIB, MAX_REQUEST_BYTES, MAX_STREAM_CHARS

INLINE_US: Final = 2000
"""Answers faster than this are computed on the event loop: a hop to a thread costs as much as they do."""

INLINE_BYTES: Final = 256 * KIB
"""Bodies larger than this are never worked on there: reading so many numbers takes long by itself."""

STREAM_HEADER: Final = b"ew-stream"
"""Names the stream that a request came by, percent-encoded: a topic, where the supervisor asks for a message."""

T = TypeVar("T")

_BINARY: Final = (b"content-type", b"application/octet-stream")


class _Wish(NamedTuple):
    """What a head says of the bodies: the length of the JSON before binary tensors, how the request is compressed, and
    how and from which size on its answer may be; and the stream that a request is of which names none."""

    json_length: int | None
    coding: Coding | None
    accepts: tuple[Coding, int] | None
    stream: str | None


class InferenceEndpoint:
    """Answers requests for inference from one runtime."""

    def __init__(self, serving: AppState, runtime: Runtime) -> None:
        self.runtime = runtime
        self._serving = serving
        self._codec = TemplateCodec(runtime.manifest)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        self._usual_us = float(INLINE_US)  # not known to be fast until seen
        self._usual_bytes = 1.0

    def answering(self, head: RequestHead) -> Answering:
        """Return what answers requests with this head. Raises HttpError."""
        headers, serving, codec, runtime = head.headers, self._serving, self._codec, self.runtime
        length = headers.get(b"inference-header-content-length")
        json_length = None if length is None else _number(length)
        stream = self._stream(headers)
        wish = _Wish(json_length, coding_of(headers), accepted(headers), stream)
        accepts = wish.accepts

        def infer(body: Body) -> HttpResponse | Awaitable[HttpResponse]:
            if serving.retry_after_s:
                raise self.shed()
            serving.last_ms = int(time.time() * 1000)
            if wish.coding is not None or self._takes_long(len(body)) or runtime.busy_since is not None:
                return self._infer_in_thread(body, wish)
            try:
                parsed = codec.parse(body, json_length)
                if serving.batcher is not None:
                    return self._infer_in_batch(parsed, wish)
                request = parsed.request
                if request.step is None and stream is None:
                    answer = runtime.infer(request.tensors, request.tag)
                else:
                    answer = self._ask(request, stream)
                self._learn(answer.timing_us, len(body))
                response = self._response(answer, parsed)
            except (TensorError, EngineMemoryError) as error:
                raise self._refusal(error) from error
            if accepts is not None and len(response.body) >= accepts[1]:
                return _compressed(response, accepts[0])
            return response

        return infer

    def shed(self) -> HttpError:
        """Count a request that is shed; return its refusal."""
        self.runtime.tally.count("shed")
        return retry(self._serving.retry_after_s, "overloaded: this device is reducing load")

    def _takes_long(self, size: int) -> bool:
        """Return whether a body of this size, going by those before it, is too much for the event loop."""
        return size > INLINE_BYTES or self._usual_us * max(1.0, size / self._usual_bytes) >= INLINE_US

    def _learn(self, timing_us: int, size: int) -> None:
        self._usual_us += 0.1 * (timing_us - self._usual_us)
        self._usual_bytes += 0.1 * (size - self._usual_bytes)

    async def _infer_in_thread(self, body: Body, wish: _Wish) -> HttpResponse:
        """Parse and answer in the thread; a batcher has one of its own."""
        batcher = self._serving.batcher
        try:
            if batcher is None:
                parsed, answer = await self._run(lambda: self._answered(self._parse(body, wish), wish))
                self._learn(answer.timing_us, len(body))
                return await self._finished(answer, parsed, wish)
            parsed = await self._run(lambda: self._parse(body, wish))
        except (TensorError, EngineMemoryError) as error:
            raise self._refusal(error) from error
        return await self._infer_in_batch(parsed, wish)

    async def _infer_in_batch(self, parsed: TemplateHit, wish: _Wish) -> HttpResponse:
        batcher = self._serving.batcher
        assert batcher is not None
        try:
            if parsed.request.step is None and wish.stream is None:
                answer = await batcher.infer(parsed.request.tensors, parsed.request.tag)
            else:
                _, answer = await self._run(lambda: self._answered(parsed, wish))
        except (TensorError, EngineMemoryError) as error:
            raise self._refusal(error) from error
        return await self._finished(answer, parsed, wish)

    async def _finished(self, answer: Answer, parsed: TemplateHit, wish: _Wish) -> HttpResponse:
        response, accepts = self._response(answer, parsed), wish.accepts
        if accepts is None or len(response.body) < accepts[1]:
            return response
        return await self._run(lambda: _compressed(response, accepts[0]))

    def _parse(self, body: Body, wish: _Wish) -> TemplateHit:
        if wish.coding is not None:
            body = decompress(body, wish.coding, MAX_REQUEST_BYTES)
        return self._codec.parse(body, wish.json_length)

    def _answered(self, parsed: TemplateHit, wish: _Wish) -> tuple[TemplateHit, Answer]:
        return parsed, self._ask(parsed.request, wish.stream)

    def _ask(self, request: InferRequest, stream: str | None) -> Answer:
        """Answer a request, as a step of its stream where the model remembers: the one that it names, else its tag's or
        the one it came by. What is fed back is in no answer of the latter, whose request could not leave it out."""
        runtime, step = self.runtime, request.step
        if not runtime.remembers or (step is None and stream is None):
            return runtime.infer(request.tensors, request.tag)
        if step is not None:
            return runtime.infer_step(request.tensors, step, request.tag)
        answer = runtime.infer_step(
            request.tensors, StreamStep(stream=request.tag or stream or "", implied=True), request.tag
        )
        fed_back = {tensor.feedback for tensor in runtime.manifest.inputs}
        outputs = {name: array for name, array in answer.outputs.items() if name not in fed_back}
        return msgspec.structs.replace(answer, outputs=outputs)

    def _stream(self, headers: dict[bytes, bytes]) -> str | None:
        """Return the stream that a request came by, if the model remembers."""
        value = headers.get(STREAM_HEADER) if self.runtime.remembers else None
        return None if value is None else unquote(value.decode("latin-1"))[:MAX_STREAM_CHARS]

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _response(self, answer: Answer, parsed: TemplateHit) -> HttpResponse:
        data, json_length = self._codec.encode(answer, parsed)
        if self._serving.tap is not None:
            self._serving.tap(parsed.request.tensors, answer)
        if json_length is None:
            return HttpResponse(200, (JSON,), data)
        return HttpResponse(200, (_BINARY, (b"inference-header-content-length", b"%d" % json_length)), data)

    def _refusal(self, error: TensorError | EngineMemoryError) -> HttpError:
        if isinstance(error, TensorError):
            return HttpError(413 if isinstance(error, RequestMemoryError) else 400, str(error))
        if self._serving.on_memory_error is not None:
            self._serving.on_memory_error(error)  # does not return in a worker
        return retry(1.0, str(error))


def _compressed(response: HttpResponse, coding: Coding) -> HttpResponse:
    headers = (*response.headers, (b"content-encoding", coding.encode()), (b"vary", b"accept-encoding"))
    return HttpResponse(response.status, headers, compress(response.body, coding))


def _number(value: bytes) -> int:
    if not value.isdigit() or len(value) > 12:
        raise HttpError(400, f"inference-header-content-length: not a number: {value[:20]!r}")
    return int(value)

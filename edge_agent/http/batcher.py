"""Micro-batching: requests that arrive together are answered together, within a bound on waiting.

Off unless a slot asks for it: on one thread a batch saves calls and not arithmetic, and who waits for others is late.
What is answered in a batch, and what one by one after all, is decided in `edge_agent.inference.batch`.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from edge_agent.answer import Answer
from edge_agent.config.inference_options import Batching
from edge_agent.errors import EngineMemoryError, TensorError
from edge_agent.inference.runtime import Runtime, Tagged
from edge_agent.ports import Tensors

_Waiting = tuple[Tagged, asyncio.Future[Answer]]


class Batcher:
    """Collects requests on the event loop and has them answered in a thread, one batch at a time."""

    def __init__(self, runtime: Runtime, batching: Batching) -> None:
        self._runtime = runtime
        self._batching = batching
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batch")
        self._waiting: list[_Waiting] = []
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def infer(self, tensors: Tensors, tag: str | None = None) -> Answer:
        """Answer like `Runtime.infer`; a request waits at most `wait_ms` for others. Raises what that raises."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append(((tensors, tag), answer))
        if len(self._waiting) >= self._batching.max:
            self._run()
        elif self._timer is None:
            self._timer = loop.call_later(self._batching.wait_ms / 1000, self._run)
        return await answer

    def _run(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._waiting = self._waiting, []
        task = asyncio.get_running_loop().create_task(self._answer(batch))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        results = await loop.run_in_executor(self._thread, self._results, [request for request, _ in batch])
        for (_, answer), result in zip(batch, results, strict=True):
            if answer.done():
                continue  # nobody waits for it any more
            if isinstance(result, Answer):
                answer.set_result(result)
            else:
                answer.set_exception(result)

    def _results(self, requests: list[Tagged]) -> list[Answer | Exception]:
        try:
            together = self._runtime.infer_together(requests, self._batching.max) if len(requests) > 1 else None
        except EngineMemoryError as error:
            return [error for _ in requests]
        return list(together) if together is not None else [self._alone(*request) for request in requests]

    def _alone(self, tensors: Tensors, tag: str | None) -> Answer | Exception:
        try:
            return self._runtime.infer(tensors, tag)
        except (TensorError, EngineMemoryError, MemoryError) as error:
            return error

"""A stream as a Python program holds it; the state behind it is in `edge_agent.inference.streams`."""

from __future__ import annotations

from typing import Protocol

from edge_agent.answer import Answer
from edge_agent.inference.streams import StreamStep
from edge_agent.ports import Array, Tensors


class StepRuntime(Protocol):
    """What answers the steps of streams."""

    def infer_step(self, tensors: dict[str, Array], step: StreamStep, tag: str | None = None) -> Answer:
        """Answer one step."""

    def end_stream(self, name: str | int) -> None:
        """Forget a stream's state."""


class Stream:
    """One source whose samples follow each other, fed step by step to a model that remembers.

        with runtime.stream() as stream:
            for frame in frames:
                answer = stream.infer({"input": frame})

    Its state is kept by the runtime. Leaving the block forgets it.
    """

    def __init__(self, runtime: StepRuntime, name: str | int) -> None:
        self.name = name
        self._runtime = runtime
        self._start = True

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def infer(self, tensors: Tensors, tag: str | None = None) -> Answer:
        """Answer the next step. Raises what `Runtime.infer` raises."""
        step = StreamStep(stream=self.name, start=self._start)
        answer = self._runtime.infer_step(dict(tensors), step, tag)
        self._start = False
        return answer

    def reset(self) -> None:
        """Have the next step be the first."""
        self._start = True

    def close(self) -> None:
        """Forget the state."""
        self._start = True
        self._runtime.end_stream(self.name)

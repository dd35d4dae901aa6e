"""LiteRT (the successor of TensorFlow Lite): ai-edge-litert, else tflite-runtime, whose wheels still cover 32-bit ARM.

Quantized integer inputs and outputs are passed as they are: what their numbers mean is the bundle's business.
"""

from __future__ import annotations

import importlib.metadata
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

try:
    from ai_edge_litert.interpreter import Interpreter

    _DISTRIBUTION = "ai-edge-litert"
except ImportError:  # the older runtime has the same class
    from tflite_runtime.interpreter import Interpreter

    _DISTRIBUTION = "tflite-runtime"

from edge_agent.engines.registry import is_out_of_memory
from edge_agent.engines.tflite_external_data import refuse_external_buffers
from edge_agent.errors import EngineError, EngineMemoryError
from edge_agent.ports import Array, Engine, EngineSettings, TensorInfo, Tensors


class LiteRtSession:
    """A model in LiteRT. The first dimension is resized when a request's batch differs. See `ports.Session`."""

    def __init__(self, interpreter: Any) -> None:
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        self.inputs = tuple(_tensor_info(detail) for detail in inputs)
        self.outputs = tuple(_tensor_info(detail) for detail in outputs)
        self._feeds = tuple((detail["name"], detail["index"]) for detail in inputs)
        self._fetches = tuple((detail["name"], detail["index"]) for detail in outputs)
        self._shapes = {detail["name"]: tuple(int(size) for size in detail["shape"]) for detail in inputs}
        self._interpreter: Any = interpreter

    def run(self, feeds: Tensors, *, shrink: bool = False) -> dict[str, Array]:  # noqa: ARG002
        interpreter = self._interpreter
        if interpreter is None:
            raise EngineError("the session is closed")
        try:
            if any(feeds[name].shape != self._shapes.get(name) for name, _ in self._feeds):
                self._resize(feeds)
            for name, index in self._feeds:
                interpreter.set_tensor(index, feeds[name])
            interpreter.invoke()
            return {name: interpreter.get_tensor(index) for name, index in self._fetches}
        except Exception as error:  # ValueError and RuntimeError with free text
            raise _engine_error(error, "run") from error

    def bind(self, feeds: Tensors, answer: Tensors) -> LiteRtBound:
        return LiteRtBound(self, feeds, answer)

    def close(self) -> None:
        self._interpreter = None

    def _resize(self, feeds: Tensors) -> None:
        for name, index in self._feeds:
            self._interpreter.resize_tensor_input(index, list(feeds[name].shape))
        self._shapes = {}  # a failure below leaves no shape believed in
        self._interpreter.allocate_tensors()
        self._shapes = {name: feeds[name].shape for name, _ in self._feeds}


class LiteRtBound:
    """See `edge_agent.ports.Bound`. The interpreter has buffers of its own and gives no lasting hold of them, so this
    copies."""

    def __init__(self, session: LiteRtSession, feeds: Tensors, answer: Tensors) -> None:
        self.inputs = tuple(np.array(array, order="C") for array in feeds.values())
        self.outputs = tuple(np.zeros(array.shape, array.dtype) for array in answer.values())
        self._session = session
        self._feeds = dict(zip(feeds, self.inputs, strict=True))
        self._fetches = dict(zip(answer, self.outputs, strict=True))

    def run(self) -> None:
        answer = self._session.run(self._feeds)
        for name, buffer in self._fetches.items():
            if answer[name].shape != buffer.shape:
                raise EngineError(f"answer of shape {answer[name].shape}, not {buffer.shape}", subject=name)
            buffer[...] = answer[name]


class LiteRtEngine:
    """See `edge_agent.ports.Engine`."""

    name = "litert"
    version: str = importlib.metadata.version(_DISTRIBUTION)

    def load(self, model: Path, settings: EngineSettings) -> LiteRtSession:
        try:
            data = model.read_bytes()
        except OSError as error:
            raise EngineError(error.strerror or "cannot be read", subject=str(model)) from error
        refuse_external_buffers(data, what=model.name)
        try:
            interpreter = Interpreter(model_content=data, num_threads=settings.threads, **_resolver(settings))
            interpreter.allocate_tensors()
            return LiteRtSession(interpreter)
        except Exception as error:
            raise _engine_error(error, model.name) from error


@cache
def engine() -> Engine:
    """Return the engine."""
    return LiteRtEngine()


def _resolver(settings: EngineSettings) -> dict[str, Any]:
    """Without optimization the file's own kernels run, not the XNNPACK delegate's."""
    if settings.optimize:
        return {}
    module = importlib.import_module(Interpreter.__module__)
    return {"experimental_op_resolver_type": module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}


def _tensor_info(detail: Any) -> TensorInfo:
    signature = detail.get("shape_signature")
    shape = detail["shape"] if signature is None or not len(signature) else signature
    sizes = tuple(int(size) for size in shape)
    # The file's batch is only what it was converted with: `run` resizes it.
    return TensorInfo(
        name=detail["name"], dtype=np.dtype(detail["dtype"]).name, shape=(-1, *sizes[1:]) if sizes else ()
    )


def _engine_error(error: Exception, what: str) -> EngineError:
    if isinstance(error, EngineError):
        return error
    kind = EngineMemoryError if is_out_of_memory(error) else EngineError
    return kind(str(error)[:500], subject=what)

"""ONNX Runtime: loads a model from its bytes with a fixed, short list of session options.

Bytes, not a path: then nothing inside the model can name another file (older versions followed external data
anywhere; see also `wire.py`). One thread and no spinning unless told otherwise: the default thread pool costs ten
times the CPU on sparse traffic. The optimized graph is kept in a cache because optimizing is half of a load.
"""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from edge_agent.engines.onnx_external_data import refuse_external_data
from edge_agent.engines.registry import is_out_of_memory
from edge_agent.errors import EngineError, EngineMemoryError
from edge_agent.ports import Array, Engine, EngineSettings, TensorInfo, Tensors
from edge_contracts.limits import MIB

_QUIET: Final = 4  # only what ends the process; everything else reaches the caller as an exception
_PROVIDERS: Final = ["CPUExecutionProvider"]
SHRINK_BYTES: Final = MIB
"""Tensors from this size on are of a request larger than usual, or of a model that takes long anyway."""

_DTYPES: Final = {
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}


class OnnxSession:
    """A model in ONNX Runtime. See `edge_agent.ports.Session`."""

    def __init__(self, session: Any) -> None:
        self.inputs = tuple(_tensor_info(node) for node in session.get_inputs())
        self.outputs = tuple(_tensor_info(node) for node in session.get_outputs())
        self._names = [info.name for info in self.outputs]
        # The inner object saves the public method's checks, about 6 µs a call; ours were done by then.
        inner = getattr(session, "_sess", None)
        self._run: Any = session.run if inner is None else inner.run
        self._session: Any = session

    def run(self, feeds: Tensors, *, shrink: bool = False) -> dict[str, Array]:
        try:
            options = self._options_for(feeds, shrink)
            return dict(zip(self._names, self._run(self._names, feeds, options)))  # noqa: B905 - its own
        except Exception as error:  # the engine raises a dozen types without a common base
            raise _engine_error(error, "run") from error

    def _options_for(self, feeds: Tensors, shrink: bool) -> Any:
        """Return the run's options: after a large request the arena gives its memory back; else it keeps it."""
        if not shrink and sum([array.nbytes for array in feeds.values()]) < SHRINK_BYTES:
            return None
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        return options

    def bind(self, feeds: Tensors, answer: Tensors) -> OnnxBound:
        try:
            return OnnxBound(self._session, feeds, answer)
        except Exception as error:
            raise _engine_error(error, "bind") from error

    def close(self) -> None:
        self._run = _closed
        self._session = None


class OnnxBound:
    """See `edge_agent.ports.Bound`. Bound outputs save a tenth of a small model's time, one object of run options for
    all runs half as much again."""

    def __init__(self, session: Any, feeds: Tensors, answer: Tensors) -> None:
        self.inputs = tuple(np.array(array, order="C") for array in feeds.values())
        self.outputs = tuple(np.zeros(array.shape, array.dtype) for array in answer.values())
        binding = session.io_binding()
        for name, array in zip(feeds, self.inputs, strict=True):
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for name, array in zip(answer, self.outputs, strict=True):
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        inner = getattr(session, "_sess", None)
        options = onnxruntime.RunOptions()
        if inner is None:
            self._call = partial(session.run_with_iobinding, binding, options)
        else:
            self._call = partial(inner.run_with_iobinding, binding._iobinding, options)

    def run(self) -> None:
        try:
            self._call()
        except Exception as error:
            raise _engine_error(error, "run") from error


class OnnxEngine:
    """See `edge_agent.ports.Engine`."""

    name = "onnxruntime"
    version: str = onnxruntime.__version__

    def load(self, model: Path, settings: EngineSettings) -> OnnxSession:
        try:
            data = model.read_bytes()
        except OSError as error:
            raise EngineError(error.strerror or "cannot be read", subject=str(model)) from error
        refuse_external_data(data, what=model.name)
        cached = _cache_path(data, settings)
        if cached is not None:
            session = _load_cached(cached, settings)
            if session is not None:
                return session
        try:
            return _load_and_cache(data, settings, cached)
        except Exception as error:
            raise _engine_error(error, model.name) from error


@cache
def engine() -> Engine:
    """Return the engine, with the library's own logging silenced."""
    onnxruntime.set_default_logger_severity(_QUIET)
    return OnnxEngine()


def _options(settings: EngineSettings, *, optimize: bool) -> Any:
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    options.log_severity_level = _QUIET
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def _load_and_cache(data: bytes, settings: EngineSettings, cached: Path | None) -> OnnxSession:
    options = _options(settings, optimize=settings.optimize)
    if cached is None:
        return OnnxSession(onnxruntime.InferenceSession(data, options, providers=_PROVIDERS))
    import tempfile  # once a model: a worker that finds it in the cache needs none

    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent) as folder:
            written = Path(folder) / "model.onnx"
            options.optimized_model_filepath = str(written)
            session = OnnxSession(onnxruntime.InferenceSession(data, options, providers=_PROVIDERS))
            _publish(written, cached)
            return session
    except Exception as error:  # a full or read-only disk, said by the system or by the engine, costs only the cache
        if is_out_of_memory(error):
            raise
        return _load_and_cache(data, settings, None)


def _publish(written: Path, cached: Path) -> None:
    with written.open("rb+") as file:
        os.fsync(file.fileno())
    written.replace(cached)


def _load_cached(cached: Path, settings: EngineSettings) -> OnnxSession | None:
    try:
        data = cached.read_bytes()
    except OSError:
        return None
    try:
        options = _options(settings, optimize=False)  # it is optimized already
        return OnnxSession(onnxruntime.InferenceSession(data, options, providers=_PROVIDERS))
    except Exception as error:
        if is_out_of_memory(error):
            raise _engine_error(error, cached.name) from error
        cached.unlink(missing_ok=True)  # damaged: the model itself is still there
        return None


def _cache_path(model: bytes, settings: EngineSettings) -> Path | None:
    if settings.cache is None or not settings.optimize:
        return None
    # The model's digest first: by it garbage collection knows whose the file is (`edge_agent.storage.state_dir`).
    here = hashlib.sha256(f"{onnxruntime.__version__}\n{_cpu()}".encode()).hexdigest()[:16]
    return settings.cache / f"{hashlib.sha256(model).hexdigest()}-{here}.onnx"


@cache
def _cpu() -> str:
    """The CPU's model and features: the optimized graph holds kernels and layouts chosen for them."""
    lines = {platform.machine()}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.split("\t")[0].split(":")[0] in ("model name", "flags", "Features", "CPU part"):
                lines.add(line)
    except OSError:
        lines.add(platform.processor())
    return "\n".join(sorted(lines))


def _tensor_info(node: Any) -> TensorInfo:
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise EngineError(f"type {node.type} is not supported", subject=node.name)
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    return TensorInfo(name=node.name, dtype=dtype, shape=shape)


def _engine_error(error: Exception, what: str) -> EngineError:
    if isinstance(error, EngineError):
        return error
    kind = EngineMemoryError if is_out_of_memory(error) else EngineError
    return kind(str(error)[:500], subject=what)


def _closed(*_: Any) -> list[np.ndarray[Any, Any]]:
    raise EngineError("the session is closed")

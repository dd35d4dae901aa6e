"""The engines: which one runs which model format, and which are installed here.

Nothing heavy is imported until an engine is asked for; the engines themselves are in `onnx.py` and `litert.py`.
"""

from __future__ import annotations

import importlib

from edge_agent.errors import EngineMissingError
from edge_agent.ports import Engine
from edge_contracts.manifest import Format, Manifest

# format, engine name, our module, the distributions that provide it (preferred first), how to get one
_ENGINES: tuple[tuple[Format, str, str, tuple[str, ...], str], ...] = (
    (
        "onnx",
        "onnxruntime",
        "edge_agent.engines.onnx_runtime",
        ("onnxruntime", "onnxruntime-gpu"),
        "pip install onnxruntime",
    ),
    (
        "tflite",
        "litert",
        "edge_agent.engines.litert",
        ("ai-edge-litert", "tflite-runtime"),
        "pip install ai-edge-litert",
    ),
    # Not an engine of its own: it runs those of its nodes, and comes with the agent.
    (
        "pipeline",
        "pipeline",
        "edge_agent.inference.pipeline_engine",
        (),
        "install edgewright again: docs/how-to/install-device.md",
    ),
)

OUT_OF_MEMORY_MARKS = ("bad_alloc", "bad allocation", "failed to allocate", "out of memory", "cannot allocate")
"""How the engines word a failed allocation; none of them has a type for it."""


def engine_for(model_format: str) -> Engine:
    """Return the engine for a manifest's `format`.

    Raises EngineMissingError, with the command that installs it, when no engine for the format is here.
    """
    for known, name, module, _, hint in _ENGINES:
        if known != model_format:
            continue
        try:
            engine: Engine = importlib.import_module(module).engine()
        except ImportError as error:
            raise EngineMissingError(f"{name} cannot be imported: {error}", subject=model_format, hint=hint) from error
        return engine
    raise EngineMissingError("no engine for this model format", subject=model_format[:80])


def import_engines(manifest: Manifest) -> None:
    """Import every engine that the variants of a release, or the nodes of its pipelines, run on.

    Raises EngineMissingError when one is not here."""
    formats = {variant.format for variant in manifest.variants}
    if "pipeline" in formats:
        inner = {engine.name for engine in manifest.requirements.engines}
        formats |= {model_format for model_format, name, *_ in _ENGINES if name in inner}
    for model_format in sorted(formats):
        engine_for(model_format)


def installed_engines() -> dict[str, str]:
    """Return the version of every installed engine by its manifest name, importing none of them."""
    from importlib import metadata  # brings the parsers of mail and zip files, which a worker has no use for

    found: dict[str, str] = {}
    for _, name, _, distributions, _ in _ENGINES:
        for distribution in distributions:
            try:
                found.setdefault(name, metadata.version(distribution))
            except metadata.PackageNotFoundError:
                continue
    return found


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an engine's exception is a failed allocation."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(mark in text for mark in OUT_OF_MEMORY_MARKS)

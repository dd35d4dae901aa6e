"""The compression toolchain: from a trained model, data and a device profile to a bundle of proved variants.

The names of the Python interface are loaded when they are asked for: importing the package costs nothing.
`edge_agent` is imported first: it switches ONNX Runtime's reports to its maker off, which works before its import only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import edge_agent  # noqa: F401 - see above

if TYPE_CHECKING:
    from edge_compression.api import Model, Release, apply_pass, compress, quantize_static
    from edge_compression.front import Front
    from edge_compression.options import Options, Work

__all__ = ["Front", "Model", "Options", "Release", "Work", "apply_pass", "compress", "quantize_static"]

_OPTIONS = ("Options", "Work")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "options" if name in _OPTIONS else "front" if name == "Front" else "api"
    return getattr(importlib.import_module(f"edge_compression.{module}"), name)

"""The agent: what runs on the device. Importing it loads no numpy, no engine and no MQTT.

`Runtime` is the guarded pipeline for use inside another program; it is loaded when first asked for.
`Certainty` is what it may be asked for beside an answer.

ONNX Runtime reports its use to its maker from version 1.29 on, unless it is told not to before it is imported. Every
process that imports an engine of ours imports this package first, so it is told here (docs/threat-model.md). Whoever
wants those reports sets ORT_DISABLE_TELEMETRY=0.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from edge_contracts import __version__

if TYPE_CHECKING:
    from edge_agent.config.inference_options import Certainty
    from edge_agent.inference.runtime import Runtime

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["Certainty", "Runtime", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Runtime":
        from edge_agent.inference.runtime import Runtime

        return Runtime
    if name == "Certainty":
        from edge_agent.config.inference_options import Certainty

        return Certainty
    raise AttributeError(f"module 'edge_agent' has no attribute {name!r}")

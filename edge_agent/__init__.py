"""The agent: what runs on the device. Importing it loads no numpy, no engine and no MQTT.

`Runtime` is the guarded pipeline for use inside another program; it is loaded when first asked for.
`Certainty` is what it may be asked for beside an answer.

ONNX Runtime reports its use to its maker from version 1.29 on, unless ORT_DISABLE_TELEMETRY=1 is set before it is
imported; once it is imported, nothing stops it. Every process that imports an engine of ours imports this package
first, so it is set here (docs/threat-model.md). Whoever wants those reports sets ORT_DISABLE_TELEMETRY=0.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

from edge_contracts import __version__

if TYPE_CHECKING:
    from edge_agent.config.inference_options import Certainty
    from edge_agent.inference.runtime import Runtime

if not os.environ.get("ORT_DISABLE_TELEMETRY"):  # ONNX Runtime takes an empty one for "report"
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    if "onnxruntime" in sys.modules:
        warnings.warn(
            "onnxruntime was imported before edge_agent and may report to its maker from this process: "
            "import edge_agent first, or start Python with ORT_DISABLE_TELEMETRY=1 (or =0 if that is wanted)",
            RuntimeWarning,
            stacklevel=2,
        )

__all__ = ["Certainty", "Runtime", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Runtime":
        from edge_agent.inference.runtime import Runtime

        return Runtime
    if name == "Certainty":
        from edge_agent.config.inference_options import Certainty

        return Certainty
    raise AttributeError(f"module 'edge_agent' has no attribute {name!r}")

"""The passes, one module each, and the one place that lists them: the recipe grammar is generated from this union."""

from __future__ import annotations

from edge_compression.passes.bias_correction import BiasCorrection
from edge_compression.passes.compact import Compact
from edge_compression.passes.dynamic_int8 import DynamicInt8
from edge_compression.passes.float16 import Float16
from edge_compression.passes.second_order_rounding import SecondOrderRounding
from edge_compression.passes.simplify import Simplify
from edge_compression.passes.static_int8 import StaticInt8
from edge_compression.passes.tflite_int8 import TfliteInt8

AnyPass = Simplify | Compact | Float16 | DynamicInt8 | StaticInt8 | SecondOrderRounding | BiasCorrection | TfliteInt8

__all__ = [
    "AnyPass",
    "BiasCorrection",
    "Compact",
    "DynamicInt8",
    "Float16",
    "SecondOrderRounding",
    "Simplify",
    "StaticInt8",
    "TfliteInt8",
]

"""The passes, one module each, and the one place that lists them: the recipe grammar is generated from this union."""

from __future__ import annotations

from edge_compression.passes.bias_correction import BiasCorrection
from edge_compression.passes.compact import Compact
from edge_compression.passes.distill import Distill
from edge_compression.passes.dynamic_int8 import DynamicInt8
from edge_compression.passes.equalize import Equalize
from edge_compression.passes.float16 import Float16
from edge_compression.passes.fuse_transformer import FuseTransformer
from edge_compression.passes.low_rank import LowRank
from edge_compression.passes.matmul_4bit import Matmul4Bit
from edge_compression.passes.mixed_weights import MixedWeights
from edge_compression.passes.prune import Prune
from edge_compression.passes.second_order_rounding import SecondOrderRounding
from edge_compression.passes.simplify import Simplify
from edge_compression.passes.smooth import Smooth
from edge_compression.passes.static_int8 import StaticInt8
from edge_compression.passes.tflite_compact import TfliteCompact
from edge_compression.passes.tflite_int8 import TfliteInt8
from edge_compression.passes.tflite_rounding import TfliteRounding
from edge_compression.passes.unpack_at_load import UnpackAtLoad
from edge_compression.passes.weight_only import WeightOnly

AnyPass = (
    Simplify
    | Compact
    | FuseTransformer
    | Equalize
    | Smooth
    | Prune
    | LowRank
    | Distill
    | Float16
    | DynamicInt8
    | StaticInt8
    | SecondOrderRounding
    | BiasCorrection
    | WeightOnly
    | MixedWeights
    | Matmul4Bit
    | UnpackAtLoad
    | TfliteInt8
    | TfliteRounding
    | TfliteCompact
)

__all__ = [
    "AnyPass",
    "BiasCorrection",
    "Compact",
    "Distill",
    "DynamicInt8",
    "Equalize",
    "Float16",
    "FuseTransformer",
    "LowRank",
    "Matmul4Bit",
    "MixedWeights",
    "Prune",
    "SecondOrderRounding",
    "Simplify",
    "Smooth",
    "StaticInt8",
    "TfliteCompact",
    "TfliteInt8",
    "TfliteRounding",
    "UnpackAtLoad",
    "WeightOnly",
]

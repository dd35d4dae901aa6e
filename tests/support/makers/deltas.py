"""Deltas as nobody's encoder would write them: any operations over any sections, compressed as said.

delta = forged([Copy(length=4, offset=0), Insert(length=2)], literals=b"ab")
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import zstandard
from onnx import TensorProto, helper, numpy_helper
from support.makers import bundles

from edge_agent.ports import Array
from edge_agent.updater.delta_apply import apply_delta
from edge_contracts.delta import WINDOW_LOG, Operation, pack_header, pack_operations


def forged(
    operations: Sequence[Operation],
    *,
    control: bytes | None = None,
    masks: bytes = b"",
    values: bytes = b"",
    literals: bytes = b"",
    codec: str = "zlib",
) -> bytes:
    """Return a delta of these operations, or of any `control` bytes."""
    sections = (pack_operations(operations) if control is None else control, masks, values, literals)
    return joined([deflated(section, codec) for section in sections])


def joined(sections: Sequence[bytes]) -> bytes:
    """Return a delta of four sections that are compressed already."""
    return b"".join((pack_header([len(section) for section in sections]), *sections))


def deflated(data: bytes, codec: str = "zlib", window_log: int = WINDOW_LOG) -> bytes:
    """Return the data compressed. zlib's level 0 stores, so that its bytes are the same everywhere."""
    if codec == "zlib":
        return zlib.compress(data, 0 if len(data) < 65_536 else 1)
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=window_log)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return stream.compress(data) + stream.flush()


def applied(folder: Path, base: bytes, delta: bytes, size: int, codec: str = "zlib") -> bytes:
    """Return what a device makes of the delta."""
    (folder / "base").write_bytes(base)
    (folder / "delta").write_bytes(delta)
    return b"".join(apply_delta(folder / "base", folder / "delta", codec, size))


def weights_model(*weights: Array, names: Sequence[str] | None = None) -> bytes:
    """Return an ONNX file that is nothing but initializers."""
    named = names or [f"w{index}" for index in range(len(weights))]
    tensors = [numpy_helper.from_array(np.asarray(data), name) for name, data in zip(named, weights, strict=True)]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [value], tensors)
    data: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]).SerializeToString()
    return data


def ballasted(nudged: float = 0.0, size: int = 400_000) -> bytes:
    """Return the good linear model with `size` int8 weights it does not use, a share of which moved by one."""
    random = np.random.default_rng(11)
    ballast = np.clip(random.normal(0, 25, size), -127, 126).astype(np.int8)
    moved = ballast + (random.random(size) < nudged).astype(np.int8)
    model = onnx.load_from_string(bundles.linear_model())
    model.graph.initializer.append(numpy_helper.from_array(moved, "ballast"))
    data: bytes = model.SerializeToString()
    return data

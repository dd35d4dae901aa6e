"""Four-bit matrix products against numpy over what the packed blocks stand for."""

from typing import Any

import numpy as np
import pytest
from onnx import helper
from support.makers import onnx_models

from edge_compression.onnx_tools.graph import initializers, load, save, session
from edge_compression.pass_api import Context, PassError
from edge_compression.passes import Matmul4Bit
from edge_compression.passes.matmul_4bit import blocks

NO_SAMPLES = Context(calibration=lambda: iter(()), unquantized=b"")


@pytest.mark.parametrize("block", [16, 32])
def test_four_bit_products_compute_what_their_blocks_stand_for(block: Any) -> None:
    generator = np.random.default_rng(12)
    weights = generator.standard_normal((40, 24)).astype(np.float32)
    made = onnx_models.model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weights}, (40,), (24,), output="y")
    applied = Matmul4Bit(block=block).apply(save(made), NO_SAMPLES)
    packed, scales = blocks(weights, block)
    low, high = (packed & 15).astype(np.float32) - 8, (packed >> 4).astype(np.float32) - 8
    stood_for = np.stack([low, high], axis=-1).reshape(*packed.shape[:2], block) * scales.reshape(24, -1, 1)
    stood_for = stood_for.reshape(24, -1)[:, :40].T
    assert np.abs(stood_for - weights).max() <= np.abs(weights).max() / 8 * 1.01
    x = generator.standard_normal((5, 40)).astype(np.float32)
    np.testing.assert_allclose(session(applied.model).run(None, {"x": x})[0], x @ stood_for, atol=1e-3)
    assert initializers(load(applied.model)).keys() == {"w_4bit_0", "w_4bit_0_scales"}


def test_four_bit_products_need_a_product() -> None:
    with pytest.raises(PassError, match="no matrix product"):
        Matmul4Bit().apply(save(onnx_models.conv_classifier()), NO_SAMPLES)

"""What `test_prune.py` tests, where it takes a real process or a wait."""

from support.makers import onnx_models
from support.parts.prune import context

from edge_compression.onnx_tools.graph import save
from edge_compression.passes import Prune


def test_latency_may_be_the_target() -> None:
    wide = save(onnx_models.conv_classifier(filters=512))
    applied = Prune(keep=0.8, of="latency").apply(wide, context(wide))
    assert int(applied.changed["channels_after"]) < 512

"""What `test_declared_guards.py` tests, where it takes a real process or a wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.makers import onnx_models

from edge_agent.errors import TensorError
from edge_agent.inference.runtime import Runtime
from edge_agent.inference.samples import write_arrays
from edge_compression import Options, compress
from edge_compression.recipes.recipe import parse_recipe
from edge_contracts.manifest import LastResort

WAVES = """\
name = "waves"
model = "waves.onnx"
metric = "top1"
[data]
file = "waves.npz"
[input]
dtype = "float32"
[guard.input]
axis = 1
[[guard.input.features]]
index = 0
name = "left"
action = "fallback"
[[guard.input.features]]
index = 2
name = "right"
maximum = 50.0
action = "reject"
[last_resort]
kind = "constant"
values = [0.0, 0.0, 0.0, 9.0]
"""


@pytest.mark.timeout(180)
def test_a_device_that_gets_the_bundle_keeps_its_guards(tmp_path: Path) -> None:
    (tmp_path / "waves.onnx").write_bytes(onnx_models.conv_classifier().SerializeToString())
    x, y = onnx_models.samples(200, seed=1)
    calibration, _ = onnx_models.samples(64, seed=2)
    write_arrays(tmp_path / "waves.npz", {"x": x, "y": y, "calib_x": calibration})
    (tmp_path / "waves.toml").write_text(WAVES)
    recipes = (parse_recipe('summary = "f"\n[[passes]]\npass = "compact"\n', "float"),)
    front = compress(tmp_path / "waves.toml", "pi-4", out=tmp_path / "bundle", options=Options(), recipes=recipes)
    assert front.manifest.schema == 3
    assert front.manifest.last_resort == LastResort(kind="constant", values=(0.0, 0.0, 0.0, 9.0))

    def channel(index: int, value: float) -> dict[str, Any]:
        sample = x[:1].copy()
        sample[0, index, 5] = value
        return {"x": sample}

    with Runtime.open(front.bundle) as runtime:
        assert runtime.infer({"x": x[:1]}).warnings == ()
        assert runtime.infer(channel(1, 1000.0)).warnings == (), "a channel without a guard"
        answer = runtime.infer(channel(0, 1000.0))
        assert (answer.served_by, answer.outputs["logits"].tolist()) == ("last-resort/constant", [[0, 0, 0, 9]])
        with pytest.raises(TensorError, match="x: right: 60 is above the maximum 50"):
            runtime.infer(channel(2, 60.0))

"""Configuration and statistics as Triton's clients read them."""

import json

import pytest
from support.makers import bundles
from support.parts import oip_app as parts
from support.sites.worker_host import call, infer_json

served = parts.served


def test_the_configuration_leaves_the_batch_out(served):
    config = call(served[0] + "/v2/models/linear/config")
    assert (config["name"], config["platform"], config["backend"]) == ("linear", "onnxruntime_onnx", "onnxruntime")
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}]
    assert [(one["name"], one["data_type"]) for one in config["output"]] == [("y", "TYPE_FP32")]
    assert config["max_batch_size"] == 64 * 2**20 // 16
    assert call(served[0] + "/v2/models/linear/versions/1.0.0/config") == config


@pytest.mark.parametrize(
    "path", ["/v2/models/stats", "/v2/models/linear/stats", "/v2/models/linear/versions/1.0.0/stats"]
)
def test_statistics_count_what_was_answered_and_what_was_refused(served, path):
    before = call(served[0] + path)["model_stats"][0]
    infer_json(served[0], bundles.samples(1)[0].tolist())
    after = call(served[0] + path)["model_stats"][0]
    assert (after["name"], after["version"]) == ("linear", "1.0.0")
    assert after["inference_count"] - before["inference_count"] == 1
    assert after["last_inference"] > 1e12
    success = after["inference_stats"]["success"]
    assert success["count"] == after["inference_count"]
    assert success["ns"] > before["inference_stats"]["success"]["ns"]
    assert {"queue", "compute_input", "compute_infer", "compute_output", "fail", "cache_hit", "cache_miss"} <= set(
        after["inference_stats"]
    )


def test_the_extensions_are_named(served):
    assert {"model_configuration", "statistics"} <= set(call(served[0] + "/v2")["extensions"])
    assert json.dumps(call(served[0] + "/v2/models/linear/stats"))

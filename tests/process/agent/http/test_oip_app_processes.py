"""What `test_oip_app.py` tests, where it takes a real process or a wait."""

import shutil
import subprocess
import urllib.request

import numpy as np
import pytest
from support.makers import bundles
from support.parts import oip_app as parts

served = parts.served


@pytest.mark.filterwarnings("default")  # gevent and tritonclient warn about themselves
def test_a_third_party_client_gets_right_answers_in_json_and_binary(served):
    from tritonclient import http as triton

    url, bundle = served
    x, y = bundles.samples(16)
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    try:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("linear", "1.0.0")
        assert client.get_model_metadata("linear")["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        for binary_in in (False, True):
            for binary_out in (False, True):
                tensor = triton.InferInput("x", [16, 4], "FP32")
                tensor.set_data_from_numpy(x, binary_data=binary_in)
                wanted = [triton.InferRequestedOutput("y", binary_data=binary_out)]
                result = client.infer("linear", [tensor], outputs=wanted, request_id="r1")
                assert (result.as_numpy("y").argmax(axis=1) == y).all()
                response = result.get_response()
                assert response["id"] == "r1"
                assert response["parameters"]["model_sha256"] == bundle.manifest.file("models/fp32.onnx").sha256
                assert response["parameters"]["abstained"] is False
    finally:
        client.close()


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [False, True])
def test_a_third_party_client_may_compress_what_it_sends_and_gets(served, coding, binary):
    from tritonclient import http as triton

    x, _ = bundles.samples(16)
    rows = np.tile(x, (40, 1))  # the answer is large enough to be compressed
    client = triton.InferenceServerClient(served[0].removeprefix("http://"))
    try:
        tensor = triton.InferInput("x", list(rows.shape), "FP32")
        tensor.set_data_from_numpy(rows, binary_data=binary)
        wanted = [triton.InferRequestedOutput("y", binary_data=binary)]
        ways = {"request_compression_algorithm": coding, "response_compression_algorithm": coding}
        packed = client.infer("linear", [tensor], outputs=wanted, **ways)
        plain = client.infer("linear", [tensor], outputs=wanted)
        assert (packed.as_numpy("y") == plain.as_numpy("y")).all()
        assert packed.as_numpy("y").shape[0] == 640
    finally:
        client.close()


@pytest.mark.filterwarnings("default")
def test_a_third_party_client_reads_configuration_and_statistics(served):
    from tritonclient import http as triton

    client = triton.InferenceServerClient(served[0].removeprefix("http://"))
    try:
        assert client.get_model_config("linear")["max_batch_size"] > 1
        assert client.get_inference_statistics("linear")["model_stats"][0]["name"] == "linear"
        assert client.get_inference_statistics()["model_stats"][0]["version"] == "1.0.0"
    finally:
        client.close()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool of Prometheus")
def test_the_metrics_pass_promtool(served):
    with urllib.request.urlopen(served[0] + "/metrics", timeout=10) as response:
        text = response.read()
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")

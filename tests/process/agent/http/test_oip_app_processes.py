"""What `test_oip_app.py` tests, where it takes a real process or a wait."""

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

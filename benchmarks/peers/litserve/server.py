"""LitServe with ONNX Runtime, one worker. `server.py MODEL PORT`"""

from __future__ import annotations

import sys
from typing import Any

import litserve
import numpy as np
import onnxruntime


class OnnxApi(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
        self.names = [info.name for info in self.session.get_outputs()]

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # an annotation would name a query field
        return {
            tensor["name"]: np.array(tensor["data"], np.float32).reshape(tensor["shape"])
            for tensor in request["inputs"]
        }

    def predict(self, feeds: dict[str, Any]) -> list[Any]:
        return self.session.run(None, feeds)

    def encode_response(self, outputs: list[Any]) -> dict[str, Any]:
        return {
            "model_name": "model",
            "outputs": [
                {"name": name, "datatype": "FP32", "shape": array.shape, "data": array.ravel().tolist()}
                for name, array in zip(self.names, outputs, strict=True)
            ],
        }


if __name__ == "__main__":
    api = OnnxApi(api_path="/v2/models/model/infer")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="error")

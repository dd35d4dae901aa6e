"""The least that answers the protocol's requests: an ASGI function, msgspec and ONNX Runtime; no checks, no counters.
`server.py MODEL PORT [granian]`

On uvicorn with uvloop and httptools, or on granian. JSON and binary tensors, one input, the first output.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import msgspec
import numpy as np
import onnxruntime

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Parameters(msgspec.Struct):
    binary_data_output: bool = False


class Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: list[float] | None = None


class Request(msgspec.Struct):
    inputs: list[Tensor]
    parameters: Parameters = msgspec.field(default_factory=Parameters)


options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(
    os.environ.get("ASGI_MODEL") or sys.argv[1], options, providers=["CPUExecutionProvider"]
)
decode, encode = msgspec.json.Decoder(Request).decode, msgspec.json.encode
JSON = (b"content-type", b"application/json")
BINARY = (b"content-type", b"application/octet-stream")
LENGTH = b"inference-header-content-length"


def infer(body: bytes, json_length: int | None) -> tuple[bytes, int | None]:
    """Return the answer's body, and the length of its JSON if it is binary."""
    request = decode(body if json_length is None else memoryview(body)[:json_length])
    (tensor,) = request.inputs
    if json_length is None:
        array = np.array(tensor.data, np.float32).reshape(tensor.shape)
    else:
        array = np.frombuffer(body, np.float32, offset=json_length).reshape(tensor.shape)
    output = session.run(None, {tensor.name: array})[0]
    found = {"name": "output", "datatype": "FP32", "shape": output.shape}
    if not request.parameters.binary_data_output:
        found["data"] = output.ravel().tolist()
        return encode({"model_name": "model", "outputs": [found]}), None
    found["parameters"] = {"binary_data_size": output.nbytes}
    head = encode({"model_name": "model", "outputs": [found]})
    return head + output.tobytes(), len(head)


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        event = await receive()
        body, more = body + event.get("body", b""), event.get("more_body", False)
    length = next((int(value) for name, value in scope["headers"] if name == LENGTH), None)
    answer, json_length = infer(body, length)
    kinds = [JSON] if json_length is None else [BINARY, (LENGTH, b"%d" % json_length)]
    headers = [*kinds, (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def main() -> None:
    port = int(sys.argv[2])
    if sys.argv[3:] == ["granian"]:
        from granian import Granian
        from granian.constants import Interfaces

        os.environ["ASGI_MODEL"] = sys.argv[1]  # its worker imports this file anew
        os.chdir(Path(__file__).resolve().parent)
        Granian("server:app", port=port, interface=Interfaces.ASGI, log_enabled=False).serve()
    else:
        import uvicorn

        uvicorn.run(app, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()

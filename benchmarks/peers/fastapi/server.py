"""FastAPI and ONNX Runtime as its users write it: a typed body, uvicorn with uvloop and httptools, as
`fastapi[standard]` installs it. `server.py MODEL PORT [threads]`

`threads` answers in a plain function, which FastAPI runs in its thread pool: what its documentation says to do with
code that computes. Without it the answer is an `async` function, which for a small model is quicker.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Tensor(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    data: list[float]


class Request(BaseModel):
    inputs: list[Tensor]


options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
app = FastAPI()


def answer(request: Request) -> dict[str, Any]:
    feeds = {tensor.name: np.array(tensor.data, np.float32).reshape(tensor.shape) for tensor in request.inputs}
    outputs = zip(session.get_outputs(), session.run(None, feeds), strict=True)
    return {
        "model_name": "model",
        "outputs": [
            {"name": info.name, "datatype": "FP32", "shape": array.shape, "data": array.ravel().tolist()}
            for info, array in outputs
        ],
    }


def infer(request: Request) -> dict[str, Any]:
    return answer(request)


async def infer_at_once(request: Request) -> dict[str, Any]:
    return answer(request)


app.post("/v2/models/model/infer")(infer if sys.argv[3:] == ["threads"] else infer_at_once)
uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False)

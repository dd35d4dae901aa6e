"""Open Inference Protocol v2, the codec: request bytes to tensors and answers to response bytes, JSON and binary.

Sources: kserve/open-inference-protocol `specification/protocol/inference_rest.md` and its binary tensor data extension;
Triton's `docs/protocol/extension_sequence.md`. Everything in a request is untrusted: sizes are checked against limits
before anything is built from them, and every refusal is a TensorError naming the field. Sockets, paths and status
codes are in `connection` and `oip_app`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
import numpy as np

from edge_agent.answer import Answer
from edge_agent.errors import TensorError
from edge_agent.http.oip_json_numbers import from_floats, parse_numbers
from edge_agent.inference.streams import StreamStep
from edge_agent.ports import Array
from edge_contracts import limits
from edge_contracts.answering import TEXT
from edge_contracts.codec import contract_error
from edge_contracts.manifest import Manifest
from edge_contracts.names import SampleTag, StreamName, StreamNumber

DATATYPES: Final[dict[str, str]] = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
_NAMES: Final = {dtype: datatype for datatype, dtype in DATATYPES.items()} | {TEXT: "BYTES"}
_PLATFORMS: Final = {"onnx": "onnxruntime_onnx", "tflite": "litert_tflite", "pipeline": "edgewright_pipeline"}
_GAP: Final = msgspec.Raw(b"\0")
"""A byte that JSON never holds."""

_ANYTHING: Final = b'"anything"'


class _Parameters(msgspec.Struct, frozen=True):
    binary_data_size: int | None = None
    binary_data: bool | None = None
    binary_data_output: bool = False
    shared_memory_region: str | None = None
    classification: int | None = None


class _RequestParameters(_Parameters, frozen=True):
    tag: SampleTag | None = None
    sequence_id: StreamName | StreamNumber = 0
    sequence_start: bool = False
    sequence_end: bool = False


class _Input(msgspec.Struct, frozen=True):
    name: str
    datatype: str
    shape: list[int]
    parameters: _Parameters = _Parameters()
    data: msgspec.Raw = msgspec.Raw()


class _FloatInput(msgspec.Struct, frozen=True):
    """What most requests hold: floating-point numbers in a flat list, decoded where they stand."""

    name: str
    datatype: Literal["FP32", "FP64"]
    shape: list[int]
    data: list[float]
    parameters: _Parameters = _Parameters()


class _Output(msgspec.Struct, frozen=True):
    name: str
    parameters: _Parameters = _Parameters()


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    inputs: Sequence[_Input | _FloatInput]
    id: str | None = None
    outputs: list[_Output] | None = None
    parameters: _RequestParameters = _RequestParameters()


class _AnyRequest(_Request, frozen=True, kw_only=True):
    inputs: list[_Input]


class _FloatRequest(_Request, frozen=True, kw_only=True):
    inputs: list[_FloatInput]


class InferRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed request. `outputs` maps each wanted output to whether it is wanted in binary; `tag` says where
    its samples come from, `step` which stream it is a step of."""

    id: str | None
    tensors: dict[str, Any]
    outputs: dict[str, bool]
    tag: str | None = None
    step: StreamStep | None = None


_any_request = msgspec.json.Decoder(_AnyRequest)
_float_request = msgspec.json.Decoder(_FloatRequest)


def parse_request(body: bytes | bytearray, json_length: int | None, manifest: Manifest) -> InferRequest:
    """Parse an inference request; `json_length` is the Inference-Header-Content-Length, None without binary data.

    Raises TensorError naming the field.
    """
    length = len(body) if json_length is None else json_length
    if not 0 <= length <= len(body):
        raise TensorError(
            f"{length} is not within the body of {len(body)} bytes", subject="inference-header-content-length"
        )
    if length > limits.MAX_REQUEST_JSON_BYTES:
        raise TensorError(
            f"{length} bytes of JSON, over {limits.MAX_REQUEST_JSON_BYTES}",
            subject="request",
            hint="send large tensors with the binary tensor data extension",
        )
    try:
        request = _decode(memoryview(body)[:length], usual=json_length is None)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TensorError(str(contract_error(error, "request"))) from error
    tensors = _tensors(request.inputs, memoryview(body)[length:])
    return InferRequest(
        id=request.id,
        tensors=tensors,
        outputs=_wanted(request, manifest),
        tag=request.parameters.tag,
        step=_step(request.parameters),
    )


def holds_data(before: bytes, after: bytes) -> bool:
    """Return whether what stands between these pieces of a request's JSON is the `data` of its only input, all of it,
    and would be whatever list it was: JSON has no other way to read a value's place."""
    try:
        request = _any_request.decode(before + _ANYTHING + after)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return len(request.inputs) == 1 and bytes(request.inputs[0].data) == _ANYTHING


def encode_answer(answer: Answer, request: InferRequest, manifest: Manifest) -> tuple[bytes, int | None]:
    """Return the response body and, if it holds binary tensors, the length of its JSON."""
    outputs: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for name, binary in request.outputs.items():
        array = answer.outputs.get(name)
        if array is None:
            continue
        output = _output(name, array)
        if binary:
            blobs.append(_text_bytes(array) if array.dtype.kind == "U" else array.tobytes())
            output["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            output["data"] = array.ravel().tolist()
        outputs.append(output)
    response = _response(outputs, _parameters(answer), manifest)
    if request.id is not None:
        response["id"] = request.id
    head = msgspec.json.encode(response)
    return (b"".join([head, *blobs]), len(head)) if blobs else (head, None)


def encode_response_template(answer: Answer, wanted: dict[str, bool], manifest: Manifest) -> list[bytes]:
    """Return the JSON of an answer of numbers in pieces: between them belong the `data` of each output that is wanted
    in JSON, in their order, and then the time in microseconds."""
    outputs = []
    for name, binary in wanted.items():
        output = _output(name, answer.outputs[name])
        if binary:
            output["parameters"] = {"binary_data_size": answer.outputs[name].nbytes}
        else:
            output["data"] = _GAP
        outputs.append(output)
    parameters = _parameters(answer) | {"timing_us": _GAP}
    return msgspec.json.encode(_response(outputs, parameters, manifest)).split(bytes(_GAP))


def datatype(dtype: str) -> str:
    """Return the protocol's name of a dtype, or of text."""
    return _NAMES[dtype]


def platform(manifest: Manifest) -> str:
    """Return the protocol's `platform` of a model, by its first variant."""
    return _PLATFORMS[manifest.variants[0].format]


def model_metadata(manifest: Manifest) -> dict[str, Any]:
    """Return the model's metadata; inputs are advertised in the dtype samples are stored in."""
    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": platform(manifest),
        "inputs": [
            {"name": tensor.name, "datatype": _NAMES[tensor.sample.dtype], "shape": list(tensor.sample_shape)}
            for tensor in manifest.inputs
        ],
        "outputs": [
            {"name": name, "datatype": _NAMES[spec.dtype], "shape": list(spec.shape)}
            for name, spec in manifest.answers.items()
        ],
    }


def _output(name: str, array: Array) -> dict[str, Any]:
    return {
        "name": name,
        "datatype": _NAMES[TEXT if array.dtype.kind == "U" else array.dtype.name],
        "shape": array.shape,
    }


def _response(outputs: list[dict[str, Any]], parameters: dict[str, Any], manifest: Manifest) -> dict[str, Any]:
    return {
        "model_name": manifest.name,
        "model_version": manifest.version,
        "outputs": outputs,
        "parameters": parameters,
    }


def _decode(data: memoryview, *, usual: bool) -> _Request:
    """Decode the JSON of a request; first as a `usual` one. Raises msgspec.MsgspecError."""
    if usual:
        with contextlib.suppress(msgspec.ValidationError):
            return _float_request.decode(data)
    return _any_request.decode(data)


def _parameters(answer: Answer) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "served_by": answer.served_by,
        "abstained": answer.abstained,
        "timing_us": answer.timing_us,
    }
    if answer.model_sha256 is not None:
        parameters |= {"model_sha256": answer.model_sha256, "version": answer.version}
    prediction = answer.prediction
    if prediction is not None:
        parameters["coverage"] = prediction.coverage
        if prediction.width is None:  # the protocol's parameters are scalars
            parameters["prediction_sets"] = msgspec.json.encode(prediction.sets).decode()
        else:
            parameters["prediction_width"] = prediction.width
    if answer.stream_start:
        parameters["sequence_start"] = True
    if answer.warnings:
        parameters["warnings"] = "; ".join(answer.warnings)
    if answer.nodes:
        parameters["nodes"] = msgspec.json.encode(answer.nodes).decode()
    return parameters


def _text_bytes(array: Array) -> bytes:
    """Return strings as the protocol's binary form has them: each with its length in four bytes before it."""
    texts = [str(text).encode() for text in array.ravel()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def _wanted(request: _Request, manifest: Manifest) -> dict[str, bool]:
    default = request.parameters.binary_data_output
    known = list(manifest.answers) if manifest.answer else [tensor.name for tensor in manifest.outputs]
    if not request.outputs:
        given = manifest.given if manifest.answer else known
        kept = {tensor.feedback for tensor in manifest.inputs} if request.parameters.sequence_id else set()
        return {name: default for name in given if name not in kept}
    wanted: dict[str, bool] = {}
    for index, output in enumerate(request.outputs):
        where = f"outputs[{index}]"
        if output.name not in known:
            raise TensorError(f"no output {output.name[:80]!r}; there is {', '.join(known)}", subject=f"{where}.name")
        if output.parameters.classification is not None or output.parameters.shared_memory_region is not None:
            raise TensorError("classification and shared memory are not supported", subject=f"{where}.parameters")
        binary = output.parameters.binary_data
        wanted[output.name] = default if binary is None else binary
    return wanted


def _step(parameters: _RequestParameters) -> StreamStep | None:
    """Return which step of a stream a request is, by the sequence extension: no id, 0 and "" mean none."""
    if not parameters.sequence_id:
        if parameters.sequence_start or parameters.sequence_end:
            raise TensorError("needs a sequence_id", subject="parameters.sequence_start")
        return None
    return StreamStep(stream=parameters.sequence_id, start=parameters.sequence_start, end=parameters.sequence_end)


def _tensors(inputs: Sequence[_Input | _FloatInput], blob: memoryview) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    total = at = 0
    for index, declared in enumerate(inputs[: limits.MAX_TENSORS + 1]):
        where = f"inputs[{index}]"
        dtype = DATATYPES.get(declared.datatype)
        if dtype is None:
            raise TensorError(
                f"{declared.datatype[:80]!r} is not one of {', '.join(DATATYPES)}", subject=f"{where}.datatype"
            )
        size = _checked_bytes(declared.shape, np.dtype(dtype).itemsize, f"{where}.shape")
        total += size
        if index >= limits.MAX_TENSORS or total > limits.MAX_TENSOR_BYTES:
            raise TensorError(
                f"more than {limits.MAX_TENSOR_BYTES} bytes or {limits.MAX_TENSORS} tensors", subject="inputs"
            )
        if declared.name in tensors:
            raise TensorError(f"{declared.name[:80]!r} appears twice", subject=f"{where}.name")
        binary = declared.parameters.binary_data_size
        if binary is None:
            tensors[declared.name] = _from_json(declared, np.dtype(dtype), f"{where}.data")
            continue
        if binary != size or at + size > len(blob):
            text = f"{binary} bytes, the shape needs {size} and {len(blob) - at} follow the JSON"
            raise TensorError(text, subject=f"{where}.parameters.binary_data_size")
        tensors[declared.name] = _from_binary(blob[at : at + size], np.dtype(dtype)).reshape(declared.shape)
        at += size
    if at != len(blob):
        raise TensorError(f"{len(blob) - at} bytes after the last tensor", subject="request")
    return tensors


def _checked_bytes(shape: list[int], itemsize: int, where: str) -> int:
    if len(shape) > limits.MAX_RANK:
        raise TensorError(f"{len(shape)} dimensions, over {limits.MAX_RANK}", subject=where)
    if any(size < 0 for size in shape):
        raise TensorError("a dimension is negative", subject=where)
    size = math.prod(shape) * itemsize  # Python's integers do not overflow
    if size > limits.MAX_TENSOR_BYTES:
        raise TensorError(f"{size} bytes, over {limits.MAX_TENSOR_BYTES}", subject=where)
    return size


def _from_binary(data: memoryview, dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "b":
        flags = np.frombuffer(data, np.uint8)
        return np.not_equal(flags, 0)
    array: Array = np.frombuffer(data, dtype.newbyteorder("<"))
    # The tensor starts wherever the JSON ended; engines expect their elements aligned.
    return array if array.flags.aligned and array.dtype.isnative else array.astype(dtype)


def _from_json(declared: _Input | _FloatInput, dtype: np.dtype[Any], where: str) -> Array:
    if isinstance(declared, _FloatInput):
        return from_floats(declared.data, declared.shape, dtype, where)
    return parse_numbers(bytes(declared.data), declared.shape, dtype, where)

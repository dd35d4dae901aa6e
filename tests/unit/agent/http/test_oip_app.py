"""The Open Inference Protocol over HTTP: a third-party client, every refusal, and attacks on the parser."""

import json
import socket
import struct
import urllib.error
import urllib.request

import numpy as np
import pytest
from support.makers import bundles
from support.parts import oip_app as parts
from support.sites.worker_host import call, infer_json

from edge_contracts import limits

served = parts.served

INFER = "/v2/models/linear/infer"


def test_flat_and_nested_numbers_mean_the_same(served):
    url, _ = served
    nested = infer_json(url, [[1, 2, 3, 4], [5, 6, 7, 8]])
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 4], "data": [1, 2, 3, 4, 5, 6, 7, 8]}
    assert call(url + INFER, {"inputs": [tensor]})["outputs"] == nested["outputs"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "z"}, "z: not an input"),
        ({"datatype": "FP128"}, "inputs[0].datatype"),
        ({"datatype": "INT64"}, "x: dtype is int64"),
        ({"datatype": "FP16"}, "FP16 has no JSON form"),
        ({"shape": [1, 5]}, "inputs[0].data: 4 elements, the shape has 5"),
        ({"shape": [4]}, "x: shape is [4]"),
        ({"shape": [-1, 4]}, "a dimension is negative"),
        ({"shape": [2**40, 2**40]}, "inputs[0].shape"),
        ({"shape": [1] * 9}, "9 dimensions"),
        ({"shape": [0, 4], "data": []}, "holds no element"),
        ({"shape": "x"}, "request.inputs[0].shape"),
        ({"data": [1, 2, "three", 4]}, "inputs[0].data"),
        ({"data": [[1, 2], [3, 4]]}, "not nested like the shape"),
        ({"data": [1e300, 0, 0, 0]}, "x: contains NaN or infinity"),
        ({"data": None}, "inputs[0].data"),
        ({"parameters": {"binary_data_size": 16}}, "inputs[0].parameters.binary_data_size"),
        ({"parameters": {"binary_data_size": -1}}, "inputs[0].parameters.binary_data_size"),
    ],
)
def test_a_malformed_tensor_is_400_and_the_reason_names_the_field(served, change, says):
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]} | change
    status, body = _post(served[0], json.dumps({"inputs": [tensor]}).encode())
    assert (status, says in body["error"]) == (400, True), body


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "request"),
        (b"{", "request"),
        (b"[]", "request"),
        (b'{"inputs": []}', "x: missing"),
        (b'{"inputs": ' + b"[" * 100_000, "request"),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": ' + b"[" * 2000, "request"),
        (b"\xff\xfe", "request"),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1,4], "data": [NaN,0,0,0]}]}', "request"),
    ],
)
def test_a_body_that_is_no_request_is_400(served, body, says):
    status, answer = _post(served[0], body)
    assert (status, says in answer["error"]) == (400, True), answer


@pytest.mark.parametrize("tag", ["", "line 2", "a@b", "a" * 33, 5, ["a"]])
@pytest.mark.parametrize("binary", [False, True])
def test_a_tag_that_is_none_is_400_and_the_reason_names_the_field(served, tag, binary):
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4]}
    numbers = {"parameters": {"binary_data_size": 16}} if binary else {"data": [1, 2, 3, 4]}
    head = json.dumps({"inputs": [tensor | numbers], "parameters": {"tag": tag}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))} if binary else {}
    status, answer = _post(served[0], head + bytes(16) * binary, headers)
    assert (status, answer["error"].startswith("request.parameters.tag: ")) == (400, True), answer


def test_binary_data_that_does_not_add_up_is_400(served):
    head = json.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}]}
    ).encode()
    good = head + struct.pack("<4f", 1, 2, 3, 4)
    length = {"Inference-Header-Content-Length": str(len(head))}
    assert _post(served[0], good, length)[0] == 200
    for body, headers in (
        (good[:-1], length),
        (good + b"x", length),
        (good, {}),
        (good, {"Inference-Header-Content-Length": "999999"}),
        (good, {"Inference-Header-Content-Length": "-3"}),
        (good, {"Inference-Header-Content-Length": "1e3"}),
    ):
        status, answer = _post(served[0], body, headers)
        assert status == 400, answer


def test_an_unknown_output_and_an_unserved_extension_are_400(served):
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    for output in ({"name": "q"}, {"name": "y", "parameters": {"classification": 3}}):
        status, answer = _post(served[0], json.dumps({"inputs": [tensor], "outputs": [output]}).encode())
        assert status == 400
        assert "outputs[0]" in answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2", 200),
        ("GET", "/v2/health/live", 200),
        ("GET", "/v2/health/ready", 200),
        ("GET", "/v2/models/linear", 200),
        ("GET", "/v2/models/linear/versions/1.0.0", 200),
        ("GET", "/v2/models/linear/versions/1.0.0/ready", 200),
        ("GET", "/v2/models/linear/versions/9.9.9", 404),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/..%2f..%2fetc%2fpasswd", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", "/v2/models/linear/infer", 405),
        ("DELETE", "/v2", 405),
        ("GET", "/metrics", 200),
    ],
)
def test_paths_and_methods(served, method, path, status):
    request = urllib.request.Request(served[0] + path, method=method)
    assert _send(request)[0] == status


def test_a_body_over_the_limit_is_413_before_it_is_read(served):
    with socket.create_connection(_address(served[0]), timeout=10) as sock:
        sock.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (INFER.encode(), 10**12))
        assert sock.recv(100).startswith(b"HTTP/1.1 413")


def test_json_over_its_limit_is_400_and_points_to_binary(served):
    status, answer = _post(served[0], b" " * (limits.MAX_REQUEST_JSON_BYTES + 1))
    assert (status, "bytes of JSON" in answer["error"]) == (400, True)


def test_an_endless_request_head_is_cut_off(served):
    with socket.create_connection(_address(served[0]), timeout=10) as sock:
        sock.sendall(b"GET /v2 HTTP/1.1\r\nX: " + b"a" * (limits.MAX_HEAD_BYTES + 1))
        assert sock.recv(100).startswith(b"HTTP/1.1 431")
    assert call(served[0] + "/v2/health/live") == {"live": True}


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, deflate", "x"])
def test_a_body_in_an_unknown_coding_is_415(served, coding):
    status, answer = _post(served[0], b"x", {"Content-Encoding": coding})
    assert (status, "use gzip or deflate" in answer["error"]) == (415, True)


@pytest.mark.parametrize("coding", ["identity", "Identity", "", " identity "])
def test_a_body_in_no_coding_is_read_as_it_is(served, coding):
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}).encode()
    assert _post(served[0], body, {"Content-Encoding": coding})[0] == 200


def test_metrics_count_what_was_answered(served):
    url, _ = served
    infer_json(url, [[1, 2, 3, 4]])
    with urllib.request.urlopen(url + "/metrics", timeout=10) as response:
        text = response.read().decode()
    assert 'edgewright_requests_total{model="linear",slot="test",version="1.0.0"}' in text
    assert 'edgewright_latency_seconds_bucket{le="+Inf",model="linear",slot="test",version="1.0.0"}' in text
    assert 'rung="active:1.0.0/fp32"' in text


def test_a_request_that_shares_the_wire_with_the_next_is_answered_in_order(served):
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}).encode()
    one = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (INFER.encode(), len(body), body)
    with socket.create_connection(_address(served[0]), timeout=10) as sock:
        sock.sendall(one + one.replace(b"[1, 2, 3, 4]}", b"[1, 2, 3, x]}") + one)
        seen = b""
        while seen.count(b"HTTP/1.1 ") < 3 or not seen.endswith(b"}"):
            seen += sock.recv(65536)
    assert [part[:3] for part in seen.split(b"HTTP/1.1 ")[1:]] == [b"200", b"400", b"200"]


def test_half_precision_travels_in_binary(tmp_path):
    from edge_agent.http.oip_codec import parse_request

    manifest = bundles.make_bundle(tmp_path / "b").manifest
    x = np.array([[1, 2, 3, 4]], np.float16)
    head = {"inputs": [{"name": "x", "datatype": "FP16", "shape": [1, 4], "parameters": {"binary_data_size": 8}}]}
    data = json.dumps(head).encode()
    tensors = parse_request(data + x.tobytes(), len(data), manifest).tensors
    assert tensors["x"].dtype == np.float16
    assert (tensors["x"] == x).all()


def _post(url, body, headers=None):
    return _send(urllib.request.Request(url + INFER, body, headers or {}))


def _send(request):
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            data = response.read()
            binary = response.headers["content-type"] != "application/json"
            return response.status, {} if binary else json.loads(data)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def _address(url):
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)

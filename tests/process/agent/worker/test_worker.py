"""The worker process: readiness, faults, memory, draining, and swaps on one socket that lose nothing."""

import http.client
import json
import os
import signal
import socket
import threading
import time
import urllib.error
from pathlib import Path

import pytest
from support.makers import bundles as bundle_maker
from support.sites.worker_host import (
    HostedWorker,
    call,
    infer_json,
    ladder_of,
    listening_socket,
    proportional_memory_mb,
    url_of,
    wait_until,
)

from edge_agent.ipc.worker import AgentView, Drain, Drained, Fault, Heartbeat, Prefer, Shed
from edge_agent.worker.__main__ import EXIT_MEMORY
from edge_contracts.guards import FeatureGuard, InputGuard
from edge_contracts.manifest import Input, LastResort, SampleMapping

ROW = [[0.9, -0.5, -0.5, 0.0]]


@pytest.fixture
def listening():
    with listening_socket() as sock:
        yield sock


@pytest.fixture
def hosted(listening):
    workers = []

    def start(*bundles, **plan):
        workers.append(HostedWorker(listening, ladder_of(*bundles), **plan))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


def test_a_worker_keeps_the_guards_of_its_bundle(tmp_path, listening, hosted):
    """Each action over HTTP: what the client is told, and what is counted."""
    features = (
        FeatureGuard(index=0, name="load", maximum=1.0, action="clip"),
        FeatureGuard(index=1, name="state", categories=(-0.5, 0.0), action="reject"),
        FeatureGuard(index=2, name="probe", minimum=-1.0, action="fallback"),
    )
    guarded = Input(
        name="x",
        dtype="float32",
        shape=(-1, 4),
        sample=SampleMapping(dtype="float32"),
        guard=InputGuard(features=features),
    )
    resort = LastResort(kind="constant", values=(0.0, 0.0, 1.0))
    worker = hosted(bundle_maker.make_bundle(tmp_path / "b", inputs=(guarded,), last_resort=resort))
    worker.ready()
    url = url_of(listening)
    assert "warnings" not in infer_json(url, ROW)["parameters"]
    clipped = infer_json(url, [[7.0, -0.5, -0.5, 0.0]])
    assert clipped["parameters"]["warnings"] == "x: load: 7 is above the maximum 1"
    assert clipped["outputs"] == infer_json(url, [[1.0, -0.5, -0.5, 0.0]])["outputs"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        infer_json(url, [[0.9, 3.0, -0.5, 0.0]])
    assert refused.value.code == 400
    assert json.loads(refused.value.read()) == {"error": "x: state: 3 is not one of its categories"}
    instead = infer_json(url, [[0.9, -0.5, -9.0, 0.0]])
    assert instead["parameters"]["served_by"] == "last-resort/constant"
    assert instead["outputs"][0]["data"] == [0.0, 0.0, 1.0]
    wanted = {"requests": 4, "rejected": 1, "guard_input": 2, "fallbacks": 1}
    worker.hear(Heartbeat, lambda beat: wanted.items() <= beat.counters.items())


def test_a_ready_worker_answers_and_its_heartbeats_count(tmp_path, listening, hosted):
    worker = hosted(bundle_maker.make_bundle(tmp_path / "b"))
    assert worker.ready().served_by == "active:1.0.0/fp32"
    answer = infer_json(url_of(listening), ROW)
    assert answer["parameters"]["served_by"] == "active:1.0.0/fp32"
    beat = worker.hear(Heartbeat, lambda beat: beat.counters["requests"] == 1)
    assert sum(beat.latency_log2_us) == 1
    assert beat.served_by == {"active:1.0.0/fp32": 1}
    wait_until(lambda: worker.flight.in_flight == 0)
    assert worker.flight.started == 1


def test_the_worker_stays_small(tmp_path, listening, hosted):
    worker = hosted(bundle_maker.make_bundle(tmp_path / "b"))
    worker.ready()
    infer_json(url_of(listening), ROW)
    assert proportional_memory_mb(worker.process.pid) < 90


@pytest.mark.parametrize("answered_before", [0, 3])  # the first is computed on a thread, fast ones on the loop
def test_an_exploding_model_ends_its_worker_and_the_lost_request_is_counted(
    tmp_path, listening, hosted, answered_before
):
    bundle = bundle_maker.make_bundle(tmp_path / "b", models=[("fp32", bundle_maker.exploding_model())])
    worker = hosted(bundle, memory_limit_mb=64.0)
    worker.ready()
    for _ in range(answered_before):
        infer_json(url_of(listening), ROW)
    with pytest.raises((http.client.HTTPException, OSError)):
        infer_json(url_of(listening), [[4e9, 0, 0, 0]])
    fault = worker.hear(Fault)
    assert fault.fatal
    assert fault.reason == "engine-memory"
    assert worker.process.wait(10) == EXIT_MEMORY
    assert worker.flight.in_flight == 1


def _ask_rows(url, rows):
    """Return the status of a request of so many rows, and its error if it has one."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, 4], "parameters": {"binary_data_size": 16 * rows}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    request = urllib.request.Request(f"{url}/v2/models/linear/infer", head + bytes(16 * rows), headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, ""
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["error"]


def test_a_batch_that_does_not_fit_is_refused_before_the_engine_runs(tmp_path, listening, hosted):
    bundle = bundle_maker.make_bundle(tmp_path / "b", models=[("fp32", bundle_maker.wide_model())])
    worker = hosted(bundle, memory_limit_mb=64.0)
    worker.ready()
    url = url_of(listening)
    for rows in (1, 10, 300, 10):
        assert _ask_rows(url, rows)[0] == 200
    for rows in (2000, 20_000, 1_000_000):  # 125 MB, 1.2 GB, 61 GB of scratch
        status, text = _ask_rows(url, rows)
        assert (status, "send at most" in text) == (413, True), text
        most = int(text.rpartition("at most ")[2].split()[0])
        assert 300 < most < 1000
    assert _ask_rows(url, 300)[0] == 200
    assert worker.process.poll() is None
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as metrics:  # nothing is imported at the first scrape
        assert metrics.status == 200


def test_memory_of_large_batches_goes_back(tmp_path, listening, hosted):
    bundle = bundle_maker.make_bundle(tmp_path / "b", models=[("fp32", bundle_maker.wide_model(64))])
    worker = hosted(bundle, memory_limit_mb=256.0)
    worker.ready()
    before = proportional_memory_mb(worker.process.pid)
    for _ in range(3):
        assert _ask_rows(url_of(listening), 300_000)[0] == 200  # 73 MB of scratch, 5 MB of request
    wait_until(lambda: proportional_memory_mb(worker.process.pid) < before + 40.0)


def test_health_is_answered_while_a_slow_model_computes(tmp_path, listening, hosted):
    bundle = bundle_maker.make_bundle(tmp_path / "b", models=[("fp32", bundle_maker.looping_model())])
    worker = hosted(bundle)
    worker.ready()
    slow = threading.Thread(target=infer_json, args=(url_of(listening), [[1e6, 0, 0, 0]]))
    slow.start()
    wait_until(lambda: worker.flight.in_flight == 1)
    assert call(url_of(listening) + "/v2/health/live") == {"live": True}
    assert worker.flight.in_flight == 1
    slow.join(30)
    assert not slow.is_alive()


def test_requests_wait_in_the_backlog_for_the_next_worker(tmp_path, listening, hosted):
    bundle = bundle_maker.make_bundle(tmp_path / "b")
    first = hosted(bundle)
    first.ready()
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait(10)
    answers = []
    caller = threading.Thread(target=lambda: answers.append(infer_json(url_of(listening), ROW)))
    caller.start()
    time.sleep(0.1)
    hosted(bundle).ready()
    caller.join(10)
    assert answers[0]["outputs"][0]["shape"] == [1, 3]


def test_a_release_that_does_not_load_is_reported_and_last_good_serves(tmp_path, listening, hosted):
    bad = bundle_maker.make_bundle(
        tmp_path / "bad", version="1.1.0", models=[("fp32", bundle_maker.crash_model())], golden=None
    )
    worker = hosted(bad, bundle_maker.make_bundle(tmp_path / "good"))
    fault = worker.hear(Fault)
    assert fault.served_by == "active:1.1.0/fp32"
    assert not fault.fatal
    assert worker.ready().served_by == "last-good:1.0.0/fp32"
    assert infer_json(url_of(listening), ROW)["parameters"]["served_by"] == "last-good:1.0.0/fp32"


def test_the_supervisor_can_shed_prefer_and_show_its_view(tmp_path, listening, hosted):
    worker = hosted(bundle_maker.make_bundle(tmp_path / "b"))
    worker.ready()
    url = url_of(listening)
    worker.say(Prefer(variant="small", threads=1))
    worker.hear(Heartbeat, lambda beat: beat.rung == "active:1.0.0/small")
    assert infer_json(url, ROW)["parameters"]["served_by"] == "active:1.0.0/small"
    worker.say(Shed(retry_after_s=7))
    worker.say(AgentView(gauges={"temperature_c": 51.5}))
    wait_until(lambda: _status(url, "/v2/health/ready") == 503)
    with pytest.raises(urllib.error.HTTPError) as refused:
        infer_json(url, ROW)
    assert refused.value.headers["retry-after"] == "7"
    refused.value.close()
    worker.say(Shed(retry_after_s=0))
    wait_until(lambda: _status(url, "/v2/health/ready") == 200)
    assert "edgewright_agent_temperature_c 51.5" in _text(url, "/metrics")


def test_clients_that_keep_their_connection_are_shed_as_well(tmp_path, listening, hosted):
    worker = hosted(bundle_maker.make_bundle(tmp_path / "b"))
    worker.ready()
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": ROW[0]}]}).encode()
    request = b"POST /v2/models/linear/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    kept = socket.create_connection(listening.getsockname(), timeout=10)

    def status():
        kept.sendall(request)  # in one piece: its head is known again
        with http.client.HTTPResponse(kept) as response:
            response.begin()
            response.read()
            return response.status

    assert [status() for _ in range(3)] == [200] * 3
    worker.say(Shed(retry_after_s=7))
    wait_until(lambda: status() == 503)
    worker.say(Shed(retry_after_s=0))
    wait_until(lambda: status() == 200)
    kept.close()
    assert worker.hear(Heartbeat, lambda beat: beat.counters["requests"] >= 4).counters["shed"] >= 1


@pytest.mark.parametrize("how", ["drain", "sigterm", "link"])
def test_every_way_to_end_drains(tmp_path, listening, hosted, how):
    worker = hosted(bundle_maker.make_bundle(tmp_path / "b"), drain_s=2.0)
    worker.ready()
    kept = http.client.HTTPConnection("127.0.0.1", listening.getsockname()[1], timeout=10)
    kept.request("GET", "/v2/health/live")
    kept.getresponse().read()
    if how == "drain":
        worker.say(Drain(deadline_s=2.0))
    elif how == "sigterm":
        os.kill(worker.process.pid, signal.SIGTERM)
    else:
        worker.link.shutdown(socket.SHUT_RDWR)
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": ROW}]})
    said = None
    while said != "close":  # every answer is one until the worker has heard it
        kept.request("POST", "/v2/models/linear/infer", body)
        response = kept.getresponse()
        assert response.status == 200
        said = response.headers["connection"]
        response.read()
    kept.close()
    if how != "link":
        assert worker.hear(Drained).cut == 0
    assert worker.process.wait(10) == 0


def test_an_idle_connection_is_cut_at_the_deadline(tmp_path, listening, hosted):
    worker = hosted(bundle_maker.make_bundle(tmp_path / "b"))
    worker.ready()
    with socket.create_connection(listening.getsockname()):
        wait_until(lambda: worker.flight.connections == 1)
        worker.say(Drain(deadline_s=0.2))
        assert worker.hear(Drained).cut == 1
    assert worker.process.wait(10) == 0


def test_a_swap_under_constant_load_of_kept_alive_clients_loses_no_request(tmp_path, listening, hosted):
    old = hosted(bundle_maker.make_bundle(tmp_path / "old"))
    old.ready()
    clients = [_Client(listening.getsockname()[1]) for _ in range(4)]
    for client in clients:
        client.start()
    wait_until(lambda: all(client.versions for client in clients))
    new = hosted(bundle_maker.make_bundle(tmp_path / "new", version="1.1.0"))
    new.ready()
    old.say(Drain(deadline_s=5.0))
    assert old.hear(Drained).cut == 0
    assert old.process.wait(10) == 0
    wait_until(lambda: all(client.versions[-1] == "1.1.0" for client in clients))
    for client in clients:
        client.stop.set()
        client.join(10)
    assert [client.problems for client in clients] == [[], [], [], []]
    assert all(client.versions[-1] == "1.1.0" for client in clients)
    assert {version for client in clients for version in client.versions} == {"1.0.0", "1.1.0"}
    assert old.flight.in_flight == 0
    wait_until(lambda: new.flight.in_flight == 0)


class _Client(threading.Thread):
    """Sends one request after the other over a kept-alive connection; never repeats one."""

    def __init__(self, port):
        super().__init__()
        self.stop, self.problems, self.versions = threading.Event(), [], []
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self._body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": ROW}]})

    def run(self):
        while not self.stop.is_set():
            try:
                self._connection.request("POST", "/v2/models/linear/infer", self._body)
                answer = json.loads(self._connection.getresponse().read())
                self.versions.append(answer["parameters"]["version"])
            except Exception as error:
                self.problems.append(repr(error))
                self._connection.close()
        self._connection.close()


def _status(url: str, path: str) -> int:
    try:
        call(url + path)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    return 200


def _text(url: str, path: str) -> str:
    with urllib.request.urlopen(url + path, timeout=10) as response:
        return response.read().decode()


def test_a_plan_without_any_readable_release_is_a_fatal_fault(tmp_path, hosted):
    bundle = bundle_maker.make_bundle(tmp_path / "b")
    Path(bundle.folder / "manifest.json").unlink()
    worker = hosted(bundle)
    assert worker.hear(Fault).fatal
    assert worker.process.wait(10) == 3

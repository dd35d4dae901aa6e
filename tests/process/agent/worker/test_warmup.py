"""A worker that takes over has answered itself first, and nothing that is counted knows of it."""

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from support.makers import bundles
from support.makers.referenced_bundles import make_referenced_bundle
from support.sites.worker_host import HostedWorker, infer_json, ladder_of, listening_socket, url_of, wait_until

from edge_agent.errors import EngineError
from edge_agent.host import scheduling
from edge_agent.host.scheduling import BEHIND, step_behind, step_up
from edge_agent.http.app_state import AppState
from edge_agent.http.inference_endpoint import INLINE_US
from edge_agent.http.oip_app import OipApp
from edge_agent.http.server import HttpServer
from edge_agent.inference.runtime import Runtime
from edge_agent.ipc.in_flight import InFlightCounters
from edge_agent.ipc.worker import Heartbeat, WorkerPlan
from edge_agent.supervisor.slots import worker_process
from edge_agent.supervisor.slots.worker_process import Callbacks, WorkerProcess
from edge_agent.worker.warmup import warm_up
from edge_contracts.manifest import Input, LastResort, Output, SampleMapping

ROW = [[0.9, -0.5, -0.5, 0.0]]


class Stage:
    """A runtime and the server that answers from it, with no socket that listens."""

    def __init__(self, runtime):
        self.runtime, self.serving, self.flight = runtime, AppState(), InFlightCounters.create()
        self.serving.runtime = runtime
        self.app = OipApp(self.serving)
        self.server = None

    def warm_up(self):
        async def run():
            self.server = HttpServer(self.app, self.flight)
            await asyncio.wait_for(warm_up(self.server, self.runtime), 20)

        asyncio.run(run())


@pytest.fixture
def stage(tmp_path):
    with Runtime.open(make_referenced_bundle(tmp_path / "b").folder) as runtime:
        yield Stage(runtime)


def test_it_is_over_without_a_trace_but_what_is_quicker(stage):
    stage.warm_up()
    assert not any(stage.runtime.tally.counters.values())
    assert (stage.runtime.tally.served_by, stage.runtime.seen.totals) == ({}, {})
    assert (stage.server.connections, stage.flight.connections, stage.flight.in_flight) == (0, 0, 0)
    assert stage.flight.started > 1
    assert stage.app._endpoint._usual_us < INLINE_US
    assert len(stage.app._endpoint._codec._cache._forms) == 2


def test_no_answer_of_it_is_a_last_value(tmp_path):
    made = bundles.make_bundle(
        tmp_path / "b",
        models=[("nan", bundles.nan_model())],
        last_resort=LastResort(kind="last_value", fresh_s=60),
    )
    with Runtime.open(made.folder) as runtime:
        poison = np.float32([[150, 0, 0, 0]])
        Stage(runtime).warm_up()
        assert runtime.infer({"x": poison}).abstained
        runtime.infer({"x": np.float32(ROW)})
        assert not runtime.infer({"x": poison}).abstained


def test_a_model_that_fails_in_it_ends_nothing(stage, monkeypatch):
    def fail(_tensors):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(stage.runtime, "infer", fail)
    stage.warm_up()
    assert stage.server.connections == 0


def test_without_a_first_rung_that_serves_there_is_none(tmp_path, monkeypatch):
    def fail(_feeds):
        raise EngineError("broken")

    with Runtime.open(bundles.make_bundle(tmp_path / "b").folder) as runtime:
        rung = runtime._ladder.loaded[0]
        monkeypatch.setattr(rung.session, "run", fail)
        rung.express = None
        while runtime.usual(1.0):
            assert runtime.infer({"x": np.float32(ROW)}).served_by.endswith("/small")
        stage = Stage(runtime)
        stage.warm_up()
        assert stage.flight.started == 0


def test_a_slow_model_is_not_rehearsed(stage):
    stage.runtime._ladder.loaded[0].warm_s = 1.0
    stage.warm_up()
    assert stage.flight.started == 0


def test_a_model_of_halves_is_rehearsed_in_binary_only(tmp_path):
    inputs = (Input(name="x", dtype="float16", shape=(-1, 4), sample=SampleMapping(dtype="float16")),)
    outputs = (Output(name="y", dtype="float16", shape=(-1, 3), kind="logits"),)
    made = bundles.make_bundle(tmp_path / "b", models=[("half", _half())], inputs=inputs, outputs=outputs, golden=None)
    with Runtime.open(made.folder) as runtime:
        stage = Stage(runtime)
        stage.warm_up()
        assert len(stage.app._endpoint._codec._cache._forms) == 1


def _half():
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(bundles.WEIGHTS.astype(np.float16), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "half",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["n", 3])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def test_a_worker_that_rehearsed_reports_only_what_others_asked(tmp_path):
    with listening_socket() as listening:
        worker = HostedWorker(listening, ladder_of(bundles.make_bundle(tmp_path / "b")), takes_over=True)
        try:
            worker.ready()
            assert not any(worker.hear(Heartbeat).counters.values())
            infer_json(url_of(listening), ROW)
            beat = worker.hear(Heartbeat, lambda beat: beat.counters["requests"])
            assert (beat.counters["requests"], sum(beat.latency_log2_us)) == (1, 1)
            assert worker.flight.in_flight == 0
        finally:
            worker.close()


# Its priority


def nices(pid):
    """Return the nice values of all threads of a process."""
    return {os.getpriority(os.PRIO_PROCESS, int(thread.name)) for thread in Path(f"/proc/{pid}/task").iterdir()}


@pytest.fixture
def sleeper():
    code = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\ntime.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    wait_until(lambda: psutil.Process(process.pid).num_threads() > 1)
    yield process.pid
    process.kill()
    process.wait()


def test_who_may_not_return_does_not_step_behind(sleeper, monkeypatch):
    monkeypatch.setattr(scheduling.resource, "getrlimit", lambda _: (0, 0))
    monkeypatch.setattr(scheduling, "_capabilities", lambda: 0)
    step_behind(sleeper)
    assert nices(sleeper) == {os.getpriority(os.PRIO_PROCESS, 0)}


def test_all_threads_step_up(sleeper):
    own = os.getpriority(os.PRIO_PROCESS, 0)
    if not scheduling._may_return_to(own):
        step_behind(sleeper)
        assert nices(sleeper) == {own}  # as above, and for real
        return
    for thread in Path(f"/proc/{sleeper}/task").iterdir():
        step_behind(int(thread.name))
    assert nices(sleeper) == {own + BEHIND}
    step_up(sleeper)
    assert nices(sleeper) == {own}


def session_nice(pid):
    """Return the nice value of a process's session, None where the kernel keeps none: the file is missing, or is empty
    for a session that is as old as the system."""
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/autogroup").read_text().split()[-1])
    return None


def test_its_session_steps_behind_and_up_with_it(sleeper):
    if session_nice(sleeper) is None:
        assert step_up(sleeper)
        return
    wait_until(lambda: (step_behind(sleeper), session_nice(sleeper) == BEHIND)[1])
    wait_until(lambda: step_up(sleeper))
    assert session_nice(sleeper) == 0


def test_the_session_of_another_process_is_left_alone():
    sleep = f"{sys.executable} -c 'import time; time.sleep(60)'"
    leader = subprocess.Popen(
        ["sh", "-c", f"{sleep} & echo $!; wait"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        member = int(leader.stdout.readline())
        assert os.getsid(member) == leader.pid
        before = session_nice(leader.pid)
        step_behind(member)
        assert session_nice(leader.pid) == before
    finally:
        os.killpg(leader.pid, signal.SIGKILL)
        leader.communicate()


@pytest.mark.parametrize(("refusal", "done"), [(errno.EAGAIN, False), (errno.EINVAL, True), (errno.ENOENT, True)])
def test_the_kernel_refuses_to_weigh_a_session(sleeper, monkeypatch, refusal, done):
    def refuse(*_, **__):
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(Path, "write_text", refuse)
    step_behind(sleeper)
    assert step_up(sleeper) is done


def test_a_worker_is_stepped_up_until_the_kernel_takes_it(tmp_path, monkeypatch):
    plan = WorkerPlan(slot="test", ladder=ladder_of(bundles.make_bundle(tmp_path / "b")), takes_over=True)
    tries = iter([False, False, True])
    asked = []
    monkeypatch.setattr(worker_process, "step_up", lambda pid: (asked.append(pid), next(tries))[1])

    async def run(listening):
        heard = asyncio.Event()
        callbacks = Callbacks(
            ready=lambda *_: heard.set(), heartbeat=lambda *_: None, fault=lambda *_: None, died=lambda *_: None
        )
        worker = await WorkerProcess.start(plan, listening, callbacks)
        await asyncio.wait_for(heard.wait(), 30)
        for _ in range(4):
            worker.watch()
        worker.kill("test")
        await asyncio.wait_for(worker.ended(), 10)
        return worker.pid

    with listening_socket() as listening:
        assert asked == [asyncio.run(run(listening))] * 3


def test_a_process_that_is_gone_is_no_error(sleeper):
    os.kill(sleeper, signal.SIGKILL)
    os.waitid(os.P_PID, sleeper, os.WEXITED | os.WNOWAIT)
    step_behind(sleeper)
    step_up(sleeper)


@pytest.mark.parametrize("behind", [False, True])
def test_a_worker_loads_behind_another_and_serves_beside_nobody(tmp_path, behind):
    plan = WorkerPlan(slot="test", ladder=ladder_of(bundles.make_bundle(tmp_path / "b")), takes_over=behind)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    loads_at = own + BEHIND if behind and scheduling._may_return_to(own) else own

    async def run(listening):
        heard = asyncio.Event()
        callbacks = Callbacks(
            ready=lambda *_: heard.set(), heartbeat=lambda *_: None, fault=lambda *_: None, died=lambda *_: None
        )
        worker = await WorkerProcess.start(plan, listening, callbacks)
        try:
            first = nices(worker.pid)
            await asyncio.wait_for(heard.wait(), 30)
            return first, nices(worker.pid)
        finally:
            worker.kill("test")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(worker.ended(), 10)

    with listening_socket() as listening:
        assert asyncio.run(run(listening)) == ({loads_at}, {own})
